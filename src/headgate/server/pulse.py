"""Pulse: a comment now and then in a stream that says nothing, so that no proxy on its way takes it for dead.

Load balancers give up after a minute of silence, and a model may think for longer between two words. The status line goes out with the
first content and no earlier, so before it there is no stream to keep alive, and a failure is still told as a status.

Invariant: a comment never stands inside an event, and none is sent to a client that has not yet read the last.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from headgate.server.edge import Sender

SECONDS = 15.0
COMMENT = b": \n\n"


class Pulse:
    """Watches one stream while it is open."""

    def __init__(self, send: Sender, seconds: float = SECONDS) -> None:
        """`seconds` of silence after which a comment is sent."""
        self._send = send
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._timer = self._loop.call_later(seconds, self._look)
        self._comment: asyncio.Task[None] | None = None

    def beat(self) -> None:
        """Something has been sent."""
        self._last = self._loop.time()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._comment is not None:
            self._comment.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        if now >= self._last + self._seconds and (self._comment is None or self._comment.done()):
            self._comment = self._loop.create_task(self._send.part(COMMENT))
            self._last = now
        self._timer = self._loop.call_at(max(now + self._seconds / 10, self._last + self._seconds), self._look)
