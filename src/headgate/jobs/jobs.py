"""Jobs: requests that were submitted, and are answered while nobody waits on the line.

    queued -> in_flight -> done | failed

Where one process alone works on a store, what was `in_flight` when it was killed is `queued` again in the next one. Where several do, who
begins a job has it for the time of a lease, by the store's clock, and renews that while it works; a job whose lease is over is `queued` again,
and each beginning has a number, by which what an earlier one still says is known to be out of date.

Invariant: a job that was accepted ends, in whichever process, and no two work on it at the same time; what it asked for is forgotten when it
has ended, and what it ended in when it is swept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Literal, Protocol

import msgspec

from headgate.model.chat import Completion, Json
from headgate.model.errors import GatewayError
from headgate.model.record import Source
from headgate.model.tenancy import Wishes

State = Literal["queued", "in_flight", "done", "failed"]
Name = tuple[str, str]
"""A tenant and the id of one of its jobs."""
ENDED: frozenset[State] = frozenset({"done", "failed"})
KEEP = 86_400.0
"""Seconds that a job is known after it has ended, and that it may wait."""

_canonical = msgspec.json.Encoder(order="deterministic").encode
_AS_USUAL = msgspec.structs.asdict(Wishes())


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a job asks for: a chat request's JSON, what is wished of the gateway, and the id of the key that asked.

    The seconds of `wishes.timeout` count from the submission.
    """

    body: Json
    wishes: Wishes
    key: str

    @property
    def digest(self) -> bytes:
        """Equal for what asks for the same, whichever of the tenant's keys it came with."""
        wishes = {name: said for name, said in msgspec.structs.asdict(self.wishes).items() if said != _AS_USUAL[name]}
        return hashlib.sha256(_canonical([self.body, wishes])).digest()


class Job(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is known of a job. Times are unix seconds.

    digest   of what it asks for
    size     bytes of that
    starts   how often it was begun, without those times at which it was put back
    result   what came of it, as the JSON of an Outcome; empty before
    telling  when its end is to be told (again); None when it need not be
    tries    how often that was tried
    turn     the number of its last beginning, or of its being put back
    """

    tenant: str
    id: str
    digest: bytes
    size: int
    made: float
    state: State = "queued"
    begun: float | None = None
    ended: float | None = None
    starts: int = 0
    result: bytes = b""
    telling: float | None = None
    tries: int = 0
    turn: int = 0

    @property
    def outcome(self) -> Outcome | None:
        """What came of it; None while nothing has."""
        return msgspec.json.decode(self.result, type=Outcome) if self.result else None


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a job: a completion or an error.

    call          the id of the call that was made for it, and `at` when, in unix seconds
    source        where the answer comes from
    model         the provider's name of the model that answered
    cost          what providers are owed for it, and `saved` what it would have cost more, in nano-USD
    started_over  why another call than the one it had joined was made: as `Reply` says
    error         in OpenAI's shape, the inner object
    """

    call: str = ""
    at: int = 0
    source: Source = "none"
    model: str | None = None
    cost: int = 0
    saved: int = 0
    started_over: Literal["slow", "failed", "alone"] | None = None
    completion: Completion | None = None
    error: Json | None = None

    @property
    def state(self) -> Literal["done", "failed"]:
        """The state of a job that ended in this."""
        return "failed" if self.completion is None else "done"

    @classmethod
    def failed(cls, error: GatewayError, *, cost: int = 0, call: str = "") -> Outcome:
        """A job ended in this error."""
        return cls(error=error.body()["error"], cost=cost, call=call)


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """A job that is to be worked on: whose, which, how many bytes its request has, and when it was submitted (unix seconds)."""

    tenant: str
    id: str
    size: int
    made: float


class JobStore(Protocol):
    """Where jobs outlive the process. Guarantees: each method is durable when it returns and takes effect whole or not at all; a job is
    found under its own tenant only; one that has ended stays as it ended; of all beginnings of a job only the last one can renew it, put
    it back or end it. Raises Overloaded when it cannot be used now."""

    @property
    def lease(self) -> float | None:
        """Seconds for which a job in flight belongs to who has begun it, unless it is renewed; None where no other process works on the
        store, so that nothing need be renewed and nothing changes unseen."""
        ...

    async def add(self, job: Job, asked: bytes) -> Job:
        """Keep a new job and what it asks for. Where the tenant has one of this id that one, and nothing changes."""
        ...

    async def find(self, tenant: str, id: str) -> Job | None:
        """The tenant's job of this id."""
        ...

    async def states(self, names: Collection[Name]) -> dict[Name, State]:
        """The state of each of these jobs that there is."""
        ...

    async def begin(self, tenant: str, id: str, at: float) -> tuple[Job, bytes] | None:
        """Let a queued job be in flight: it, and what it asks for. None, and nothing happens, when it is not queued."""
        ...

    async def renew(self, job: Job) -> bool:
        """Let the lease of a job, as `begin` gave it, begin anew; False when it is not in flight by that any more."""
        ...

    async def put_back(self, job: Job) -> None:
        """Let a job, as `begin` gave it, be queued as if it had not been begun."""
        ...

    async def end(self, job: Job, outcome: Outcome, at: float, telling: float | None) -> bool:
        """Let a job, as `begin` gave it, end, forget what it asks for, and note when its end is to be told, if at all. False, and nothing
        happens, when it has ended, or was put back or begun again since; that its lease is over matters not."""
        ...

    async def reopen(self) -> list[Waiting]:
        """Let jobs in flight that nobody works on any more be queued: those whose lease is over, or, without leases, all; it is called
        before any is begun. All that is queued, oldest first."""
        ...

    async def due(self, at: float, again: float, limit: int) -> list[Job]:
        """Jobs whose end is to be told by this time, the longest due first. They are due again at `again`, so that whoever asks meanwhile
        does not get them as well."""
        ...

    async def told(self, tenant: str, id: str, again: float | None) -> None:
        """Note that telling the end of a job that has ended was tried, and when it is tried again; None: no more."""
        ...

    async def sweep(self, before: float) -> int:
        """Forget the jobs that ended before this time; how many."""
        ...

    async def close(self) -> None:
        """Let go of the store."""
        ...
