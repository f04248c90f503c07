"""Hearing: what a follower reads of a flight that another process flies, as a flight of its own that others can read.

Invariant: the copy says what the leader said, in its order, without a gap; where that cannot be had it fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from headgate.coalesce.coalesce import Flight
from headgate.coalesce.relay import TTL, Log, Page, Relay, decode
from headgate.model.errors import GatewayError, Interrupted

LOOK = 1.0
"""Seconds after which is looked whether there is anything new that nobody has told of; also what renews the lease."""


class Hearing:
    """One log, read by a follower into `copy`."""

    def __init__(self, relay: Relay, log: Log, *, given: Callable[[], bool]) -> None:
        """`given`: whether anybody was given a part of the answer."""
        self.copy = Flight(log.name)
        self._relay = relay
        self._log = log
        self._given = given
        self._stir = asyncio.Event()
        self._now = asyncio.get_running_loop().time
        self._heard = self._now()
        self._number = 0

    def wake(self) -> None:
        """There may be something to read."""
        self._stir.set()

    async def run(self) -> None:
        """Until the copy has ended, which it has afterwards in any case."""
        try:
            while not self.copy.ended:
                self._stir.clear()
                if not await self._read() and not self.copy.ended:
                    await self._until_woken()
        finally:
            self._broken()

    async def _read(self) -> bool:
        """Whether there was anything new."""
        try:
            pages = await self._relay.read(self._log, self._number)
        except GatewayError:
            # As long as nobody was given anything there is another way.
            if not self._given() or self._now() - self._heard > TTL:
                self._broken()
            return False
        self._heard = self._now()
        if pages is None:
            self._broken()
            return False
        for page in pages:
            self._number += 1
            self._take(decode(page))
        return bool(pages)

    def _take(self, page: Page) -> None:
        copy = self.copy
        if page.told is not None:
            page.told.note(copy.trail)
            copy.price(copy.trail.ceiling)
        for event in (*page.deltas, *(() if page.done is None else (page.done,))):
            copy.publish(event)
        if page.completion is not None:
            copy.land(page.completion)
        elif page.refusal is not None:
            copy.fail(page.refusal.error)
        elif page.failed:
            self._broken()

    def _broken(self) -> None:
        self.copy.fail(Interrupted("The answer broke off."))

    async def _until_woken(self) -> None:
        try:
            async with asyncio.timeout(LOOK):
                await self._stir.wait()
        except TimeoutError:
            return
