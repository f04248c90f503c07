"""Behind: rows that are written soon, while whoever adds them goes on.

What was added in the last moments before a crash may be missing. So it is for what can be learnt again and no answer depends on. Where
the rows lie is for `Rows` to say: in a file of this process, or in a database that other replicas write to as well.

Invariant: adding never waits and never raises; what is too much for a slow store is lost, and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec

log = logging.getLogger(__name__)

LINGER = 0.25
"""Seconds that a row may lie before it is written, so that several share a commit."""
WAITING = 10_000
"""Rows of a table that may wait for a slow store; further ones are lost."""
BOUND_EVERY = 1_000
"""Rows after which the oldest are removed."""

Row = tuple[object, ...]
Kind = Literal["text", "real", "integer", "blob", "text?", "real?", "integer?"]
"""What a column holds; with a question mark, perhaps nothing."""


class Table(msgspec.Struct, frozen=True):
    """A table: its columns, how many of the newest rows are kept, and the column that tells rows apart, where a later one takes an earlier
    one's place."""

    name: str
    columns: Mapping[str, Kind]
    most: int
    key: str | None = None

    def schema(self, kinds: Mapping[str, str], place: str) -> str:
        """The statement that makes it, where a column's kind is called as `kinds` says; `place` is the column that grows with each row."""
        columns = [f"{name} {kinds[kind.rstrip('?')]}{self._bounds(name, kind)}" for name, kind in self.columns.items()]
        return f"CREATE TABLE {self.name} ({', '.join([place, *columns])})"

    def _bounds(self, name: str, kind: Kind) -> str:
        return ("" if kind.endswith("?") else " NOT NULL") + (" UNIQUE" if name == self.key else "")

    def keep(self, mark: str, *further: str) -> str:
        """Writes a row, with a `mark` for each of its values; `further` columns come after its own."""
        names = [*self.columns, *further]
        insert = f"INSERT INTO {self.name} ({', '.join(names)}) VALUES ({', '.join([mark] * len(names))})"
        if self.key is None:
            return insert
        taken = ", ".join(f"{name} = excluded.{name}" for name in names if name != self.key)
        return f"{insert} ON CONFLICT ({self.key}) DO UPDATE SET {taken}"

    @property
    def names(self) -> str:
        """Its columns, as SQL lists them."""
        return ", ".join(self.columns)

    @property
    def newest(self) -> str:
        """Reads the newest rows, the last one first."""
        return f"SELECT {self.names} FROM {self.name} ORDER BY place DESC LIMIT {self.most}"

    @property
    def bound(self) -> str:
        """Removes all rows but the newest."""
        return f"DELETE FROM {self.name} WHERE place <= (SELECT max(place) FROM {self.name}) - {self.most}"


class Rows(Protocol):
    """Where rows lie. Methods raise whatever keeps them from their work."""

    async def read(self) -> dict[str, list[Row]]:
        """The newest rows of each table, oldest first."""
        ...

    async def write(self, rows: Mapping[str, Sequence[Row]], *, bound: bool) -> None:
        """Write rows of each table, all or none; `bound`: remove what is too old."""
        ...

    async def others(self) -> dict[str, list[Row]]:
        """Rows that other processes have written since the reading, or since this was asked last; oldest first."""
        ...

    async def close(self) -> None:
        """Let go of them."""
        ...


class Behind:
    """The tables of one store. `what` they hold is named in the log."""

    def __init__(self, rows: Rows, what: str, tables: Sequence[Table]) -> None:
        """Use `open`, which reads what is there."""
        self.lost = 0
        self._rows = rows
        self._what = what
        self._waiting: dict[str, list[Row]] = {table.name: [] for table in tables}
        self._past: dict[str, list[Row]] = {}
        self._since = 0
        self._writing: asyncio.Task[None] | None = None
        self._failing = False
        self._closing = asyncio.Event()

    @classmethod
    async def open(cls, rows: Rows, what: str, tables: Sequence[Table]) -> Behind:
        """Read what is there. Never raises for what is wrong with it: that is said in the log."""
        behind = cls(rows, what, tables)
        try:
            behind._past = await rows.read()
        except Exception as error:
            log.warning("%s cannot be read: %s", what, error)
        return behind

    def past(self, table: str) -> list[Row]:
        """The rows that a table held when it was opened, oldest first. Ask once."""
        return self._past.pop(table, [])

    async def others(self) -> dict[str, list[Row]]:
        """What other processes have written since this was asked last, by table; nothing when that cannot be read now."""
        try:
            return await self._rows.others()
        except Exception as error:
            log.debug("%s of other replicas cannot be read: %s", self._what, error)
            return {}

    def add(self, table: str, row: Row) -> None:
        """Write one row soon."""
        waiting = self._waiting[table]
        if len(waiting) < WAITING:
            waiting.append(row)
        else:
            self.lost += 1
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write_soon())

    async def close(self) -> None:
        """Write what waits and let go."""
        self._closing.set()
        while self._writing is not None:
            await self._writing
        await self._rows.close()

    async def _write_soon(self) -> None:
        while any(self._waiting.values()):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), LINGER)
            await self._write()
        self._writing = None

    async def _write(self) -> None:
        rows, self._waiting = self._waiting, {name: [] for name in self._waiting}
        count = sum(map(len, rows.values()))
        self._since += count
        bound = self._since >= BOUND_EVERY
        if bound:
            self._since = 0
        try:
            await self._rows.write(rows, bound=bound)
        except Exception as error:
            self.lost += count
            if not self._failing:
                log.warning("%s cannot be written and will be gone after a restart: %s", self._what, error)
            self._failing = True
        else:
            self._failing = False
