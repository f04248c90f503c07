"""Reading: a text as its vector and as a vector for each of its word pieces, both from one pass through a model.

The one invariant: a reading depends on its text alone. Here are the value, the Protocol of what makes one, and the memo that spares a
model what it has read lately. Nothing here loads numpy.
"""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

Vector = Any
"""A numpy array of float32 of unit length; typed loosely because numpy is loaded late."""

MOST_READINGS = 2_048
MOST_BYTES = 16 << 20


class EmbedderUnavailable(Exception):
    """No vector for this text now: the model cannot be loaded, is overloaded, closed, or answered nonsense."""

    @classmethod
    def made_by(cls, identity: str, error: Exception) -> EmbedderUnavailable:
        """What an embedder raises for a lower error, whose own message stays inside: it may hold an address or a key."""
        return cls(f"no vector from {identity}: {type(error).__name__}")


class Reading(msgspec.Struct, frozen=True, eq=False):
    """What a model made of a text. The arrays are shared: they are not to be written to.

    vector  shape (d,), float32, unit length: the whole text
    tokens  shape (n, d), float16, rows of unit length: each piece where it stands, without the model's own marks
    pieces  the n pieces' numbers in the vocabulary
    opening  shape (d,), float32, unit length: what the model makes of the mark before the text, which stands for its kind more than
             for its topic
    """

    text: str
    vector: Vector
    tokens: Any
    pieces: tuple[int, ...]
    opening: Vector


class Reader(Protocol):
    """Guarantees: deterministic, the vector is the one that it gives as an Embedder, never blocks the event loop; raises
    EmbedderUnavailable. Readings asked for in one turn of the loop are made together.

    rarity  shape (V,), float32, 0 (in every sentence) to 1 (rare): how much each piece of the vocabulary tells
    """

    identity: str
    rarity: Any

    def fits(self, text: str) -> bool:
        """Whether the whole text shapes the reading. A longer one must not be compared: its end would not count."""
        ...

    async def read(self, text: str) -> Reading:
        """The text's reading."""
        ...


class Readings:
    """Readings made lately, by text, the least recently asked for forgotten first; and those being made, which are shared.

    One instance belongs to one event loop.
    """

    def __init__(
        self, make: Callable[[str], Awaitable[Reading]], *, most: int = MOST_READINGS, most_bytes: int = MOST_BYTES
    ) -> None:
        """`make` reads one text; at most so many readings and bytes are kept."""
        self._make = make
        self._most = most
        self._most_bytes = most_bytes
        self._made: OrderedDict[str, Reading] = OrderedDict()
        self._pending: dict[str, _Pending] = {}
        self.bytes = 0

    async def of(self, text: str) -> Reading:
        """The reading of `text`: remembered, under way or new. Raises what `make` raises.

        A caller that is cancelled disturbs none of the others; the last one's leaving cancels the making.
        """
        known = self._made.get(text)
        if known is not None:
            self._made.move_to_end(text)
            return known
        pending = self._pending.get(text)
        if pending is None:
            pending = self._pending[text] = _Pending(asyncio.ensure_future(self._new(text)))
        pending.callers += 1
        try:
            return await asyncio.shield(pending.task)
        finally:
            pending.callers -= 1
            if not pending.callers:
                pending.task.cancel()
                if self._pending.get(text) is pending:
                    del self._pending[text]

    async def _new(self, text: str) -> Reading:
        reading = await self._make(text)
        self._made[text] = reading
        self.bytes += _size(reading)
        while len(self._made) > self._most or self.bytes > self._most_bytes:
            _, oldest = self._made.popitem(last=False)
            self.bytes -= _size(oldest)
        return reading


class _Pending:
    """A reading being made, and how many wait for it."""

    def __init__(self, task: asyncio.Future[Reading]) -> None:
        self.task = task
        self.callers = 0


def _size(reading: Reading) -> int:
    return int(reading.vector.nbytes + reading.tokens.nbytes) + sys.getsizeof(reading.text)
