"""News: what the processes of one gateway tell each other as it happens, so that nobody has to ask.

It only makes quick what comes right without it. A message may be lost (Redis was away, a process was just starting), so whoever keeps
something fresh by news also looks for itself when listening begins anew, and from time to time.

Two versions may run side by side: a kind that nobody here knows, and a message that cannot be read, are passed over.

Invariant: telling never waits and never raises, and no process hears itself.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from headgate.model.errors import Overloaded

if TYPE_CHECKING:
    from headgate.storage.redis import Redis

log = logging.getLogger(__name__)

CHANNEL = "news"
WAITING = 1_000
"""Messages that may be on their way at a time; further ones are not told."""

Heard = Callable[[bytes], None]


class _Message(msgspec.Struct, frozen=True, gc=False):
    """On the wire. `teller` is the process that tells; `body` is what its kind means by it."""

    kind: str
    teller: str
    body: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Message).decode


class News:
    """One process's end. Say what is to be heard, then `run`."""

    def __init__(self, redis: Redis, *, teller: str | None = None) -> None:
        """`teller` tells this process from all others; a random name unless given."""
        self._redis = redis
        self._teller = teller or secrets.token_hex(8)
        self._hearers: dict[str, Heard] = {}
        self._beginners: list[Callable[[], None]] = []
        self._telling: set[asyncio.Task[None]] = set()

    def on(self, kind: str, heard: Heard) -> None:
        """Call `heard` with the body of every message of this kind that another process tells. Raises ValueError for a second hearer."""
        if kind in self._hearers:
            raise ValueError(f"news of {kind!r} are heard already")
        self._hearers[kind] = heard

    def on_begun(self, begun: Callable[[], None]) -> None:
        """Call `begun` whenever listening begins (anew): what was told before was not heard."""
        self._beginners.append(begun)

    def tell(self, kind: str, body: bytes) -> None:
        """Tell all others, in a moment. Call it on the event loop."""
        if len(self._telling) >= WAITING:
            return
        task = asyncio.get_running_loop().create_task(self._tell(_encode(_Message(kind, self._teller, body))))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def run(self) -> None:
        """Hear until cancelled."""
        await self._redis.listen(CHANNEL, self._heard, self._begun)

    async def close(self) -> None:
        """Return when what was told is on its way, or lost."""
        if self._telling:
            await asyncio.wait(self._telling)

    async def _tell(self, message: bytes) -> None:
        try:
            await self._redis.publish(CHANNEL, message)
        except Overloaded as error:
            log.debug("news were not told: %s", error)

    def _heard(self, raw: bytes) -> None:
        try:
            message = _decode(raw)
        except msgspec.MsgspecError:
            log.debug("news that cannot be read were passed over")
            return
        heard = self._hearers.get(message.kind)
        if heard is not None and message.teller != self._teller:
            try:
                heard(message.body)
            except Exception:
                # One bad message must not end the hearing of all others.
                log.exception("news of %s could not be taken in", message.kind)

    def _begun(self) -> None:
        for begun in self._beginners:
            try:
                begun()
            except Exception:
                log.exception("what is to be done when listening begins failed")
