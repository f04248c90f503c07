"""MemoryJobs: the reference of every job store. What it holds ends with the process."""

from __future__ import annotations

from msgspec.json import encode
from msgspec.structs import replace

from headgate.jobs.jobs import Job, Outcome, Waiting


class MemoryJobs:
    """Jobs in a dict."""

    def __init__(self) -> None:
        self._jobs: dict[tuple[str, str], Job] = {}
        self._asked: dict[tuple[str, str], bytes] = {}

    async def add(self, job: Job, asked: bytes) -> Job:
        """Keep a new job, or find the one of its id."""
        place = job.tenant, job.id
        if place not in self._jobs:
            self._jobs[place], self._asked[place] = job, asked
        return self._jobs[place]

    async def find(self, tenant: str, id: str) -> Job | None:
        """The tenant's job of this id."""
        return self._jobs.get((tenant, id))

    async def begin(self, tenant: str, id: str, at: float) -> tuple[Job, bytes] | None:
        """Let a queued job be in flight."""
        job = self._jobs.get((tenant, id))
        if job is None or job.state != "queued":
            return None
        begun = self._jobs[tenant, id] = replace(job, state="in_flight", begun=at, starts=job.starts + 1)
        return begun, self._asked[tenant, id]

    async def put_back(self, tenant: str, id: str) -> None:
        """Let a job in flight be queued as if it had not been begun."""
        job = self._jobs.get((tenant, id))
        if job is not None and job.state == "in_flight":
            self._jobs[tenant, id] = replace(job, state="queued", begun=None, starts=job.starts - 1)

    async def end(self, tenant: str, id: str, outcome: Outcome, at: float, telling: float | None) -> None:
        """Let a job in flight end."""
        job = self._jobs.get((tenant, id))
        if job is not None and job.state == "in_flight":
            ended = replace(job, state=outcome.state, ended=at, result=encode(outcome), telling=telling)
            self._jobs[tenant, id] = ended
            del self._asked[tenant, id]

    async def reopen(self) -> list[Waiting]:
        """What is queued, and what was in flight."""
        for place, job in self._jobs.items():
            if job.state == "in_flight":
                self._jobs[place] = replace(job, state="queued", begun=None)
        queued = [job for job in self._jobs.values() if job.state == "queued"]
        return [Waiting(job.tenant, job.id, job.size, job.made) for job in sorted(queued, key=lambda job: job.made)]

    async def due(self, at: float, limit: int) -> list[Job]:
        """Jobs whose end is to be told by this time."""
        found = [(job.telling, job) for job in self._jobs.values() if job.telling is not None and job.telling <= at]
        return [job for _, job in sorted(found, key=lambda pair: pair[0])[:limit]]

    async def told(self, tenant: str, id: str, again: float | None) -> None:
        """Note that telling a job's end was tried."""
        job = self._jobs.get((tenant, id))
        if job is not None:
            self._jobs[tenant, id] = replace(job, telling=again, tries=job.tries + 1)

    async def sweep(self, before: float) -> int:
        """Forget what ended before this time."""
        old = [place for place, job in self._jobs.items() if job.ended is not None and job.ended < before]
        for place in old:
            del self._jobs[place]
        return len(old)

    async def close(self) -> None:
        """Nothing to let go of."""
