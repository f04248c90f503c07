"""The durable outcome log: rows that are written behind.

What came in the last moments before a crash may be missing: it is learnt again from new calls, and no answer depends on it.
"""

from __future__ import annotations

import contextlib

import msgspec

from headgate.routing.outcomes import Outcome
from headgate.storage.behind import Behind, Kind, Row, Rows, Table

ROWS = 50_000
"""Newest rows that are kept."""

_COLUMNS = Outcome.__struct_fields__
_NESTED = ("candidates", "features")
_KINDS: dict[str, Kind] = {
    "at": "real",
    "propensity": "real",
    "decider": "text?",
    "version": "integer",
    "vector": "blob",
    "deployment": "text?",
    "cost": "integer",
    "latency": "real",
    "outcome": "real?",
    "origin": "text?",
}
_OUTCOMES = Table("outcomes", {name: _KINDS.get(name, "text") for name in _COLUMNS}, ROWS, key="id")
TABLES = (_OUTCOMES,)


class OutcomesBehind:
    """An OutcomeLog in rows."""

    def __init__(self, behind: Behind) -> None:
        """Made by `open`."""
        self._behind = behind

    @classmethod
    async def open(cls, rows: Rows) -> OutcomesBehind:
        """Read what is there. Never raises for what is wrong with it: that is said in the log."""
        return cls(await Behind.open(rows, "the outcomes of routing", TABLES))

    @property
    def lost(self) -> int:
        """See OutcomeLog."""
        return self._behind.lost

    def keep(self, outcome: Outcome) -> None:
        """See OutcomeLog."""
        self._behind.add("outcomes", _row(outcome))

    def past(self) -> list[Outcome]:
        """What was there when it was opened, oldest first. Ask once."""
        return [outcome for row in self._behind.past("outcomes") for outcome in _outcome(row)]

    async def others(self) -> list[Outcome]:
        """See OutcomeLog."""
        return [outcome for row in (await self._behind.others()).get("outcomes", []) for outcome in _outcome(row)]

    async def close(self) -> None:
        """Write what waits and let go of the rows."""
        await self._behind.close()


def _row(outcome: Outcome) -> Row:
    return tuple(
        msgspec.json.encode(value).decode() if name in _NESTED else value
        for name, value in msgspec.structs.asdict(outcome).items()
    )


def _outcome(row: Row) -> list[Outcome]:
    """The outcome of a row, or none if it is not one."""
    fields = dict(zip(_COLUMNS, row, strict=True))
    with contextlib.suppress(msgspec.DecodeError, TypeError):
        nested = {name: msgspec.json.decode(str(fields[name])) for name in _NESTED}
        return [msgspec.convert({**fields, **nested}, Outcome)]
    return []
