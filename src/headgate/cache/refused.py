"""Refused: what a provider has refused a moment ago, so that whoever repeats it is told at once and nobody is asked again.

Only what would be refused again is kept, which the caller of `keep` knows; only for seconds, since a provider's mind changes; and each
tenant's own, as everything in the cache.
"""

from __future__ import annotations

import copy
import time
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from headgate.model.errors import GatewayError
from headgate.model.tenancy import Key

MOST = 1_000
"""Refusals of one tenant that are remembered; the oldest goes."""
TENANTS = 1_000
"""Tenants whose refusals are remembered; those of the one go that was refused nothing for the longest time."""


class _Refusal(msgspec.Struct, frozen=True):
    error: GatewayError
    until: float


class Refusals:
    """Refusals by what was refused. False when there are none, so that asking costs nothing where nothing is refused."""

    def __init__(
        self, *, keep: float, most: int = MOST, tenants: int = TENANTS, now: Callable[[], float] = time.time
    ) -> None:
        """`keep`: seconds that one is remembered, 0 is not at all; `now` is the store's clock, unix seconds."""
        self._keep = keep
        self._most = most
        self._tenants_most = tenants
        self._now = now
        self._tenants: OrderedDict[str, OrderedDict[Key, _Refusal]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._tenants)

    def keep(self, key: Key, error: GatewayError) -> None:
        """Remember that this was refused."""
        if self._keep <= 0:
            return
        now, tenant = self._now(), key.namespace.tenant
        self._clear(now)
        kept = self._tenants.setdefault(tenant, OrderedDict())
        self._tenants.move_to_end(tenant)
        # A copy, for the error that was raised holds on to everything that the call which met it knew.
        kept[key] = _Refusal(copy.copy(error), now + self._keep)
        kept.move_to_end(key)
        if len(kept) > self._most:
            kept.popitem(last=False)
        if len(self._tenants) > self._tenants_most:
            self._tenants.popitem(last=False)

    def _clear(self, now: float) -> None:
        """Forget the tenants that have not been refused anything for long, whether they ever ask again or not."""
        while self._tenants:
            oldest = next(iter(self._tenants.values()))
            if next(reversed(oldest.values())).until > now:
                break
            self._tenants.popitem(last=False)

    def find(self, key: Key) -> GatewayError | None:
        """How this was refused, if it was a moment ago."""
        tenant = key.namespace.tenant
        kept = self._tenants.get(tenant)
        if kept is None:
            return None
        now = self._now()
        # All live equally long, so those at the front are the first whose time is over.
        while kept and next(iter(kept.values())).until <= now:
            kept.popitem(last=False)
        if not kept:
            del self._tenants[tenant]
        found = kept.get(key)
        return None if found is None else found.error

    def forget(self, tenant: str) -> None:
        """Ask again for all that this tenant was refused."""
        self._tenants.pop(tenant, None)
