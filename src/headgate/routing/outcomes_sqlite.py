"""The durable outcome log: a file of its own, written behind.

What came in the last moments before a crash may be missing. A file that is broken, or was written by a newer version, is set aside and
begun anew: it is learnt again from new calls, and no answer depends on it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from headgate.routing.outcomes import Outcome
from headgate.storage.behind import Behind, Row, Table

ROWS = 50_000
"""Newest rows that are kept."""

_SCHEMA = (
    """CREATE TABLE outcomes (
        place INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, at REAL NOT NULL, tenant TEXT NOT NULL, route TEXT NOT NULL,
        candidates TEXT NOT NULL, tier TEXT NOT NULL, propensity REAL NOT NULL, decider TEXT, task TEXT NOT NULL,
        version INTEGER NOT NULL, features TEXT NOT NULL, vector BLOB NOT NULL, deployment TEXT, cost INTEGER NOT NULL,
        latency REAL NOT NULL, outcome REAL, origin TEXT
    )""",
)
_COLUMNS = Outcome.__struct_fields__
_NESTED = ("candidates", "features")
_OUTCOMES = Table(
    "outcomes",
    ", ".join(_COLUMNS),
    ROWS,
    "ON CONFLICT (id) DO UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS if name != "id"),
)


class SqliteOutcomes:
    """An OutcomeLog in a file."""

    def __init__(self, behind: Behind) -> None:
        """Made by `open`."""
        self._behind = behind

    @classmethod
    async def open(cls, path: Path) -> SqliteOutcomes:
        """Open the log's own file. Never raises for what is wrong with it: that is said in the log."""
        return cls(await Behind.open(path, "the outcomes of routing", _SCHEMA, (_OUTCOMES,)))

    @property
    def lost(self) -> int:
        """See OutcomeLog."""
        return self._behind.lost

    def keep(self, outcome: Outcome) -> None:
        """See OutcomeLog."""
        self._behind.add("outcomes", _row(outcome))

    def past(self) -> list[Outcome]:
        """What the file held when it was opened, oldest first. Ask once."""
        return [outcome for row in self._behind.past("outcomes") for outcome in _outcome(row)]

    async def close(self) -> None:
        """Write what waits and let go of the file."""
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
