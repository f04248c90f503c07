"""Repeats: a call that is sent again under the same Idempotency-Key gets the first one's answer, and is paid once.

As Stripe has it: the same key with another request is a conflict, a repeat of a call still under way joins it. Unlike there, a
failure is not kept, for whoever repeats a failed call wants an answer. Keys are kept in this process, each tenant's for itself.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from headgate.coalesce.coalesce import Flight
from headgate.model.errors import Conflict

KEEP = 86_400.0
MOST = 10_000


class _Kept(msgspec.Struct, frozen=True):
    digest: bytes
    flight: Flight
    until: float


class Repeats:
    """Flights by the key that their caller gave them."""

    def __init__(self, *, keep: float = KEEP, most: int = MOST, clock: Callable[[], float] = time.monotonic) -> None:
        """Keys are remembered for `keep` seconds, at most the newest `most` of them."""
        self._keep = keep
        self._most = most
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()

    def find(self, tenant: str, key: str, digest: bytes) -> Flight | None:
        """The flight of an earlier call with this key, unless it failed. Raises Conflict when that was another request."""
        kept = self._kept.get((tenant, key))
        if kept is None or kept.until <= self._clock() or kept.flight.error is not None:
            return None
        if kept.digest != digest:
            raise Conflict("This Idempotency-Key was used for another request; use a new one for each request.")
        return kept.flight

    def keep(self, tenant: str, key: str, digest: bytes, flight: Flight) -> None:
        """Remember the flight that answers this key."""
        self._kept[tenant, key] = _Kept(digest, flight, self._clock() + self._keep)
        self._kept.move_to_end((tenant, key))
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
