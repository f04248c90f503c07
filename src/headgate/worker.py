"""Worker: works off what was submitted. It calls `Gateway.chat` like anyone else: the same limits, budgets, cache, flights and records.

A job is accepted when it is in the store, and its caller is told so only then. The answer is read as a stream, so that a job that joins
another's call can tell by its first part whether that one lives; it waits for that no longer than `patience`.

What limits the tenant for a moment (its rate, its concurrency, money that calls in flight hold) ends no job: it waits on. A process that
is killed leaves jobs in flight; the next one begins them again, or another one that works on the same store, when their lease is over. Their answers are in the cache, if they had got so far; if not, the call is
made and paid once more, while of the first one the most it may have cost is in the journal, marked as lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from headgate.jobs.jobs import KEEP, Asked, Job, JobStore, Outcome, Waiting
from headgate.jobs.lanes import Lanes
from headgate.jobs.news import News, Watch
from headgate.model.chat import ChatRequest
from headgate.model.errors import (
    BudgetExceeded,
    Conflict,
    GatewayError,
    Internal,
    NotFound,
    Overloaded,
    RateLimited,
    UpstreamTimeout,
)
from headgate.model.leases import held
from headgate.model.tenancy import Principal, Wishes
from headgate.pipeline import Gateway

log = logging.getLogger(__name__)

PATIENCE = 1.5
STARTS = 3
"""How often a job is begun whose process dies: one that kills it must not do so for ever."""
LONGEST_REST = 10.0
"""Seconds after which a limit is looked at again, whatever it said: an operator may have changed it."""
STORE_WAIT = 1.0
"""Seconds between two tries at a store that does not work."""
LOOK = 1.0
"""Seconds between two looks at what other processes have done in the same store."""

Written = TypeVar("Written")

Callers = Callable[[str, str], Awaitable[Principal]]
"""Who a tenant's key, named by its id, belongs to now. Raises Unauthenticated."""


