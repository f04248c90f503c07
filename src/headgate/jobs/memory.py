"""MemoryJobs: the reference of every job store. What it holds ends with the process."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from msgspec.json import encode
from msgspec.structs import replace

from headgate.jobs.jobs import Job, Name, Outcome, State, Waiting


class MemoryJobs:
    """Jobs in a dict."""

    def __init__(self, *, lease: float | None = None, clock: Callable[[], float] = time.time) -> None:
        """`lease`: as several workers of one process need it, counted by `clock`, in seconds."""
        self.lease = lease
        self._clock = clock
        self._jobs: dict[Name, Job] = {}
        self._asked: dict[Name, bytes] = {}
        self._leases: dict[Name, float] = {}

    async def add(self, job: Job, asked: bytes) -> Job:
        """Keep a new job, or find the one of its id."""
        name = job.tenant, job.id
        if name not in self._jobs:
            self._jobs[name], self._asked[name] = job, asked
        return self._jobs[name]

    async def find(self, tenant: str, id: str) -> Job | None:
        """The tenant's job of this id."""
        return self._jobs.get((tenant, id))

    async def states(self, names: Collection[Name]) -> dict[Name, State]:
        """The state of each of these jobs that there is."""
        return {name: self._jobs[name].state for name in names if name in self._jobs}

    async def begin(self, tenant: str, id: str, at: float) -> tuple[Job, bytes] | None:
        """Let a queued job be in flight."""
        job = self._jobs.get((tenant, id))
        if job is None or job.state != "queued":
            return None
        begun = replace(job, state="in_flight", begun=at, starts=job.starts + 1, turn=job.turn + 1)
        self._jobs[tenant, id] = begun
        await self.renew(begun)
        return begun, self._asked[tenant, id]

    async def renew(self, job: Job) -> bool:
        """Let the lease of a job begin anew."""
        ours = self._is_in_flight(job)
        if ours and self.lease is not None:
            self._leases[job.tenant, job.id] = self._clock() + self.lease
        return ours

    async def put_back(self, job: Job) -> None:
        """Let a job in flight be queued as if it had not been begun."""
        if self._is_in_flight(job):
            queued = replace(job, state="queued", begun=None, starts=job.starts - 1, turn=job.turn + 1)
            self._jobs[job.tenant, job.id] = queued

    async def end(self, job: Job, outcome: Outcome, at: float, telling: float | None) -> bool:
        """Let a job end."""
        name = job.tenant, job.id
        known = self._jobs.get(name)
        if known is None or known.ended is not None or not known.starts or known.turn != job.turn:
            return False
        result = encode(outcome)
        self._jobs[name] = replace(job, state=outcome.state, ended=at, result=result, telling=telling)
        del self._asked[name]
        return True

    async def reopen(self) -> list[Waiting]:
        """What is queued, and what nobody works on any more."""
        for name, job in self._jobs.items():
            if job.state == "in_flight" and (self.lease is None or self._leases[name] <= self._clock()):
                self._jobs[name] = replace(job, state="queued", begun=None)
        queued = [job for job in self._jobs.values() if job.state == "queued"]
        return [Waiting(job.tenant, job.id, job.size, job.made) for job in sorted(queued, key=lambda job: job.made)]

    async def due(self, at: float, again: float, limit: int) -> list[Job]:
        """Jobs whose end is to be told by this time."""
        found = [(job.telling, job) for job in self._jobs.values() if job.telling is not None and job.telling <= at]
        due = [replace(job, telling=again) for _, job in sorted(found, key=lambda pair: pair[0])[:limit]]
        self._jobs.update({(job.tenant, job.id): job for job in due})
        return due

    async def told(self, tenant: str, id: str, again: float | None) -> None:
        """Note that telling a job's end was tried."""
        job = self._jobs.get((tenant, id))
        if job is not None and job.ended is not None:
            self._jobs[tenant, id] = replace(job, telling=again, tries=job.tries + 1)

    async def sweep(self, before: float) -> int:
        """Forget what ended before this time."""
        old = [name for name, job in self._jobs.items() if job.ended is not None and job.ended < before]
        for name in old:
            del self._jobs[name]
        return len(old)

    async def close(self) -> None:
        """Nothing to let go of."""

    def _is_in_flight(self, job: Job) -> bool:
        """Whether it is so by this beginning."""
        known = self._jobs.get((job.tenant, job.id))
        return known is not None and known.state == "in_flight" and known.turn == job.turn
