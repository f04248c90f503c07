"""Time that passes only when nobody has anything to do: an hour's wait takes no time at all, and always as long as it says.

A test that runs in it may be about seconds without being slow or depending on the machine. And it cannot hang: where everybody waits
for what will never come, it fails.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any


class Nobody(RuntimeError):
    """All wait, and nobody will ever wake them."""


class _Leaping(selectors.DefaultSelector):
    """Does not wait for what is due: it leaps there."""

    def __init__(self, leap: Callable[[float], None]) -> None:
        super().__init__()
        self._leap = leap

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise Nobody("All wait, and nobody will ever wake them.")
        if not ready and timeout:
            self._leap(timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands still while there is work, and otherwise goes at once to what is due next."""

    def __init__(self) -> None:
        self._seconds = 0.0
        super().__init__(_Leaping(self._leap))

    def _leap(self, seconds: float) -> None:
        self._seconds += seconds

    def time(self) -> float:
        return self._seconds


def clock() -> float:
    """The time of the running loop, in seconds: a clock to hand to what a test builds."""
    return asyncio.get_running_loop().time()


def run(test: Coroutine[Any, Any, Any]) -> Any:
    """Run to its end, from second 0 on."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(test)


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that runs in a time of its own."""

    @functools.wraps(test)
    def timeless(*given: Any, **named: Any) -> None:
        run(test(*given, **named))

    return timeless


def after(seconds: float) -> asyncio.Event:
    """Something that happens so many seconds from now."""
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, event.set)
    return event
