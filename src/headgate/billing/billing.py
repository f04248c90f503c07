"""Billing: how what tenants owe, and what they are to be warned of, leaves the house.

The journal is the truth. A sink is somewhere its rows go: Stripe, OpenMeter, Lago, a webhook, a file. For each sink a pump reads
the journal behind a place, makes an event of each row and writes these events to the outbox in one transaction with the new
place. What is sent is what lies there, byte for byte, under an id that the row alone determines:

    journal row -> render -> outbox (event and place together) -> deliver -> outbox (acknowledged)

Invariant: wherever this process is killed, every row reaches the sink at least once and always under the same id; counted once
for each id, what a sink was given is what the journal says. What a sink refuses is parked with its reason and never lost.

This file holds the values and the Protocols. The loop is in `pump.py`, what all HTTP sinks share in `post.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Literal, Protocol

import msgspec

from headgate.model.money import to_usd
from headgate.model.tenancy import OPERATOR

BILLED: tuple[str, ...] = ("charge", "settle", "lost", "note")
"""Kinds of journal rows that say what a tenant owes."""
ALERTS: tuple[str, ...] = ("alert",)
"""The kind of journal row that warns somebody."""

MICRO = 1_000_000
"""Microseconds in a second."""

Value = Literal["nano_usd", "usd", "tokens"]
"""What a sink counts: `billed` as a whole number of nano-USD, as decimal USD, or the tokens of calls that were made."""


class Place(msgspec.Struct, frozen=True):
    """Up to where the journal was read.

    row       the number of the last row; 0: from the beginning
    checksum  that row's, by which a replaced journal is noticed; None: not known, and not checked
    at        unix seconds of the reading, so no row up to it is younger
    """

    row: int = 0
    checksum: int | None = None
    at: float = 0.0


class Line(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A row of the journal as billing reads it. `at` is unix microseconds, money nano-USD.

    seq      its place in the journal; id, kind and attempt name it whatever the place
    detail   of an alert: what it says, as JSON
    """

    seq: int
    id: str
    kind: str
    attempt: int
    at: int
    tenant: str
    key: str = ""
    user: str | None = None
    feature: str | None = None
    route: str = ""
    model: str = ""
    deployment: str = ""
    source: str = ""
    amount: int = 0
    billed: int = 0
    saved: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    detail: str | None = None

    @property
    def seconds(self) -> int:
        """`at` in whole unix seconds."""
        return self.at // MICRO

    @property
    def time(self) -> str:
        """`at` as RFC 3339 writes it, in UTC and to the microsecond."""
        moment = datetime.fromtimestamp(self.seconds, UTC).replace(microsecond=self.at % MICRO)
        return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What goes to one sink for one line. Times are unix seconds.

    body     what is sent; None when it could not be made or was refused: it is made anew before the next try
    made     when it came into the outbox
    tried    when it was sent first; None: never, so no sink can know it
    reason   why the last try failed, or why it is parked
    """

    id: str
    seq: int
    tenant: str
    billed: int
    body: bytes | None
    made: float
    tried: float | None = None
    tries: int = 0
    reason: str = ""


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What became of one event: `delivered`, to be sent `again` later, or `refused`, which a repetition would not change."""

    verdict: Literal["delivered", "again", "refused"]
    reason: str = ""
    retry_after: float | None = None


DELIVERED = Outcome("delivered")


