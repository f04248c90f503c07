"""Hearsay: what other processes say of deployments, and what this one tells them.

A provider that is down, wants money or asks to be left alone is met by one process first; the others need not meet it too. What they do with
it is decided by `Breakers.heard`.

Invariant: what was heard is not told on, and what cannot be read, or is about a deployment that this process does not have, changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import msgspec

from headgate.routing.breaker import Breakers, Met

KIND = "deployments"
"""What news of this are called."""


class Word(msgspec.Struct, frozen=True, gc=False):
    """What a process has met at a deployment, and for how many seconds that counts."""

    deployment: str
    met: Met
    seconds: float


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Word).decode


def shared(breakers: Breakers, known: Collection[str], tell: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Let others know what these breakers meet, by `tell`, which never waits; returns what takes in what others tell.

    `known` are the names of this process's deployments: processes may run with different configurations for a while.
    """

    def met(deployment: str, what: Met, seconds: float) -> None:
        tell(_encode(Word(deployment, what, seconds)))

    def heard(body: bytes) -> None:
        try:
            word = _decode(body)
        except msgspec.MsgspecError:
            return
        if word.deployment in known and math.isfinite(word.seconds) and word.seconds >= 0:
            breakers.heard(word.deployment, word.met, word.seconds)

    breakers.on_met = met
    return heard
