"""Sums: what the journal says is spent and held, and the running sums that make opening a long one quick.

The table `spent` holds what the rows up to `folded.seq` come to, for each place whose window ended after `folded.since`. Every
row of it ends in a checksum, and `folded` in one of its own and of what all of theirs add up to, so that damage to them is noticed
too. They can be made anew from the journal at any time.

Sums are taken in two halves (the upper bits and the lower 32), so that no sum of 64-bit amounts overflows.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from headgate.budget.allowance import personal
from headgate.budget.budget import Balance, Match
from headgate.budget.counters import is_live
from headgate.budget.windows import TOKENS, window_bounds
from headgate.model.errors import Conflict
from headgate.storage.commits import encoded
from headgate.storage.sqlite import lenient, snapshot, transaction

Place = tuple[str, str]
"""An account and one of its windows."""

LAST = 2**63 - 1
"""Behind every row there can be."""
MICRO = 1_000_000
"""Microseconds in a second: the journal's times are whole ones."""


class Mark(msgspec.Struct, frozen=True):
    """How far the running sums go.

    seq      the last row in them
    since    unix seconds; windows that ended before have been left out
    unended  the holds up to `seq`, by their rows, whose calls had not ended there
    places   how many sums there are
    digest   what their checksums add up to
    """

    seq: int = 0
    since: int = 0
    unended: tuple[int, ...] = ()
    places: int = 0
    digest: int = 0


class Sum(msgspec.Struct, frozen=True, gc=False):
    """What the journal says of a place: nano-USD or tokens spent, the percent last told of, and whether it was seeded."""

    spent: int = 0
    told: int = 0
    seeded: bool = False

    def plus(self, other: Sum) -> Sum:
        """The two together."""
        return Sum(self.spent + other.spent, max(self.told, other.told), self.seeded or other.seeded)


def halves(amount: str) -> str:
    """SQL for the two halves of a sum; NULL for no rows."""
    return f"sum(({amount}) >> 32), sum(({amount}) & 4294967295)"


def micros(moment: float) -> int:
    """A unix time as the journal has it, as far as its column holds it."""
    return max(-(2**63), min(2**63 - 1, int(moment * MICRO)))


def whole(high: int | None, low: int | None) -> int:
    """The sum of two halves."""
    return ((high or 0) << 32) + (low or 0)


SHARED = "coalesce(detail ->> '$.shared', 0)"
"""What is shared of a row."""

# As `counted` and `part_of` of the book have it.
_MONEY = f"CASE source WHEN 'live' THEN amount ELSE billed - {SHARED} END"
_MONEY_ALONE = f"CASE source WHEN 'live' THEN amount - {SHARED} ELSE billed END"
_COUNTED_TOKENS = "CASE source WHEN 'live' THEN prompt_tokens + completion_tokens ELSE 0 END"

_SUMS = f"""SELECT scopes, {halves(_MONEY)}, {halves(_MONEY_ALONE)}, {halves(_COUNTED_TOKENS)},
    max(CASE kind WHEN 'alert' THEN attempt ELSE 0 END), max(kind = 'seed') FROM journal
    WHERE seq > ? AND seq <= ? AND kind IN ('charge', 'settle', 'lost', 'note', 'seed', 'alert') AND scopes != '[]'
    GROUP BY scopes"""

_UNENDED = """h.seq IN (SELECT seq FROM journal WHERE seq > :seq AND kind = 'hold' UNION ALL SELECT value FROM json_each(:unended))
    AND NOT EXISTS (SELECT 1 FROM journal e WHERE e.id = h.id AND e.kind IN ('settle', 'lost', 'note') AND e.seq > h.seq)"""

_OPEN = f"""SELECT h.seq, h.id, h.tenant, h.key, h.user, h.feature, h.route, h.prompt_tokens,
    h.amount + coalesce((SELECT sum(x.amount) FROM journal x WHERE x.id = h.id AND x.kind = 'extend' AND x.seq > h.seq), 0),
    coalesce((SELECT a.scopes FROM journal a WHERE a.id = h.id AND a.kind = 'adopt' AND a.seq > h.seq ORDER BY a.seq DESC LIMIT 1),
        h.scopes)
    FROM journal h WHERE {_UNENDED} ORDER BY h.seq"""

RARE = "kind IN ('lost', 'seed', 'change', 'price', 'alert')"
"""Has an index of its own, which SQLite uses for a query that says just this."""

LOST = f"SELECT {halves('amount')} FROM journal WHERE {RARE} AND kind = 'lost'"

_WINDOWS = """WITH RECURSIVE each (window) AS (SELECT min(window) FROM spent
    UNION ALL SELECT (SELECT min(window) FROM spent WHERE window > each.window) FROM each WHERE each.window IS NOT NULL)
    SELECT window FROM each WHERE window IS NOT NULL"""

_EVERY = """SELECT coalesce(CAST(window || ' ' || account || ' ' || spent || ' ' || told || ' ' || seeded AS BLOB), x''), checksum
    FROM spent"""

