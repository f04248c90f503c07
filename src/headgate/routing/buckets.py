"""Bucket: may one more request go to a deployment in this minute, as far as its provider's own limits are known?

Two sources: what the configuration says may be sent in a minute, and what the provider said was left when it last answered. The
invariant: in any sixty seconds no more requests, and no more tokens, are given out than the configuration allows; and until a limit is
whole again no more than the provider said was left, less what has been sent since the attempt that it said so to.

Sent requests are counted in slots of two seconds, each of which leaves when its youngest request is a minute old.
"""

from __future__ import annotations

from collections import deque

import msgspec

from headgate.model.quota import Quota, Room

MINUTE = 60.0
SLOT = 2.0


class _Slot:
    """What was sent within two seconds."""

    __slots__ = ("number", "requests", "tokens")

    def __init__(self, number: int) -> None:
        self.number = number
        self.requests = 0
        self.tokens = 0


class Taken(msgspec.Struct, frozen=True):
    """One request that was let through: what it counts as, and how much had gone before it."""

    slot: _Slot
    tokens: int
    requests_before: int
    tokens_before: int


class _Left:
    """What a provider said was left of one limit, as a total of all that was ever sent beyond which nothing goes until `until`."""

    __slots__ = ("total", "until")

    def __init__(self) -> None:
        self.total = 0
        self.until = float("-inf")

    def told(self, room: Room, before: int, now: float) -> None:
        self.total = before + room.remaining
        self.until = now + room.reset

    def wait(self, sent: int, more: int, now: float) -> float:
        """Seconds until `more` may be sent, after `sent` in all."""
        return max(0.0, self.until - now) if sent + more > self.total else 0.0


class Bucket:
    """The room of one deployment. Times are seconds of one monotonic clock."""

    def __init__(self, rpm: int | None = None, tpm: int | None = None) -> None:
        """Requests and tokens that may be sent in a minute; None is as many as the provider takes."""
        self._rpm = rpm
        self._tpm = tpm
        self._slots: deque[_Slot] = deque()
        self._requests = 0
        self._tokens = 0
        self._all_requests = 0
        self._all_tokens = 0
        self._left_requests = _Left()
        self._left_tokens = _Left()

    def wait(self, tokens: int, now: float) -> float:
        """Seconds until a request of so many tokens may go; 0 is now. One that is larger than the limit goes when nothing else has."""
        self._forget(now)
        wait = self._left_requests.wait(self._all_requests, 1, now)
        wait = max(wait, self._left_tokens.wait(self._all_tokens, tokens, now))
        full = self._rpm is not None and self._requests + 1 > self._rpm
        if full or (self._tpm is not None and self._tokens + min(tokens, self._tpm) > self._tpm):
            wait = max(wait, self._until(now))
        return wait

    def take(self, tokens: int, now: float) -> Taken:
        """Count a request that goes now; ask `wait` before, in the same breath."""
        self._forget(now)
        number = int(now // SLOT)
        if not self._slots or self._slots[-1].number != number:
            self._slots.append(_Slot(number))
        slot = self._slots[-1]
        counted = tokens if self._tpm is None else min(tokens, self._tpm)
        self._all_requests += 1
        self._all_tokens += counted
        taken = Taken(slot, counted, self._all_requests, self._all_tokens)
        self._add(slot, 1, counted)
        return taken

    def used(self, taken: Taken, tokens: int, now: float) -> None:
        """It is known what a request has used: less than it was counted as, as a rule."""
        self._forget(now)
        self._add(taken.slot, 0, tokens - taken.tokens)

    def returned(self, taken: Taken, now: float) -> None:
        """The request was not sent after all. Of what the provider said was left it stays taken: that is told anew so soon."""
        self._forget(now)
        self._add(taken.slot, -1, -taken.tokens)

    def told(self, quota: Quota, taken: Taken, now: float) -> None:
        """What the provider said was left when it answered this request."""
        if quota.requests is not None:
            self._left_requests.told(quota.requests, taken.requests_before, now)
        if quota.tokens is not None:
            self._left_tokens.told(quota.tokens, taken.tokens_before, now)

    def _until(self, now: float) -> float:
        """Seconds until the oldest slot leaves: then there is some room again."""
        return max(0.0, (self._slots[0].number + 1) * SLOT + MINUTE - now) if self._slots else 0.0

    def _add(self, slot: _Slot, requests: int, tokens: int) -> None:
        """Into the slot in which it was taken, and into the sums while that slot is among them."""
        slot.requests += requests
        slot.tokens += tokens
        if self._slots and slot.number >= self._slots[0].number:
            self._requests += requests
            self._tokens += tokens

    def _forget(self, now: float) -> None:
        while self._slots and (self._slots[0].number + 1) * SLOT + MINUTE <= now:
            slot = self._slots.popleft()
            self._requests -= slot.requests
            self._tokens -= slot.tokens
