"""Lanes: whose job is worked on next, and how many may wait.

Each tenant has a lane of its own, first come first served. The next job is of the tenant with the fewest jobs at work, among equals of
the one whose turn was longest ago; and who has a job at work never takes the last free place, so a tenant that comes newly finds one
however long the others' jobs take.

Where other processes work on the store as well, what waits in it is learnt again and again: a job waits in the lanes of each, until one of
them begins it. Each counts what waits anywhere and what it works on itself.

Invariant: a job is in the lanes once, whether it waits or is at work.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection

import msgspec

from headgate.jobs.jobs import Name, Waiting
from headgate.model.errors import Overloaded, RateLimited

AT_WORK = 16
OPEN = 10_000
OPEN_OF_A_TENANT = 1_000
BYTES = 1 << 30
LATER = 1.0
"""Seconds after which who was refused may try again: nobody knows when a place becomes free."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs are at work at once, and how many may be open, that is waiting or at work: of all tenants, of one, and the bytes of
    all their requests."""

    at_work: int = AT_WORK
    open: int = OPEN
    open_of_a_tenant: int = OPEN_OF_A_TENANT
    bytes: int = BYTES


class _Lane:
    """One tenant's jobs: those that wait, how many are at work, how many were let in, and until when none is begun."""

    def __init__(self) -> None:
        self.waiting: deque[Waiting] = deque()
        self.at_work = 0
        self.open = 0
        self.rests_until = 0.0


class Lanes:
    """All tenants' jobs that have not ended. Times are seconds of one monotonic clock."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self._bounds = bounds or Bounds()
        self._lanes: OrderedDict[str, _Lane] = OrderedDict()
        self._open = 0
        self._bytes = 0
        self._at_work = 0
        self._known: set[Name] = set()

    def let_in(self, tenant: str, size: int) -> None:
        """Keep a place for a job of so many bytes; `put` it there or `leave`. Raises RateLimited when the tenant has too many open jobs,
        Overloaded when all together have."""
        lane, bounds = self._lanes.get(tenant), self._bounds
        if lane is not None and lane.open >= bounds.open_of_a_tenant:
            raise RateLimited(
                f"{lane.open} requests of this tenant wait already; submit more when some are done.", retry_after=LATER
            )
        if self._open >= bounds.open or self._bytes + size > bounds.bytes:
            raise Overloaded("Too many requests wait already; submit again later.", retry_after=LATER)
        self._count(tenant, size)

    def put(self, waiting: Waiting) -> None:
        """Let a job wait that was let in."""
        if _name(waiting) in self._known:  # it was learnt of before it came here
            return self.leave(waiting.tenant, waiting.size)
        self._known.add(_name(waiting))
        self._lanes[waiting.tenant].waiting.append(waiting)

    def waiting(self) -> frozenset[Name]:
        """All that waits here."""
        return frozenset(_name(waiting) for lane in self._lanes.values() for waiting in lane.waiting)

    def learn(self, before: Collection[Name], queued: Collection[Waiting]) -> None:
        """This was queued, when `before` waited here already: what is queued no more has been begun elsewhere, and what is not known was
        let in by others or before a restart; however many these are, they were promised an answer."""
        gone = frozenset(before) - {_name(waiting) for waiting in queued}
        for lane in list(self._lanes.values()) if gone else ():
            for waiting in [waiting for waiting in lane.waiting if _name(waiting) in gone]:
                lane.waiting.remove(waiting)
                self._ended(waiting)
        for waiting in queued:
            if _name(waiting) not in self._known:
                self._count(waiting.tenant, waiting.size)
                self.put(waiting)

    def take(self, now: float) -> Waiting | None:
        """The next job, which is at work from now on; None while there is none to begin."""
        free = self._bounds.at_work - self._at_work
        if free <= 0:
            return None
        found: tuple[str, _Lane] | None = None
        for tenant, lane in self._lanes.items():
            ready = lane.waiting and lane.rests_until <= now and (free > 1 or not lane.at_work)
            if ready and (found is None or lane.at_work < found[1].at_work):
                found = tenant, lane
        if found is None:
            return None
        self._lanes.move_to_end(found[0])
        self._at_work += 1
        found[1].at_work += 1
        return found[1].waiting.popleft()

    def put_back(self, waiting: Waiting, until: float) -> None:
        """A job that was at work waits again, behind the others of its lane, of which none is begun until then."""
        lane = self._lanes[waiting.tenant]
        lane.at_work -= 1
        self._at_work -= 1
        lane.rests_until = max(lane.rests_until, until)
        lane.waiting.append(waiting)

    def done(self, waiting: Waiting) -> None:
        """A job that was at work has ended."""
        self._lanes[waiting.tenant].at_work -= 1
        self._at_work -= 1
        self._ended(waiting)

    def _ended(self, waiting: Waiting) -> None:
        self._known.remove(_name(waiting))
        self.leave(waiting.tenant, waiting.size)

    def leave(self, tenant: str, size: int) -> None:
        """Give back the place of a job that is open no more."""
        lane = self._lanes[tenant]
        lane.open -= 1
        self._open -= 1
        self._bytes -= size
        if not lane.open:
            del self._lanes[tenant]

    def pause(self, now: float) -> float | None:
        """Seconds until a lane that rests may go on; None when none has to be waited for."""
        rests = [lane.rests_until - now for lane in self._lanes.values() if lane.waiting and lane.rests_until > now]
        return min(rests, default=None)

    def counts(self) -> dict[tuple[str, ...], float]:
        """How many jobs are in each state, by tenant and state."""
        found: dict[tuple[str, ...], float] = {}
        for tenant, lane in self._lanes.items():
            found[tenant, "queued"] = float(lane.open - lane.at_work)
            found[tenant, "in_flight"] = float(lane.at_work)
        return found

    def _count(self, tenant: str, size: int) -> None:
        self._lanes.setdefault(tenant, _Lane()).open += 1
        self._open += 1
        self._bytes += size


def _name(waiting: Waiting) -> Name:
    return waiting.tenant, waiting.id
