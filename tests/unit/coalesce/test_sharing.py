"""Which calls share one in flight: of all who have a say the strictest counts, and nobody can loosen what another says."""

from __future__ import annotations

import itertools

import pytest

from headgate.coalesce.sharing import Sharing
from headgate.model.tenancy import Coalescing, Policy, Wishes

MODES: tuple[Coalescing, ...] = ("off", "exact", "semantic")


def test_where_nobody_says_anything_what_means_the_same_is_shared() -> None:
    assert Sharing().of("auto", Policy(), Wishes()) == "semantic"


@pytest.mark.parametrize(("everywhere", "route", "tenant", "caller"), list(itertools.product(MODES, repeat=4)))
def test_the_strictest_counts(
    everywhere: Coalescing, route: Coalescing, tenant: Coalescing, caller: Coalescing
) -> None:
    sharing = Sharing(mode=everywhere, routes={"auto": route})
    found = sharing.of("auto", Policy(coalesce=tenant), Wishes(coalesce=caller))
    assert MODES.index(found) == min(map(MODES.index, (everywhere, route, tenant, caller)))


def test_what_one_route_says_is_nothing_to_another() -> None:
    sharing = Sharing(routes={"legal": "off"})
    assert sharing.of("legal", Policy(), Wishes()) == "off"
    assert sharing.of("chat", Policy(), Wishes()) == "semantic"
