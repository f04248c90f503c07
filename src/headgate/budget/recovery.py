"""Recovery: what opening a journal does. Verify its newest part, end what a former process left open, load the balances."""

from __future__ import annotations

import sqlite3

import msgspec

from headgate.budget.book import Book, State
from headgate.budget.budget import Entry, Scope
from headgate.budget.journal import INSERT, ROWS, damaged_rows, is_sound, row_of, verify
from headgate.budget.sums import Mark, Place, fold, kept_sums, last_row, mark_of, open_calls
from headgate.model.money import Usage
from headgate.storage.sqlite import transaction

_ENDED = """SELECT id, kind FROM journal WHERE kind IN ('settle', 'lost', 'note')
    AND seq > (SELECT max(seq) FROM journal) - 20000 ORDER BY seq"""

_STATES: dict[str, State] = {"settle": "settled", "lost": "lost", "note": "settled"}

_OF_CALLS = f"""{ROWS} WHERE id IN (SELECT id FROM journal WHERE seq IN (SELECT value FROM json_each(?)))"""


def recover(connection: sqlite3.Connection, book: Book, now: float, *, oldest: float) -> tuple[int, set[Place]]:
    """Fill the book from the journal; windows that ended before `oldest` are left out.

    Returns how many calls had no end, which now count at their holds, and the places that were seeded. Raises Conflict when the
    running sums are damaged, or rows that are not in them yet.
    """
    verify_newest(connection, mark_of(connection))
    with transaction(connection):
        ended = end_open(connection, now)
    mark = fold(connection, oldest=oldest)
    seeded = set()
    names: dict[str, str] = {}
    for place, each in kept_sums(connection, mark):
        # An account has many windows and a window many accounts; each name is kept once.
        account, window = [names.setdefault(name, name) for name in place]
        counter = book.counters.of(Scope(account, window))
        counter.spent, counter.told = each.spent, each.told
        if each.seeded:
            seeded.add((account, window))
    for id, kind in connection.execute(_ENDED):
        book.remember(id, _STATES[kind], ())
    return ended, seeded


def verify_newest(connection: sqlite3.Connection, mark: Mark) -> None:
    """The rows behind the running sums, and those of calls that were open there. Raises Conflict when one is damaged."""
    newest = verify(connection, mark.seq)
    missing = newest.missing + max(0, mark.seq - last_row(connection))
    rows = connection.execute(_OF_CALLS, (msgspec.json.encode(mark.unended).decode(),)).fetchall()
    older = [row[0] for row in rows if not is_sound(row)]
    if newest.damaged or missing or older:
        raise damaged_rows(newest.damaged + missing + len(older), min(older, default=newest.first or mark.seq))


def end_open(connection: sqlite3.Connection, now: float) -> int:
    """Count every call whose end a former process did not see at what was held for it. How many."""
    calls = open_calls(connection, mark_of(connection))
    rows = []
    for call in calls:
        entry = Entry(
            tenant=call.tenant,
            key=call.key,
            user=call.user,
            feature=call.feature,
            route=call.route,
            amount=call.amount,
            billed=call.amount,
            usage=Usage(prompt_tokens=call.tokens, estimated=True),
        )
        rows.append(row_of(call.id, "lost", now, entry, scopes=call.scopes))
    if rows:
        connection.execute(INSERT, ((b"[" + b",".join(rows) + b"]").decode(),))
    return len(rows)
