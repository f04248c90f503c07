"""Leases: what is one process' own for as long as it says so again and again.

A store counts a lease by its own clock. Who holds one reckons from the moment before it asked, by a monotonic clock, and so has let go of it no
later than the store lets another have it; however long it was frozen meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from headgate.model.errors import GatewayError

RENEWALS = 3
"""How often a lease is renewed in the time that it lasts."""
AGAIN = 1.0
"""Seconds after which a store that did not answer is asked again."""


@contextlib.asynccontextmanager
async def held(renew: Callable[[], Awaitable[bool]], *, since: float, seconds: float) -> AsyncIterator[None]:
    """While this is open, a lease of so many seconds is renewed; `since`: the loop's time before it was asked for.

    `renew` says whether it is still ours. Where it is not, or the store could not be asked in time, what is inside is cancelled and
    TimeoutError raised.
    """
    async with asyncio.timeout_at(since + seconds) as bound:
        renewing = asyncio.create_task(_renewed(renew, bound, seconds))
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)


async def _renewed(renew: Callable[[], Awaitable[bool]], bound: asyncio.Timeout, seconds: float) -> None:
    loop, wait = asyncio.get_running_loop(), seconds / RENEWALS
    while not bound.expired():
        await asyncio.sleep(wait)
        asked = loop.time()
        try:
            ours = await renew()
        except GatewayError:
            wait = min(AGAIN, seconds / RENEWALS)
            continue
        wait = seconds / RENEWALS
        if not bound.expired():
            bound.reschedule(asked + seconds if ours else asked)