class Delivery(msgspec.Struct, frozen=True):
    """What became of each event, and what the exporter wants to be told next time, kept together with the acknowledgement."""

    outcomes: tuple[Outcome, ...]
    mark: int = 0


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where a sink stands. Money is nano-USD of what tenants owe.

    oldest   when the oldest pending event was made
    reason   why its last try failed
    stopped  why nothing is sent at all until somebody looks; empty: it is
    """

    sink: str
    place: int = 0
    delivered: int = 0
    delivered_billed: int = 0
    pending: int = 0
    pending_billed: int = 0
    parked: int = 0
    parked_billed: int = 0
    oldest: float | None = None
    reason: str = ""
    stopped: str = ""


class Unbillable(Exception):
    """No event can be made of a line now; the message says what must be mended."""


class Exporter(Protocol):
    """One sink's wire format. It keeps no state that a restart would lose.

    kinds      journal rows it takes
    batch      most events in one delivery
    remembers  seconds for which the sink recognises an event that it has had; None: always, or it does not matter
    """

    @property
    def kinds(self) -> tuple[str, ...]:
        """See above."""
        ...

    @property
    def batch(self) -> int:
        """See above."""
        ...

    @property
    def remembers(self) -> float | None:
        """See above."""
        ...

    def render(self, line: Line, id: str, customer: str | None) -> bytes | None:
        """The event's body, or None when this sink need not be told. `customer`: what the tenant is called there, if anybody
        said so. Raises Unbillable."""
        ...

    async def deliver(self, events: Sequence[Event], mark: int) -> Delivery:
        """Send events, oldest first; after one that must be sent again, no later one of its tenant is sent. Never raises
        for what a sink or the network does."""
        ...


class Outbox(Protocol):
    """Events on their way. Every method is durable when it returns and takes effect whole or not at all.

    Where several processes send, one at a time does so to a sink. Once another has claimed it, whoever had it before is refused what
    belongs to sending (`add`, `rendered`, `trying`, `resolve` and `park`) with Overloaded.
    """

    async def claim(self, sink: str, seconds: float) -> bool:
        """Be the one process that sends to a sink for so many seconds from now, by the store's clock; again, before they are over, to go
        on being it. False while another process is."""
        ...

    async def release(self, sink: str) -> None:
        """Let another process send to a sink; nothing changes when we are not the one that does."""
        ...

    async def place(self, sink: str) -> Place:
        """The place in the journal up to which events were made."""
        ...

    async def add(self, sink: str, events: Sequence[Event], place: Place) -> None:
        """Take in the events of all rows up to `place`. Nothing happens when that place was reached before. Those without a
        body are parked; what is there already stays as it is."""
        ...

    async def rewind(self, sink: str, before: Place, events: Sequence[Event], place: Place) -> bool:
        """Go back from `before` to an earlier place of a journal that was replaced, and park events without a body; what is there
        stays as it is. False, and nothing happens, when the sink does not stand there any more."""
        ...

    async def stop(self, sink: str, reason: str) -> None:
        """Note why nothing is sent any more; without a reason, that it is again."""
        ...

    async def pending(self, sink: str, limit: int, without: Collection[str] = ()) -> list[Event]:
        """The oldest events to be sent, except those of some tenants."""
        ...

    async def rendered(self, sink: str, event: Event) -> None:
        """Keep the body of an event that had none; one that still has none is parked."""
        ...

    async def trying(self, sink: str, events: Sequence[Event], at: float) -> int:
        """Note that events are about to be sent, before the first byte leaves. The mark of the last delivery."""
        ...

    async def resolve(self, sink: str, events: Sequence[Event], delivery: Delivery) -> None:
        """Note what became of events: delivered ones are counted and go, refused ones are parked."""
        ...

    async def park(self, sink: str, events: Sequence[Event], reason: str) -> None:
        """Set events aside until somebody asks for them; their bodies stay as they are."""
        ...

    async def retry(self, sink: str, ids: Collection[str] | None = None) -> int:
        """Send parked events again, all or those with these ids, as if they had never been tried. How many."""
        ...

    async def parked(self, sink: str, limit: int) -> list[Event]:
        """The oldest events that were set aside."""
        ...

    async def standings(self) -> list[Standing]:
        """Where every sink that ever had anything stands, by name."""
        ...

    async def close(self) -> None:
        """Let go of the store."""
        ...


def event_id(sink: str, line: Line) -> str:
    """The id of a line's event: of sink and row alone, so that every attempt, also after a restart, sends the same.

    43 characters; the shortest limit of a sink is Stripe's 100.
    """
    name = "\0".join((sink, line.id, line.kind, str(line.attempt)))
    return f"hg_{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:40]}"


def described(line: Line, value: str) -> dict[str, str]:
    """What a meter is told of a line: what it weighs, and what it may be grouped by."""
    return {
        "value": value,
        "model": line.model,
        "route": line.route,
        "feature": line.feature or "",
        "source": line.source,
    }


def measured(line: Line, value: Value) -> str | None:
    """What a line weighs, as a decimal number; None when it weighs nothing or no tenant owes it."""
    if line.tenant == OPERATOR:
        return None
    if value == "tokens":
        tokens = 0 if line.kind == "note" else line.prompt_tokens + line.completion_tokens
        return str(tokens) if tokens else None
    if not line.billed:
        return None
    return str(line.billed) if value == "nano_usd" else to_usd(line.billed)