_SOME = f"""{_EVERY.replace("FROM spent", "FROM json_each(?) AS place CROSS JOIN spent")}
    ON spent.window = json_extract(place.value, '$[1]') AND spent.account = json_extract(place.value, '$[0]')"""

_KEEP = f"""INSERT OR REPLACE INTO spent WITH row AS MATERIALIZED (SELECT value FROM json_each(?))
    SELECT {", ".join(f"json_extract(value, '$[{index}]')" for index in range(6))} FROM row"""

_places = msgspec.json.Decoder(tuple[Place, ...])
_seqs = msgspec.json.Decoder(tuple[int, ...])


class OpenCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call whose end has not been written: who, its tokens and nano-USD held in all, and where they are."""

    seq: int
    id: str
    tenant: str
    key: str
    user: str | None
    feature: str | None
    route: str
    tokens: int
    amount: int
    scopes: str

    @property
    def places(self) -> tuple[Place, ...]:
        """Where it is held."""
        return _places.decode(self.scopes)


def open_calls(connection: sqlite3.Connection, mark: Mark) -> list[OpenCall]:
    """The calls that have no end, oldest first."""
    names = OpenCall.__struct_fields__
    rows = connection.execute(_OPEN, {"seq": mark.seq, "unended": _json(mark.unended)})
    return [OpenCall(**dict(zip(names, row, strict=True))) for row in rows]


def mark_of(connection: sqlite3.Connection) -> Mark:
    """How far the running sums go. Raises Conflict when that is damaged."""
    with lenient(connection):
        rows = connection.execute("SELECT seq, since, unended, places, digest, checksum FROM folded").fetchall()
    if len(rows) != 1 or zlib.crc32(encoded(rows[0][:5])) != rows[0][5]:
        raise damaged_sums()
    seq, since, unended, places, digest, _ = rows[0]
    return Mark(seq, since, _seqs.decode(unended), places, digest)


def write_mark(connection: sqlite3.Connection, mark: Mark) -> None:
    """Let the running sums go so far."""
    unended = _json(mark.unended)
    values = (mark.seq, mark.since, unended, mark.places, mark.digest)
    connection.execute("DELETE FROM folded")
    connection.execute("INSERT INTO folded VALUES (?, ?, ?, ?, ?, ?)", (*values, zlib.crc32(encoded(values))))


def fold(connection: sqlite3.Connection, *, oldest: float) -> Mark:
    """Bring the running sums up to date; windows that ended before the unix time `oldest` go, and before the newest row: a clock
    that is ahead for a while makes no sum be forgotten.

    Only the last, short part takes the write lock. Raises Conflict when what is kept is damaged.
    """
    with snapshot(connection):
        mark = mark_of(connection)
        until = last_row(connection)
        since = max(mark.since, min(int(oldest), _newest(connection)))
        more = added(connection, mark.seq, until, since=since)
        unended = tuple([call.seq for call in open_calls(connection, mark)])
        places = _json(list(more))
        before = dict(_checked(connection, _SOME, (places,)))
    rows = [_row(place, each.plus(before[place]) if place in before else each) for place, each in more.items()]
    digest = mark.digest + sum(row[-1] for row in rows) - sum(_row(*each)[-1] for each in before.items())
    with transaction(connection):
        connection.execute(_KEEP, (_json(rows),))
        gone = [checksum for window in _ended_windows(connection, since) for checksum in _forget(connection, window)]
        count = mark.places + len(rows) - len(before) - len(gone)
        folded = Mark(until, since, unended, count, digest - sum(gone))
        write_mark(connection, folded)
    return folded


def refold(connection: sqlite3.Connection, *, oldest: float) -> Mark:
    """Make the running sums anew from the journal alone, whatever is kept."""
    with transaction(connection):
        connection.execute("DELETE FROM spent")
        write_mark(connection, Mark())
    return fold(connection, oldest=oldest)


def _newest(connection: sqlite3.Connection) -> int:
    """When the newest row was written, unix seconds; 0 when there is none."""
    row = connection.execute("SELECT at FROM journal ORDER BY seq DESC LIMIT 1").fetchone()
    return 0 if row is None else int(row[0]) // MICRO


def last_row(connection: sqlite3.Connection) -> int:
    """The number of the newest row, 0 when there is none."""
    (seq,) = connection.execute("SELECT coalesce(max(seq), 0) FROM journal").fetchone()
    return int(seq)


def added(
    connection: sqlite3.Connection, after: int, until: int = LAST, *, since: float | None = None
) -> dict[Place, Sum]:
    """What the rows behind `after`, up to `until`, come to, on each place in its own unit.

    Windows that ended before the unix time `since` are left out.
    """
    sums: dict[Place, Sum] = {}
    dead: dict[str, bool] = {}
    for scopes, *sums_of_rows, told, seeded in connection.execute(_SUMS, (after, until)):
        money, alone, tokens = (
            Sum(whole(*pair), told, bool(seeded)) for pair in zip(sums_of_rows[::2], sums_of_rows[1::2], strict=True)
        )
        for place in _places.decode(scopes):
            window = place[1]
            if since is not None and dead.setdefault(window, not is_live(window, since)):
                continue
            each = tokens if window.startswith(TOKENS) else alone if personal(place[0]) else money
            known = sums.get(place)
            sums[place] = each if known is None else known.plus(each)
    return sums


def kept_sums(connection: sqlite3.Connection, mark: Mark) -> Iterator[tuple[Place, Sum]]:
    """The running sums as they are kept. Raises Conflict when one is damaged or missing."""
    count, digest = connection.execute("SELECT count(*), coalesce(sum(checksum), 0) FROM spent").fetchone()
    if (count, digest) != (mark.places, mark.digest):
        raise damaged_sums()
    return _checked(connection, _EVERY)


class Reading:
    """Balances for one who asks for many: the rows that were added up for the last one are not read again for the next."""

    def __init__(self) -> None:
        self._kept = -1
        self._read = Mark()
        self._later: dict[Place, Sum] = {}

    def balance(self, connection: sqlite3.Connection, place: Place) -> Balance:
        """One moment's balance: the running sum, what was settled after it, and what is open."""
        with snapshot(connection):
            mark = mark_of(connection)
            kept = dict(_checked(connection, _SOME, (_json([place]),)))
            if mark.seq != self._kept:
                self._kept, self._read, self._later = mark.seq, mark, {}
            calls = open_calls(connection, self._read)
            until = last_row(connection)
            for each, more in added(connection, self._read.seq, until).items():
                self._later[each] = more.plus(self._later.get(each, Sum()))
            self._read = Mark(seq=until, unended=tuple([call.seq for call in calls]))
        tokens = place[1].startswith(TOKENS)
        held = sum(call.tokens if tokens else call.amount for call in calls if place in call.places)
        return Balance(kept.get(place, Sum()).spent + self._later.get(place, Sum()).spent, held)


