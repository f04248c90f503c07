"""A sink that answers as it is told, and keeps what it was given as a billing service does: once for each id."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Literal

from headgate.billing.billing import BILLED, DELIVERED, Delivery, Event, Line, Outcome, Place, Unbillable, event_id
from headgate.model.errors import Conflict

Answer = Literal["ok", "lost", "late", "busy", "down", "poison"]
"""`lost`: taken, but the answer never came; `late`: taken, and answered with 500; the others are not taken."""

OUTCOMES = {
    "ok": DELIVERED,
    "lost": Outcome("again", "no answer"),
    "late": Outcome("again", "500"),
    "busy": Outcome("again", "429", 30.0),
    "down": Outcome("again", "connection refused"),
    "poison": Outcome("refused", "400"),
}


class Killed(BaseException):
    """This process dies here."""


class ScriptedSink:
    kinds = BILLED

    def __init__(self, answers: Sequence[Answer] = (), *, batch: int = 1, remembers: float | None = None) -> None:
        self.batch = batch
        self.remembers = remembers
        self.answers = list(answers)
        self.taken: dict[str, int] = {}
        self.sent: list[tuple[str, str, bytes]] = []
        self.unknown: set[str] = set()
        self.kill: Callable[[], None] = lambda: None

    def render(self, line: Line, id: str, customer: str | None) -> bytes | None:
        if line.tenant in self.unknown:
            raise Unbillable(f"{line.tenant} has no customer")
        return b"%d" % line.billed if line.billed else None

    async def deliver(self, events: Sequence[Event], mark: int) -> Delivery:
        answer = self.answers.pop(0) if self.answers else "ok"
        for event in events:
            assert event.body is not None
            self.sent.append((event.tenant, event.id, event.body))
            if answer in ("ok", "lost", "late"):
                self.taken[event.id] = int(event.body)
        self.kill()
        return Delivery((OUTCOMES[answer],) * len(events), mark + 1)


class Journal:
    """Rows in memory, fed as assembly feeds the journal's."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def add(self, tenant: str, billed: int, *, kind: str = "settle", at: float = 0.0, **more: object) -> Line:
        seq = len(self.lines) + 1
        whole = {"seq": seq, "id": f"call-{seq}", "kind": kind, "attempt": 0, "at": int(at * 1_000_000)}
        line = Line(**{**whole, "tenant": tenant, "billed": billed, **more})
        self.lines.append(line)
        return line

    async def feed(self, after: Place, kinds: Sequence[str], limit: int) -> tuple[Place, list[Line]]:
        if after.checksum is not None and self.place(after.row).checksum != after.checksum:
            raise Conflict("another journal")
        behind = [line for line in self.lines if line.seq > after.row and line.kind in kinds][:limit]
        return self.place(behind[-1].seq if len(behind) == limit else len(self.lines)), behind

    def place(self, row: int) -> Place:
        return Place(row, zlib.crc32(self.lines[row - 1].id.encode()) if 0 < row <= len(self.lines) else None)

    def billed(self, sink: str, without: set[str] | frozenset[str] = frozenset()) -> dict[str, int]:
        return {event_id(sink, line): line.billed for line in self.lines if line.billed and line.tenant not in without}


async def nobody(tenant: str) -> str | None:
    return None
