"""Sharing: which calls share one in flight. Of all who have a say in it, the strictest counts."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from headgate.model.tenancy import Coalescing, Policy, Wishes

_MODES: tuple[Coalescing, ...] = ("off", "exact", "semantic")


class Sharing(msgspec.Struct, frozen=True):
    """What the configuration says, for all and for single routes."""

    mode: Coalescing = "semantic"
    routes: Mapping[str, Coalescing] = {}

    def of(self, route: str, policy: Policy, wishes: Wishes) -> Coalescing:
        """What a call of a tenant with this policy shares."""
        said = (self.mode, self.routes.get(route, self.mode), policy.coalesce, wishes.coalesce)
        return min(said, key=_MODES.index)