def spent_before(connection: sqlite3.Connection, match: Match, place: Place) -> int:
    """What the calls of an account have spent in a window, as far as they did not count on this place."""
    bounds = window_bounds(place[1])
    since, until = (0, LAST) if bounds is None else (int(edge * MICRO) for edge in bounds)
    parameters: dict[str, Any] = {
        "tenants": _json(match.tenants),
        "value": match.value,
        "since": since,
        "until": until,
        "place": _json(place),
    }
    mine = "" if match.field is None else f"AND {match.field} = :value"
    if match.field == "deployment":
        mine += " AND kind != 'note'"  # an answer from stock costs its deployment nothing
    money = _MONEY_ALONE if personal(place[0]) else _MONEY
    unit = _COUNTED_TOKENS if place[1].startswith(TOKENS) else money
    sql = f"""SELECT {halves(unit)} FROM journal
        WHERE tenant IN (SELECT value FROM json_each(:tenants)) AND at >= :since AND at < :until
        AND kind IN ('charge', 'settle', 'lost', 'note') {mine} AND instr(scopes, :place) = 0
        AND (kind != 'note' OR scopes != '[]' OR {SHARED} > 0)"""
    return whole(*connection.execute(sql, parameters).fetchone())


def damaged_sums() -> Conflict:
    """What is kept beside the journal is not as it was written."""
    return Conflict(
        "The ledger's running sums are damaged. Stop the server and run `headgate doctor --rebuild`, which makes them anew from"
        " the journal."
    )


def _row(place: Place, each: Sum) -> tuple[str, str, str, int, int, int]:
    """A row of `spent`, with its checksum."""
    account, window = place
    text = f"{window} {account} {each.spent} {each.told} {each.seeded:d}"
    return window, account, str(each.spent), each.told, int(each.seeded), zlib.crc32(text.encode())


def _checked(connection: sqlite3.Connection, sql: str, parameters: Sequence[str] = ()) -> Iterator[tuple[Place, Sum]]:
    """Rows of `spent`, each as the text of its checksum. Raises Conflict when one is damaged."""
    for text, checksum in connection.execute(sql, parameters):
        if zlib.crc32(text) != checksum:
            raise damaged_sums()
        window, _, rest = text.decode().partition(" ")
        account, spent, told, seeded = rest.rsplit(" ", 3)
        yield (account, window), Sum(int(spent), int(told), seeded == "1")


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _ended_windows(connection: sqlite3.Connection, since: float) -> list[str]:
    return [window for (window,) in connection.execute(_WINDOWS) if not is_live(window, since)]


def _forget(connection: sqlite3.Connection, window: str) -> list[int]:
    """Drop the sums of a window; their checksums."""
    return [
        checksum
        for (checksum,) in connection.execute("DELETE FROM spent WHERE window = ? RETURNING checksum", (window,))
    ]
