"""Relay: how replicas find each other's flights, so that identical requests on several of them make one call to a provider.

Who asks first at a place leads there; the others follow its *log*, which holds what the flight has said so far in numbered *pages*. The
leader writes pages only while somebody follows, and one at the end. Here are the values and the Protocol; `telling.py` is the leader's
side, `hearing.py` a follower's.

Election saves money and guards nothing: two leaders at one place are a call too many, never a wrong answer. Nobody can write into
another's log, for its name (of the replica and a number) is never given twice: a leader that was paused for too long writes where nobody reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec

from headgate.coalesce.trail import Trail
from headgate.model.chat import Completion, Delta, Done
from headgate.model.errors import GatewayError, Internal

TTL = 10.0
"""Seconds after which a log is gone that its leader has not been heard of."""
LINGER = 2.0
"""Seconds that a log is kept after its end: for those who read it still, and for who has looked into stock just before the answer was there."""
LEASE = 5.0
"""Seconds after which a follower is gone that has not read."""

Wake = Callable[[], None]


class Log(msgspec.Struct, frozen=True):
    """A flight's log: where (a digest of all that must be equal for those who share), its name, which no other has, and whether this replica leads."""

    tenant: str
    place: str
    name: str
    leads: bool


class Relay(Protocol):
    """One replica's access to all. Guarantees: a log has one leader, and whoever follows is counted there; pages are read in their order, each
    once, as they were written; nothing is found under another tenant. All that wait raise Overloaded while it cannot be reached."""

    def hear(self, place: str, wake: Wake) -> None:
        """Have `wake` called from now on when something may have happened to a log at this place; also when nothing has."""
        ...

    def unhear(self, place: str, wake: Wake) -> None:
        """No more."""
        ...

    async def join(self, tenant: str, place: str) -> Log:
        """The log to follow at this place, whose leader is told; or one of the caller's own, which it leads, where there is none."""
        ...

    async def tell(
        self, log: Log, number: int, page: bytes | None, *, joinable: bool, last: bool = False
    ) -> int | None:
        """The leader is alive; how many follow. None where the log is gone.

        page      what it has to say, if anything: its `number`th page, from 1 on. One that is told again is written once
        joinable  whether more may join, if none leads at its place meanwhile
        last      nothing else will come: the log is kept for `LINGER`
        """
        ...

    async def read(self, log: Log, after: int) -> Sequence[bytes] | None:
        """The pages after the one of this number; says that the caller follows. None where the log is gone."""
        ...

    async def leave(self, log: Log) -> None:
        """The caller follows no more."""
        ...

    async def close(self) -> None:
        """Let go of what listens."""
        ...


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """What followers need to know of how the answer is come by: fields of the leader's Trail."""

    model: str | None = None
    deployment: str | None = None
    limit: int | None = None
    entry: str | None = None
    route_reason: str | None = None
    route_confidence: float | None = None
    overflow: str | None = None
    worth: int = 0
    ceiling: int = 0
    shortened: bool = False
    personal: bool = False

    @classmethod
    def of(cls, trail: Trail) -> Told:
        """What this trail says."""
        return cls(**{name: getattr(trail, name) for name in cls.__struct_fields__})

    def note(self, trail: Trail) -> None:
        """Say the same in this trail."""
        for name in self.__struct_fields__:
            setattr(trail, name, getattr(self, name))


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error that says the same to all who ask: `kind` is its class."""

    kind: str
    message: str
    status: int
    code: str | None = None
    param: str | None = None

    @classmethod
    def of(cls, error: GatewayError) -> Refusal | None:
        """None where the error may pass, or concerns the leader alone."""
        if error.retryable or error.personal:
            return None
        return cls(type(error).__name__, error.message, error.status, error.code, error.param)

    @property
    def error(self) -> GatewayError:
        """The error."""
        kind = next((one for one in _kinds(GatewayError) if one.__name__ == self.kind), Internal)
        error = kind.__new__(kind)
        GatewayError.__init__(error, self.message, param=self.param)
        error.status, error.code = self.status, self.code
        return error


class Page(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a flight has said since the page before.

    deltas      parts of the answer
    done        the last event of one that was given in parts
    told        what is known of it by now; None where that has not changed
    completion  the whole answer: the log's end
    refusal     why there is none, where that holds for everybody
    failed      there is none, or not here; who was given nothing may start over
    """

    deltas: tuple[Delta, ...] = ()
    done: Done | None = None
    told: Told | None = None
    completion: Completion | None = None
    refusal: Refusal | None = None
    failed: bool = False


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Page).decode


def _kinds(kind: type[GatewayError]) -> Iterator[type[GatewayError]]:
    yield kind
    for one in kind.__subclasses__():
        yield from _kinds(one)
