"""Coalesce: flights, each one piece of work that is shared by everyone who asks for the same thing while it is under way.

A flight has its own task and owns everything that must not be lost: the provider call, its settlement, the cache entry. An
HTTP response only reads it, so a leader that hangs up is one reader less and nothing more. Events are kept for late
joiners, who replay them and then follow; each reader has a place of its own in them, so a slow one keeps nobody waiting. They are
encoded once, however many read them.

A flight stays joinable until its answer is in the cache, so two staggered identical requests never make two calls; and it is
forgotten *before* it is cancelled, so a newcomer never joins a dying one. Nor is one joined that is old or long: it may never end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Hashable
from time import monotonic
from typing import Literal

import msgspec

from headgate.coalesce.apart import Apart
from headgate.coalesce.patience import Patience
from headgate.coalesce.starts import Starts
from headgate.coalesce.tab import Tab
from headgate.coalesce.trail import Trail
from headgate.model.chat import Completion, Delta, Event
from headgate.model.errors import GatewayError, Internal, Overloaded

log = logging.getLogger(__name__)

_encode = msgspec.json.Encoder().encode

MAX_FOLLOWERS = 1_000
DRAIN = 30.0
"""Seconds that a flight goes on which everybody has left: its usage and its answer are worth something, but not any price."""
OLDEST = 60.0
"""Seconds after which nobody joins a flight any more."""
LONGEST = 1 << 20
"""Bytes of answer after which nobody does."""


class Flight:
    """One answer under way (or landed), its events so far, and how many read it."""

    def __init__(self, id: str, *, abandoned: Literal["finish", "cancel"] = "finish", drain: float = DRAIN) -> None:
        """`abandoned`: what happens when the last reader leaves before the end; `drain`: seconds that it then has to finish.

        events     of the answer so far; `chunks`: its parts as JSON (see `encoded`), `size`: bytes of these
        readers    who read it now; `followers`: who ever joined it, `twins` of them as flights of their own
        streamed   whether any reader gets it in parts
        left       whether everybody left before the end
        doomed     whether it is given up: it will end with what it has
        apart      whether its answer has proven to be for nobody else
        alone      whether it has followed another flight in vain, and answers by itself
        shared     what is equal for all who may join it; None where nobody may
        began      when, monotonic seconds
        tab        who of its readers shares in the price
        """
        self.id = id
        self.trail = Trail()
        self.events: list[Event] = []
        self.chunks: list[bytes] = []
        self.size = 0
        self.completion: Completion | None = None
        self.error: GatewayError | None = None
        self.readers = 0
        self.followers = 0
        self.twins = 0
        self.streamed = False
        self.left = False
        self.doomed = False
        self.apart = False
        self.alone = False
        self.shared: Hashable | None = None
        self.began = 0.0
        self.tab = Tab()
        self._abandoned = abandoned
        self._drain = drain
        self._drained: asyncio.TimerHandle | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None
        self._forget: Callable[[], None] = lambda: None
        self._tapped: Callable[[], None] = lambda: None
        self._afterwards: list[Callable[[], None]] = []

    @classmethod
    def landed_already(cls, id: str, completion: Completion, trail: Trail) -> Flight:
        """A flight that never flew: an answer that was at hand."""
        flight = cls(id)
        flight.trail = trail
        flight.completion = completion
        return flight

    @property
    def begun(self) -> bool:
        """True once a part of the answer is known."""
        return bool(self.events) or self.completion is not None

    @property
    def ended(self) -> bool:
        """True once there is a completion or an error; no event follows."""
        return self.completion is not None or self.error is not None

    def price(self, most: int) -> None:
        """The answer will cost at most so many nano-USD: those who share in that can have it on hold."""
        self.trail.ceiling = most
        self._tell()

    def publish(self, event: Event) -> None:
        """Give the next event to all readers."""
        self._keep(event)
        self._tell()

    def land(self, completion: Completion) -> None:
        """The answer is whole and paid for."""
        self.completion = completion
        self._tell()

    def fail(self, error: GatewayError) -> None:
        """No more will come. What has landed stays landed."""
        if not self.ended:
            self.error = error
            self._tell()

    def news(self) -> asyncio.Future[None]:
        """Something to wait for: done when something new has happened."""
        news = asyncio.get_running_loop().create_future()
        self._waiting.append(news)
        return news

    async def heard(self, patience: float, meanwhile: Callable[[], None]) -> bool:
        """Wait until a part of the answer is known or the flight has ended; False when that takes more than `patience` seconds.
        `meanwhile` is called whenever anything else happens."""
        try:
            async with asyncio.timeout(patience):
                while not (self.begun or self.ended):
                    meanwhile()
                    await self.news()
        except TimeoutError:
            return False
        return True

    def events_from(self, position: int) -> list[Event]:
        """The events so far, from this one on. An answer that was never published (a cache hit) is turned into events now."""
        self.unfold()
        return self.events[position:]

    def unfold(self) -> None:
        """Turn an answer that has landed without having been published, as a cache hit does, into events."""
        if not self.events and self.completion is not None:
            for event in self.completion.events():
                self._keep(event)

    def _keep(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Delta):
            self.chunks.append(encoded(event))
            self.size += len(self.chunks[-1])

    def join(self, *, stream: bool = False) -> None:
        """One reader more; `stream`: it gets the answer in parts."""
        self.readers += 1
        self._go_on()
        if stream and not self.streamed:
            self.streamed = True
            self._tapped()

    def tapped(self, work: Callable[[], None]) -> None:
        """Do this when the first reader joins that gets the answer in parts."""
        self._tapped = work

    def leave(self) -> None:
        """One reader less. The last one to leave an unfinished flight either lets it finish for a while or cancels it."""
        self.readers -= 1
        if self.readers or self.ended or self._task is None:
            return
        self.left = True
        if self._abandoned == "cancel":
            self._cancel()
        else:
            self._drained = asyncio.get_running_loop().call_later(self._drain, self._cancel)

    def _cancel(self) -> None:
        self.doomed = True
        self._forget()
        if self._task is not None:
            self._task.cancel()

    def _go_on(self) -> None:
        """It is not abandoned any more."""
        self.left = False
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        """Its time to finish after everybody has left is no longer counted."""
        if self._drained is not None:
            self._drained.cancel()
            self._drained = None

    def afterwards(self, work: Callable[[], None]) -> None:
        """Do this when the flight has ended; at once when it has."""
        if self.ended:
            work()
        else:
            self._afterwards.append(work)

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for news in waiting:
            if not news.done():
                news.set_result(None)
        if self.ended:
            self._stop_waiting()
            left, self._afterwards = self._afterwards, []
            for work in left:
                work()


def encoded(part: Delta) -> bytes:
    """What one chunk of OpenAI's stream says to every reader alike: members of a JSON object, without its braces. What it says to one
    alone (`id`, `created`, `model`, `usage`) is not among them, nor `object`."""
    told = {name: value for name, value in part.extra.items() if name not in ("id", "object")}
    return _encode({**told, "choices": part.choices})[1:-1]


Fly = Callable[[Flight], Awaitable[None]]


class Flights:
    """All flights of this process. Create it inside a running loop's lifetime and `drain` it at the end."""

    def __init__(
        self,
        *,
        max_followers: int = MAX_FOLLOWERS,
        drain: float = DRAIN,
        oldest: float = OLDEST,
        longest: int = LONGEST,
        patience: Patience | None = None,
        starts: Starts | None = None,
        ended: Callable[[Flight], None] = lambda _: None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """At most `max_followers` readers join one flight; the next one starts a flight of its own. `drain`: seconds that an
        abandoned flight has to finish; `oldest` and `longest`: seconds and bytes of answer after which nobody joins. `ended` is told
        of every flight when it is over."""
        self._max_followers = max_followers
        self._drain = drain
        self._oldest = oldest
        self._longest = longest
        self._ended = ended
        self._clock = clock
        self._joinable: dict[Hashable, Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self.patience = patience or Patience()
        self.starts = starts or Starts()
        self.apart = Apart(clock=clock)
        self.started = 0

    @property
    def followers(self) -> int:
        """How many callers read another caller's flight now."""
        return sum(max(0, flight.readers - 1) for flight in self._joinable.values())

    def takes(self, flight: Flight) -> bool:
        """Whether one more may join this flight. One that has landed is neither too old nor too long: it keeps nobody waiting."""
        if flight.doomed or flight.error is not None or flight.followers >= self._max_followers:
            return False
        fresh = flight.size <= self._longest and self._clock() - flight.began <= self._oldest
        return fresh or flight.completion is not None

    def join(
        self,
        key: Hashable | None,
        id: str,
        abandoned: Literal["finish", "cancel"],
        fly: Fly,
        *,
        stream: bool = False,
    ) -> tuple[Flight, bool]:
        """Join the flight under `key`, or start one with `fly`; a None key is never shared. `stream`: the caller gets the answer in
        parts.

        Returns the flight and whether the caller leads it. Raises Overloaded while the gateway shuts down.
        """
        known = self._joinable.get(key) if key is not None else None
        if known is not None and self.takes(known):
            known.followers += 1
            known.join(stream=stream)
            return known, False
        if self._closing:
            raise Overloaded("The gateway is shutting down.", retry_after=1.0)
        return self._start(key, Flight(id, abandoned=abandoned, drain=self._drain), fly, stream), True

    def _start(self, key: Hashable | None, flight: Flight, fly: Fly, stream: bool) -> Flight:
        if key is not None:
            self._joinable[key] = flight
        flight.shared = key
        flight.began = self._clock()
        flight._forget = lambda: self._drop(key, flight)
        flight.join(stream=stream)
        self.started += 1
        task = asyncio.get_running_loop().create_task(self._run(key, flight, fly))
        flight._task = task
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._landed(ended, flight))
        return flight

    def _landed(self, task: asyncio.Task[None], flight: Flight) -> None:
        self._tasks.discard(task)
        if not flight.ended:
            # Of a task that is cancelled before its first step nothing runs; its readers are told here.
            flight.fail(_cancelled())
        self._ended(flight)

    async def _run(self, key: Hashable | None, flight: Flight, fly: Fly) -> None:
        """Fly, and whatever happens forget the flight before its readers hear of the end."""
        error: GatewayError | None = None
        try:
            await fly(flight)
        except asyncio.CancelledError:
            error = _cancelled()
        except GatewayError as known:
            error = known
        except Exception:
            log.exception("flight %s broke", flight.id)
        self._drop(key, flight)
        if flight.apart and key is not None:
            self.apart.keep(key)
        if not flight.ended:
            flight.fail(error or Internal(f"Internal error; its details are in the log under {flight.id}."))

    def _drop(self, key: Hashable | None, flight: Flight) -> None:
        if key is not None and self._joinable.get(key) is flight:
            del self._joinable[key]

    async def idle(self) -> None:
        """Wait until no flight is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def drain(self, grace: float) -> None:
        """Take no new flights, let those under way finish for `grace` seconds, then cancel the rest."""
        self._closing = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for task in list(self._tasks):
            task.cancel()
        for task in list(self._tasks):
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _cancelled() -> Overloaded:
    return Overloaded("The call was cancelled before its answer came.", retry_after=1.0)
