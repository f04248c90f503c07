"""Poster: many callers' postings, written a whole batch at a time, in order.

What comes while a batch is under way shares the next, so a commit carries as many rows as arrived during the one before. While the journal
cannot be asked, postings are kept in memory and in the spool, whose disk a caller waits for instead, also while it is tried whether it
answers again; what was spooled is written first when it does. When the spool is full, calls that a budget limits are refused, and postings of
the others are kept in memory alone.

Invariant: postings reach the journal in the order of `put`, and none is dropped whose caller was not told so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from msgspec.structs import replace

from headgate.budget.passing import Passing
from headgate.budget.postings import Posting, Report, SharedJournal, Written
from headgate.budget.spool import Spool
from headgate.model import failpoints
from headgate.model.errors import Overloaded

log = logging.getLogger(__name__)

BATCH = 512
"""Postings of one transaction at most."""
MOST = 65_536
"""Postings that may wait before everybody is refused."""
RETRY = 0.25
"""Seconds between two tries of a batch that failed."""
LINGER = 0.01
"""Seconds that a posting nobody waits for may lie before it is written: the next one that somebody waits for takes it along."""
PATIENCE = 3.0
"""Seconds after which a batch counts as failed; nobody knows then what became of it, so it is written again."""

Told = Callable[[Sequence[Posting], Report], None]


class _Item:
    __slots__ = ("answer", "posting", "since")

    def __init__(self, posting: Posting, since: float, answer: asyncio.Future[Written] | None) -> None:
        self.posting = posting
        self.since = since
        self.answer = answer


class Poster:
    """The queue in front of a journal. All methods are called from one event loop."""

    def __init__(
        self,
        journal: SharedJournal,
        spool: Spool | None,
        told: Told,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        retry: float = RETRY,
    ) -> None:
        """`told` hears of each batch that was written. The spool is this object's from now on, and closed by it."""
        self._journal = journal
        self._spool = spool
        self._told = told
        self._monotonic = monotonic
        self._retry = retry
        self._queue: deque[_Item] = deque()
        self._kept = 0
        """How many at the beginning of the queue have been kept already while the journal could not be asked."""
        self._failure = ""
        self._due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._passing = Passing()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        found = [] if spool is None else spool.found
        self._unwritten = len(found)
        """Postings of the spool that are not in the journal yet."""
        for posting in found:
            self._queue.append(_Item(replace(posting, spooled=True), self._monotonic(), None))
        self._kept = len(found)
        self._passing.came(len(found))

    @property
    def pending(self) -> int:
        """Postings that are not in the journal yet."""
        return len(self._queue)

    @property
    def lag(self) -> float:
        """For how many seconds the oldest has waited."""
        return max(0.0, self._monotonic() - self._queue[0].since) if self._queue else 0.0

    def admit(self, *, capped: bool) -> None:
        """Raises Overloaded when new work must be refused: too much waits, or what a budget limits could not be written."""
        if self._closing or len(self._queue) >= MOST:
            raise Overloaded("The ledger's queue is full.", retry_after=1.0)
        if capped and self._failure and (self._spool is None or not self._spool.left):
            raise self._refused()

    def put(self, posting: Posting) -> None:
        """Queue a posting. Never refuses: what was admitted must be recorded."""
        self._append(_Item(posting, self._monotonic(), None))
        if self._timer is None and not self._due.is_set():
            self._timer = asyncio.get_running_loop().call_later(LINGER, self._wake)

    async def write(self, posting: Posting) -> Written:
        """Durable: in the journal, or in the spool, which says taken. Raises Overloaded when it is in neither."""
        answer: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        self._append(_Item(posting, self._monotonic(), answer))
        self._wake()
        return await answer

    def go_on(self) -> None:
        """Write what waits at once, such as what another process has left in the spool."""
        if self._queue:
            self._wake()

    async def flushed(self) -> None:
        """Return when all that was put is in the journal, or cannot be written now."""
        self.go_on()
        await self._passing.passed()

    async def replayed(self) -> None:
        """Return when nothing in the spool is missing in the journal. Raises Overloaded when it cannot be written now."""
        if self._unwritten:
            await self.flushed()
        if self._unwritten:
            raise self._refused()

    async def close(self) -> None:
        """Write what waits; what cannot be written stays in the spool. Raises Overloaded when something is in neither."""
        self._closing = True
        self._wake()
        if self._task is not None:
            await self._task
        lost = len(self._queue) - self._unwritten
        if self._spool is not None:
            await asyncio.to_thread(self._spool.close)
        if lost > 0:
            raise Overloaded(
                f"The ledger cannot be written: {self._failure}; {lost} postings are lost.", retry_after=1.0
            )

    def _append(self, item: _Item) -> None:
        self._queue.append(item)
        self._passing.came()

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due.set()
        if self._task is None and self._queue:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while not (self._closing and not self._queue):
            await self._due.wait()
            if self._failure:
                await self._keep()
            if not self._queue:
                self._due.clear()
                continue
            batch = self._batch()
            try:
                async with asyncio.timeout(PATIENCE):
                    report = await (self._tried(batch) if self._failure else self._post(batch))
            except Exception as error:  # whatever it is, what has been promised is not dropped
                await self._failed(error)
                if self._closing:
                    return
            else:
                failpoints.passed("after_commit")
                await self._written(batch, report)

    def _batch(self) -> list[_Item]:
        """The first postings, as many as can be written together: of one act and id one. A journal that has failed is tried with those alone
        whose callers do not wait any more."""
        batch: list[_Item] = []
        seen: set[tuple[str, str]] = set()
        for item in islice(self._queue, self._kept if self._failure else None):
            name = (item.posting.act, item.posting.id)
            if len(batch) >= BATCH or name in seen:
                break
            seen.add(name)
            batch.append(item)
        return batch

    async def _post(self, batch: list[_Item]) -> Report:
        return await self._journal.post([item.posting for item in batch])

    async def _tried(self, batch: list[_Item]) -> Report:
        """See whether the journal answers again, and keep what comes meanwhile: nobody waits for that."""
        trying = asyncio.ensure_future(self._post(batch))
        try:
            while not trying.done():
                more = asyncio.ensure_future(self._due.wait())
                await asyncio.wait((trying, more), return_when=asyncio.FIRST_COMPLETED)
                more.cancel()
                self._due.clear()
                await self._keep()
            return trying.result()
        finally:
            self._due.set()
            trying.cancel()
            await asyncio.gather(trying, return_exceptions=True)

    async def _written(self, batch: list[_Item], report: Report) -> None:
        if self._failure:
            log.warning("the journal is written again")
            self._failure = ""
        for item, written in zip(batch, report.written, strict=True):
            self._queue.popleft()
            self._kept = max(0, self._kept - 1)
            self._unwritten -= item.posting.spooled
            if item.answer is not None and not item.answer.done():
                item.answer.set_result(written)
        try:
            self._told([item.posting for item in batch], report)
        except Exception:  # what is written is written, and the next batch has to be
            log.exception("what was written could not be passed on")
        self._passing.left(len(batch))
        if self._spool is not None and not self._unwritten and self._spool.used:
            await self._off_loop(self._spool.clear)

    async def _failed(self, error: BaseException) -> None:
        """Keep what waits, and go on doing so with what comes, until it is time to try again."""
        reason = str(error) or type(error).__name__
        if not self._failure:
            log.error(
                "the journal cannot be written: %s", reason, exc_info=not isinstance(error, Overloaded | TimeoutError)
            )
        self._failure = reason
        loop = asyncio.get_running_loop()
        again = loop.time() + self._retry
        while True:
            self._due.clear()
            await self._keep()
            self._passing.give_up()
            if self._closing:
                return
            try:
                async with asyncio.timeout_at(again):
                    await self._due.wait()
            except TimeoutError:
                self._due.set()
                return

    async def _keep(self) -> None:
        """Spool what waits and was not kept before, as much as fits, and tell those who wait."""
        fresh = [self._queue[at] for at in range(self._kept, len(self._queue))]
        spool = self._spool
        fits = fresh[: 0 if spool is None else spool.left]
        if fits and spool is not None:
            spooled = [replace(item.posting, spooled=True) for item in fits]
            if await self._off_loop(lambda: spool.write(spooled)):
                for item, posting in zip(fits, spooled, strict=True):
                    item.posting = posting
                self._unwritten += len(fits)
        dropped = []
        for item in fresh:
            kept = item.posting.spooled or not item.posting.capped or item.answer is None
            if not kept:
                dropped.append(item)
            if item.answer is not None and not item.answer.done():
                if kept:
                    item.answer.set_result(Written(taken=True))
                else:
                    item.answer.set_exception(self._refused())
        if dropped:
            gone = set(map(id, dropped))
            self._queue = deque(item for item in self._queue if id(item) not in gone)
        self._kept += len(fresh) - len(dropped)
        self._passing.left(len(dropped))

    async def _off_loop(self, work: Callable[[], None]) -> bool:
        """Do what waits for the disk in a thread; whether it succeeded."""
        try:
            await asyncio.to_thread(work)
        except OSError:
            log.exception("the spool cannot be written")
            return False
        return True

    def _refused(self) -> Overloaded:
        return Overloaded(f"The ledger cannot be written: {self._failure}.", retry_after=1.0)
