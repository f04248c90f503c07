"""Stock: what a gateway does with its cache beyond asking it, so that the pipeline reads straight on.

An answer at hand becomes a flight that has landed already, and a provider's refusal that is remembered one that has failed already.
What was served stale is bought anew behind the caller's back.

Invariant: nothing here keeps a caller waiting, and what fails here is noticed by none.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Awaitable, Callable, Hashable

import msgspec

from headgate.cache.cache import Hit, Miss
from headgate.cache.fingerprint import to_the_letter
from headgate.cache.keeping import Asked
from headgate.cache.tiers import Cache
from headgate.coalesce.coalesce import Flight
from headgate.coalesce.trail import Trail
from headgate.model.chat import ChatRequest, Completion
from headgate.model.errors import GatewayError, NotCached, Rejected
from headgate.model.tenancy import Coalescing, Key, Wishes
from headgate.reply import Ticket
from headgate.routing.routing import Plan

log = logging.getLogger(__name__)

STALE = "stale"
"""Why the cache answered with what its time is over for."""
REFUSED = "refused"
"""Why the cache answered with an error: the provider has refused this very request a moment ago."""

_ABOUT_THE_REQUEST = frozenset({400, 404, 413, 422})


class Errand(msgspec.Struct, frozen=True, gc=False):
    """What a flight is for: who asks what, and how the cache stands to it.

    key     where the exact answer lies; None for a call that the cache has no part in, and `bypass` says why
    epoch   the tenant's, from before the question was asked
    mode    what may share the flight
    over    whether its readers have waited for another flight already
    """

    ticket: Ticket
    request: ChatRequest
    key: Key | None
    bypass: str | None
    epoch: int
    mode: Coalescing
    over: bool = False

    @property
    def shared(self) -> tuple[Hashable, ...]:
        """What is equal for all who may share its flight: the request and its tenant (both are in the key), the epoch, so that who
        comes after an invalidation joins nothing that began before it, the caller's own key, and the wishes about who shares and
        where the answer may come from."""
        wishes = self.ticket.wishes
        return (
            self.key,
            self.epoch,
            wishes.coalesce_key,
            wishes.cache,
            wishes.stale,
            wishes.strategy,
            wishes.min_confidence,
            wishes.max_error_rate,
            self.mode,
        )

    def compared(self, flight: Flight) -> bool:
        """Whether the flight may be compared by meaning with others that are under way."""
        return flight.shared is not None and self.mode == "semantic" and self.ticket.wishes.cache == "default"


def at_hand(cache: Cache, id: str, key: Key, request: ChatRequest, wishes: Wishes) -> Flight | None:
    """An answer that need not be waited for, or a refusal, as a flight that is over. Never waits."""
    if wishes.cache == "no-cache":
        return None
    hit = cache.peek(key, stale=wishes.stale)
    if hit is not None:
        completion = hit.entry.completion
        return Flight.landed_already(id, completion, found(Trail(), hit, completion))
    if not cache.refusals:
        return None
    error = cache.refusals.find(to_the_letter(key.namespace, request))
    return None if error is None else _failed_already(id, error)


def _failed_already(id: str, error: GatewayError) -> Flight:
    flight = Flight(id)
    flight.trail = Trail(cache="hit", cache_reason=REFUSED)
    # An error of its own for each call: it carries the call's id.
    again = copy.copy(error)
    again.remembered = True
    flight.fail(again)
    return flight


def found(trail: Trail, hit: Hit, completion: Completion) -> Trail:
    """Note where a cached answer came from."""
    trail.source, trail.cache, trail.confidence = hit.tier, "hit", hit.confidence
    trail.cache_reason = STALE if hit.stale else None
    trail.entry, trail.partition, trail.worth = hit.entry.id, hit.entry.partition, hit.entry.worth
    if hit.judgement is not None:
        trail.prior = hit.judgement.prior
    trail.deployment, trail.model = hit.entry.deployment, completion.model
    return trail


def missed(trail: Trail, miss: Miss) -> None:
    """Note why nothing was served."""
    if miss.shadow:
        trail.cache = "shadow"
    if miss.judgement is not None:
        # What a guard saw are words of two questions, one of them somebody else's: neither a header nor the log may hold them.
        trail.cache_reason, trail.judged = miss.judgement.reason.partition(":")[0], miss.judgement.confidence
        trail.confidence = miss.judgement.confidence if miss.shadow else None


def asked(errand: Errand, flight: Flight) -> Asked:
    """What is kept beside the answer that this flight has brought."""
    trail, ticket, wishes = flight.trail, errand.ticket, errand.ticket.wishes
    return Asked(
        id=flight.id,
        epoch=errand.epoch,
        worth=trail.worth,
        deployment=trail.deployment or "",
        model=ticket.route,
        user=wishes.user or ticket.caller.user,
        tags=wishes.tags,
    )


def nothing_cached() -> NotCached:
    """The error of a call that wanted an answer from stock or none."""
    return NotCached("There is no cached answer to this request, and it asked for nothing else.")


def lasting(error: Rejected, trail: Trail, plan: Plan) -> bool:
    """Whether a provider would say the same again in a moment: it spoke of the request itself, and so did all that the plan names
    before it. What a breaker left out, or failed in a way that may pass, could have answered."""
    asked = [attempt.deployment for attempt in trail.attempts]
    return (
        error.status in _ABOUT_THE_REQUEST
        and asked == [step.deployment.name for step in plan.steps[: len(asked)]]
        and all(attempt.outcome == error.label for attempt in trail.attempts)
    )


def anew(wishes: Wishes) -> Wishes:
    """The wishes of a call that buys again what was served stale to one with these. Where no vector was wanted none is made: the
    exact answer is too old to be found by then."""
    cache = "exact" if wishes.cache == "exact" else "no-cache"
    return msgspec.structs.replace(wishes, cache=cache, stale=0.0, timeout=None, idempotency_key=None)


class Refreshes:
    """Calls that nobody waits for: for each question one at a time, however often it was served stale."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[None]] = {}

    def start(self, key: Hashable, work: Callable[[], Awaitable[object]]) -> None:
        """Begin the work for this key, unless it is under way. Its failure is said in the log and harms nobody."""
        if key in self._tasks:
            return
        task = self._tasks[key] = asyncio.get_running_loop().create_task(self._run(work))
        task.add_done_callback(lambda _: self._tasks.pop(key))

    async def _run(self, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except GatewayError as error:
            log.info("an answer that was served stale could not be bought anew: %s", error.message)
        except Exception:
            log.exception("an answer that was served stale could not be bought anew")

    async def idle(self) -> None:
        """Wait until none is under way."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def close(self) -> None:
        """Give up what is under way."""
        for task in list(self._tasks.values()):
            task.cancel()
        await self.idle()
