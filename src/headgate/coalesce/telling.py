"""Telling: a flight that leads at its place says to followers in other processes what it says to its readers.

It is one more reader of the flight. While nobody follows it writes nothing but that it is alive; then the first part at once, and further ones
together: for every part a message would cost more than the answer takes.

Invariant: a page that was sent is sent unchanged until it is known to be written, so that its number stands for one content.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from headgate.coalesce.coalesce import Flight
from headgate.coalesce.relay import LINGER, TTL, Log, Page, Refusal, Relay, Told, encode
from headgate.model.chat import Delta, Done, Event
from headgate.model.errors import GatewayError

TOGETHER = 0.05
"""Seconds in which parts are collected to one page,"""
ENOUGH = 128
"""and the characters of an answer that are one in any case."""
MOST = 4 << 20
"""Bytes of a log; longer answers are not passed on."""
AGAIN = 1.0
"""Seconds after which is told again what could not be told."""


class Telling:
    """One log, written by its leader."""

    def __init__(
        self, relay: Relay, log: Log, flight: Flight, takes: Callable[[Flight], bool], *, asked: bool = False
    ) -> None:
        """`takes`: whether one more may join the flight; `asked`: whether somebody may follow already."""
        self._relay = relay
        self._log = log
        self._flight = flight
        self._takes = takes
        self._stir = asyncio.Event()
        self._news: asyncio.Future[None] | None = None
        self._asked = asked
        self._over = False
        self._kept = False
        self._position = 0
        self._number = 0
        self._size = 0
        self._unsent: bytes | None = None
        self._said: Told | None = None
        self._whole = False
        self._followers = 0
        self._holds = False
        self._now = asyncio.get_running_loop().time
        self._heard = self._now()
        self._flushed = -TOGETHER
        self._next = self._heard + TTL / 3
        self._paused = self._heard
        flight.afterwards(self._stir.set)

    def wake(self) -> None:
        """Somebody has joined the log, perhaps, or left it."""
        self._asked = True
        self._stir.set()

    def over(self, *, kept: bool) -> None:
        """The flight has done its work; `kept`: its answer lies in stock, and who has just not found it there may have it from here."""
        self._over, self._kept = True, kept
        self._stir.set()

    async def run(self) -> None:
        """Until the flight has ended and its work is done, or the log is gone."""
        try:
            while not await self._told():
                await self._until_due()
        finally:
            self._hold(0)

    async def _told(self) -> bool:
        """Say what is due; whether nothing else will ever be."""
        if self._now() < self._paused:
            return False
        self._prepare()
        last = self._over and self._whole
        if self._unsent is None and not (last or self._asked) and self._now() < self._next:
            return False
        self._asked = False
        try:
            followers = await self._relay.tell(
                self._log, self._number, self._unsent, joinable=self._joinable(), last=last
            )
        except GatewayError:
            self._paused = self._now() + AGAIN
            # Of whom nothing was heard for so long the log is gone; where nobody follows that is soon enough.
            kept = TTL if self._followers or not self._over else LINGER
            return self._paused - self._heard > kept
        if followers is None:
            return True
        self._unsent = None
        self._heard = self._now()
        self._next = self._heard + TTL / 3
        self._hold(followers)
        return last

    def _joinable(self) -> bool:
        if self._whole and self._flight.completion is None:
            return False
        return self._kept if self._over else self._takes(self._flight)

    async def _until_due(self) -> None:
        until = max(self._next, self._paused)
        if self._followers and not self._whole and self._now() >= self._paused:
            if self._flight.ended:
                return
            if self._news is None or self._news.done():
                self._news = self._flight.news()
                self._news.add_done_callback(lambda _: self._stir.set())
            if self._pending():
                until = min(until, self._flushed + TOGETHER)
        try:
            async with asyncio.timeout_at(until):
                await self._stir.wait()
        except TimeoutError:
            return
        self._stir.clear()

    def _prepare(self) -> None:
        """Write the page that is due, if one is. What nobody reads waits for somebody, or for the end."""
        if self._unsent is not None or self._whole or not (self._followers or self._over):
            return
        if self._flight.ended:
            self._whole = True
            self._write(self._end())
        elif self._pending() and (self._now() >= self._flushed + TOGETHER or _length(self._pending()) >= ENOUGH):
            self._write(self._part())

    def _write(self, page: Page) -> None:
        written = encode(page)
        self._size += len(written)
        if self._size > MOST:
            self._whole, written = True, encode(Page(failed=True))
        self._unsent = written
        self._number += 1
        self._flushed = self._now()

    def _pending(self) -> Sequence[Event]:
        return self._flight.events[self._position :]

    def _part(self) -> Page:
        new, told = self._pending(), Told.of(self._flight.trail)
        self._position += len(new)
        page = Page(
            deltas=tuple(one for one in new if isinstance(one, Delta)),
            done=next((one for one in new if isinstance(one, Done)), None),
            told=None if told == self._said else told,
        )
        self._said = told
        return page

    def _end(self) -> Page:
        """What is left; of an answer nobody has read in parts, nothing but the whole."""
        flight = self._flight
        page = self._part() if self._position else Page(told=Told.of(flight.trail))
        if flight.completion is not None:
            return msgspec.structs.replace(page, completion=flight.completion)
        refusal = None if flight.error is None else Refusal.of(flight.error)
        return msgspec.structs.replace(page, refusal=refusal, failed=refusal is None)

    def _hold(self, followers: int) -> None:
        """Read the flight for those who follow, so that it is not abandoned while there are some."""
        self._followers = followers
        if bool(followers) == self._holds or (followers and (self._flight.ended or self._flight.doomed)):
            return
        self._holds = bool(followers)
        if self._holds:
            self._flight.join()
        else:
            self._flight.leave()


def _length(events: Sequence[Event]) -> int:
    """Characters of text in these events."""
    deltas = (one for one in events if isinstance(one, Delta))
    return sum(len((part.get("delta") or {}).get("content") or "") for one in deltas for part in one.choices)
