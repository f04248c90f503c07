"""Quota: what a provider says, beside an answer or a refusal, of how much more it will take.

Invariant: it is the provider's word at the moment it answered. What was sent to it since has not been counted in.
"""

from __future__ import annotations

import msgspec


class Room(msgspec.Struct, frozen=True, gc=False):
    """What is left of one limit.

    remaining  requests, or tokens, that may still be sent
    reset      seconds until the limit is whole again
    """

    remaining: int
    reset: float


class Quota(msgspec.Struct, frozen=True, gc=False):
    """What is left of a provider's limits; None for one that it did not speak of."""

    requests: Room | None = None
    tokens: Room | None = None
