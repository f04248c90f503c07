"""Waiting for what real servers and other tasks take their time for."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

from headgate.model.errors import Overloaded


async def until(is_so: Callable[[], object]) -> None:
    """Wait until it is so; `is_so` may be asynchronous. Raises TimeoutError where it does not come."""
    async with asyncio.timeout(20):
        while True:
            found = is_so()
            if await found if inspect.isawaitable(found) else found:
                return
            await asyncio.sleep(0.005)


async def outcome(asked: Awaitable[object]) -> object:
    """What is answered, or the Overloaded that is raised."""
    try:
        return await asked
    except Overloaded as error:
        return error


async def until_well(ask: Callable[[], Awaitable[object]]) -> None:
    """Ask until this does not raise Overloaded any more."""
    async with asyncio.timeout(30):
        while isinstance(await outcome(ask()), Overloaded):
            await asyncio.sleep(0.02)


async def is_refused_at_once(ask: Callable[[], Awaitable[object]]) -> bool:
    """Whether an answer is there without any wait for the network. Who comes when a look at the server is due waits for it; the next does not."""
    return await _refuses_at_once(ask) or await _refuses_at_once(ask)


async def _refuses_at_once(ask: Callable[[], Awaitable[object]]) -> bool:
    asked = asyncio.ensure_future(outcome(ask()))
    for _ in range(5):
        await asyncio.sleep(0)
    done = asked.done()
    return isinstance(await asked, Overloaded) and done