class Worker:
    """The jobs of one process. `run` it as a task; `close` it before the gateway."""

    def __init__(
        self,
        gateway: Gateway,
        store: JobStore,
        callers: Callers,
        *,
        new_id: Callable[[], str],
        lanes: Lanes | None = None,
        patience: float = PATIENCE,
        keep: float = KEEP,
        begins: bool = True,
        ended: Callable[[], None] | None = None,
        waited: Callable[[float], None] = lambda _: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`now` is the store's clock, unix seconds.

        patience  seconds that a job waits for the first part of an answer that another call is getting
        keep      seconds that a job is known after its end, and that it may wait
        begins    whether jobs are begun here; if not, other processes begin what is submitted here
        ended     is told when a job has ended whose end the store is to have told; None: none is
        waited    is told how many seconds a job has waited when it begins
        """
        self._gateway = gateway
        self._store = store
        self._callers = callers
        self._new_id = new_id
        self._lanes = lanes or Lanes()
        self._patience = patience
        self._keep = keep
        self._begins = begins
        self._told_end = ended
        self._waited = waited
        self._now = now
        self._watch = Watch()
        self._tasks: set[asyncio.Task[None]] = set()
        self._putting: set[asyncio.Task[Job]] = set()
        self._nudged = asyncio.Event()
        self._recovered = False
        self.stopping = False
        self._stopped_at = 0.0

    async def submit(self, caller: Principal, request: ChatRequest, wishes: Wishes, id: str | None = None) -> Job:
        """Accept a job, or find the one that was submitted under this id for the same; it is durable then.

        Raises Conflict when the id was used for something else, UnknownModel or ModelNotAllowed, RateLimited or Overloaded where too many
        wait.
        """
        self._gateway.routing.check(caller.policy, request.model)
        asked = Asked(body=request.body, wishes=wishes, key=caller.key)
        digest = asked.digest
        known = None if id is None else await self._store.find(caller.tenant, id)
        if known is None:
            known = await self._accepted(caller.tenant, id or self._new_id(), digest, msgspec.json.encode(asked))
        if known.digest != digest:
            raise Conflict("This request_id was used for another request; use a new one for each.", param="request_id")
        return known

    async def _accepted(self, tenant: str, id: str, digest: bytes, asked: bytes) -> Job:
        if self.stopping or not self._recovered:
            raise Overloaded("Nothing can be submitted now.", retry_after=STORE_WAIT)
        size = len(asked)
        self._lanes.let_in(tenant, size)
        job = Job(tenant=tenant, id=id, digest=digest, size=size, made=self._now())
        # Shielded: when the caller hangs up, the job may be in the store already, and then it must be in its lane.
        putting = asyncio.create_task(self._put(job, asked))
        self._putting.add(putting)
        putting.add_done_callback(self._putting.discard)
        return await asyncio.shield(putting)

    async def _put(self, job: Job, asked: bytes) -> Job:
        try:
            kept = await self._store.add(job, asked)
        except BaseException:
            self._lanes.leave(job.tenant, job.size)
            raise
        if kept is job:
            self._lanes.put(Waiting(job.tenant, job.id, job.size, job.made))
            self._nudged.set()
        else:
            self._lanes.leave(job.tenant, job.size)
        return kept

    async def find(self, tenant: str, id: str) -> Job:
        """The tenant's job of this id. Raises NotFound, in the same words for another tenant's."""
        job = await self._store.find(tenant, id)
        if job is None:
            raise NotFound("There is no such request: it was never submitted, or its time is over.")
        self._watch.seen((tenant, id), job.state)
        return job

    def news(self, tenant: str, id: str) -> News:
        """Something to wait for: done when a job's state has changed, or the worker stops. Cancel it to wait no more."""
        return self._watch.news((tenant, id))

    def counts(self) -> dict[tuple[str, ...], float]:
        """How many jobs are queued and in flight, by tenant and state."""
        return self._lanes.counts()

    async def sweep(self) -> None:
        """Forget what ended longer ago than it is kept."""
        await self._store.sweep(self._now() - self._keep)

    async def probe(self) -> None:
        """Raises Overloaded when the store does not work."""
        await self._store.states(())

    async def recover(self) -> bool:
        """Take up, once, what an earlier process has left; jobs are accepted from then on. Never raises: where the store does not work,
        that is False, the gateway serves without it, and `run` tries again."""
        if not self._recovered:
            try:
                self._lanes.learn((), await self._store.reopen())
                self._recovered = True
            except Exception:
                log.exception("submitted requests cannot be read; it is tried again")
        return self._recovered

    async def run(self) -> None:
        """Work off what waits, until cancelled or stopped."""
        while not await self.recover():  # noqa: ASYNC110 - a disk tells nobody that it works again
            await asyncio.sleep(STORE_WAIT)
        async with asyncio.TaskGroup() as group:
            if self._store.lease is not None:
                group.create_task(self._looks())
            if self._begins:
                group.create_task(self._beginnings())

    async def _beginnings(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.stopping:
            self._nudged.clear()
            waiting = self._lanes.take(loop.time())
            if waiting is not None:
                self._begin(waiting)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._lanes.pause(loop.time())):
                    await self._nudged.wait()

    async def _looks(self) -> None:
        """Look again and again at what others do. A look that fails is told, unless the store does so itself, and does not end the next."""
        while not self.stopping:
            await asyncio.sleep(LOOK)
            try:
                await self._look()
            except GatewayError:
                continue
            except Exception:
                log.exception("submitted requests cannot be looked at; it is tried again")

    async def _look(self) -> None:
        before = self._lanes.waiting()
        self._lanes.learn(before, await self._store.reopen())
        self._nudged.set()
        names = self._watch.names()
        if names:
            states = await self._store.states(names)
            for name in names:
                self._watch.seen(name, states.get(name))

    def _begin(self, waiting: Waiting) -> None:
        task = asyncio.create_task(self._work(waiting))
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._nudged.set()

    def stop(self) -> None:
        """Begin nothing more, accept nothing more, and let everyone go who waits for news. What is at work goes on until `close`."""
        if not self.stopping:
            self.stopping = True
            self._stopped_at = asyncio.get_running_loop().time()
            self._nudged.set()
            self._watch.end()

    async def close(self, grace: float) -> None:
        """Let what is at work go on until so many seconds after `stop`, and put the rest back: the next process begins it again."""
        self.stop()
        left = self._stopped_at + grace - asyncio.get_running_loop().time()
        if self._tasks and left > 0:
            await asyncio.wait(self._tasks, timeout=left)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._putting, return_exceptions=True)

    async def _work(self, waiting: Waiting) -> None:
        """One job, from its beginning to its end or back into its lane."""
        name, since = (waiting.tenant, waiting.id), asyncio.get_running_loop().time()
        try:
            begun = await self._store.begin(*name, self._now())
        except GatewayError:
            return self._back(waiting, STORE_WAIT)
        if begun is None:
            return self._lanes.done(waiting)
        job, asked = begun
        self._watch.tell(name)
        try:
            async with self._held(job, since):
                outcome = await self._outcome(job, asked)
        except GatewayError as error:
            await self._surely(lambda: self._store.put_back(job))
            self._back(waiting, STORE_WAIT if error.retry_after is None else error.retry_after)
            return self._watch.tell(name)
        except TimeoutError:
            log.warning(
                "request %s of %s is left to other processes: its lease could not be renewed", job.id, job.tenant
            )
            return self._lanes.done(waiting)
        except asyncio.CancelledError:
            # What is not put back is begun again all the same; it only counts as a start.
            with contextlib.suppress(GatewayError):
                await self._store.put_back(job)
            raise
        await self._end(job, outcome)
        self._lanes.done(waiting)

    def _held(self, job: Job, since: float) -> AbstractAsyncContextManager[None]:
        """While this is open, nobody else works on a job that was begun at this time of the loop. Raises TimeoutError when that ends."""
        seconds = self._store.lease
        if seconds is None:
            return contextlib.nullcontext()
        return held(lambda: self._store.renew(job), since=since, seconds=seconds)

    def _back(self, waiting: Waiting, wait: float) -> None:
        self._lanes.put_back(waiting, asyncio.get_running_loop().time() + min(wait, LONGEST_REST))

    async def _end(self, job: Job, outcome: Outcome) -> None:
        now = self._now()
        telling = None if self._told_end is None else now
        if await self._surely(lambda: self._store.end(job, outcome, now, telling)):
            self._waited(max(0.0, (job.begun or now) - job.made))
            if self._told_end is not None:
                self._told_end()
        self._watch.tell((job.tenant, job.id))

    async def _surely(self, write: Callable[[], Awaitable[Written]]) -> Written:
        """Write until it is written; meanwhile the job keeps its place, so a full disk holds back what would come after it."""
        while True:
            try:
                return await write()
            except GatewayError as error:
                log.warning(
                    "what became of a submitted request cannot be written; it is tried again: %s", error.message
                )
                await asyncio.sleep(STORE_WAIT)

    async def _outcome(self, job: Job, asked: bytes) -> Outcome:
        """What comes of a job. Raises a GatewayError that will pass by itself, for a job that is to wait on."""
        try:
            return await self._answered(job, msgspec.json.decode(asked, type=Asked))
        except GatewayError as error:
            if _passes(error):
                raise
            return Outcome.failed(error)
        except Exception:
            log.exception("request %s of %s broke", job.id, job.tenant)
            return Outcome.failed(Internal(f"Internal error; its details are in the log under {job.id}."))

    async def _answered(self, job: Job, asked: Asked) -> Outcome:
        limit = min(self._keep, asked.wishes.timeout or self._keep)
        left = job.made + limit - self._now()
        if job.starts > STARTS:
            raise Internal(f"The process ended {STARTS} times while this request was in flight.")
        if left <= 0:
            raise UpstreamTimeout(f"No answer within {limit:g} s of the submission.")
        wishes = replace(asked.wishes, patience=self._patience, timeout=left if asked.wishes.timeout else None)
        caller = await self._callers(job.tenant, asked.key)
        return await self._called(caller, ChatRequest.parse({**asked.body, "stream": True}), wishes)

    async def _called(self, caller: Principal, request: ChatRequest, wishes: Wishes) -> Outcome:
        async with await self._gateway.chat(caller, request, wishes) as reply:
            try:
                completion = await reply.completion()
            except GatewayError as error:
                if _passes(error):
                    raise
                return Outcome.failed(error, cost=reply.cost, call=reply.id)
            return Outcome(
                call=reply.id,
                at=int(reply.ticket.at),
                source=reply.source,
                model=reply.trail.model,
                cost=reply.cost,
                saved=reply.saved,
                started_over=reply.started_over,
                completion=completion,
            )


def _passes(error: GatewayError) -> bool:
    """Whether it says nothing about the request, only that it came at a bad moment, before anything was bought for it."""
    return isinstance(error, RateLimited | Overloaded) or (isinstance(error, BudgetExceeded) and error.retryable)
