"""Postings: what a ledger that several processes share asks of its journal, and what that answers.

A posting is one step of one reservation, with all that its rows are made of. It is idempotent by its id: a journal takes a hold once, and one
end of it, whoever comes first. So a posting may be sent again whenever nobody knows what became of it.

This file holds the values and the Protocol; `postgres.py` is the journal, `poster.py` the queue in front of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from headgate.budget.book import part_of
from headgate.budget.budget import (
    Alert,
    Balance,
    Changes,
    Entry,
    Match,
    Repricings,
    Scope,
    Statements,
)
from headgate.budget.till import Ending, Filling, Place, owner_of

ENDINGS = ("settle", "lost", "note")
"""Acts that spend."""

_NUL = b"\\u0000"

Act = Literal["hold", "extend", "settle", "lost", "note", "release", "alert"]


class Posting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step of a reservation.

    hold      its call is about to leave: `amount` and `tokens` are held, for `lease` seconds at a time, on `scopes`
    extend    so much is held in all now; the first of the bill says by how much that is more
    settle    it cost what the bill says, on `scopes`; also `lost`, when nobody saw its end and it still holds `amount`, and `note`, of an
              answer from stock
    release   it never left and is not to leave any more
    alert     a threshold of the first of the scopes was passed

    at       unix seconds
    bill     what the rows say, at least one entry but for a release and an alert
    epochs   by owner, under which it is held; the journal takes no hold of another epoch
    capped   whether a budget limits it
    spooled  it was taken while the journal could not be asked: its call was made, so epochs do not matter any more
    """

    act: Act
    id: str
    at: float
    scopes: tuple[Scope, ...] = ()
    bill: tuple[Entry, ...] = ()
    amount: int = 0
    tokens: int = 0
    lease: float = 0.0
    epochs: dict[str, int] = {}
    capped: bool = False
    spooled: bool = False
    alert: Alert | None = None


class Written(msgspec.Struct, frozen=True, gc=False):
    """What became of a posting.

    taken   its rows are in the journal, for the first time
    fenced  an epoch of it is over
    state   of the reservation now: open, settled, lost or released; none when the journal does not know it
    number  up to which, at least, a till must have been filled to know its end
    """

    taken: bool
    fenced: bool = False
    state: str | None = None
    number: int = 0


class Report(msgspec.Struct, frozen=True):
    """What became of a batch, and by place what is spent after it and which percent was told last, where somebody
    wants to be told; and the epochs in force of owners of what was fenced."""

    written: list[Written]
    sums: Mapping[Place, tuple[int, int]] = {}
    epochs: Mapping[str, int] = {}


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A reservation as the journal knows it: its state, who made it, and what it holds where."""

    id: str
    state: str
    scopes: tuple[Scope, ...]
    entry: Entry
    amount: int
    tokens: int


class SharedJournal(Statements, Changes, Repricings, Protocol):
    """A journal that several processes write. All methods raise Overloaded when it cannot be asked now.

    Guarantees: rows are numbered in the order of their commits; a hold is taken only under the epochs in force, each end once.
    """

    async def post(self, postings: Sequence[Posting]) -> Report:
        """Durable: write all of them or none, in their order; of one act and id at most one."""
        ...

    async def begin(self, owner: str, seen: int, windows: Sequence[str]) -> Filling | None:
        """Begin a new epoch of an owner and say what it begins with, with these windows besides those of which something is known.
        None when somebody else began one since `seen` and may be about to fill it."""
        ...

    async def sums(self, owner: str, windows: Sequence[str]) -> Filling:
        """What is spent in some windows of an owner, under the epoch in force."""
        ...

    async def ended_since(self, owner: str, number: int) -> list[Ending]:
        """The endings on an owner's scopes behind a number."""
        ...

    async def calls(self, ids: Sequence[str]) -> dict[str, Call]:
        """Those of these reservations that the journal knows."""
        ...

    async def endings(self, ids: Sequence[str]) -> list[Ending]:
        """How these reservations ended, for every owner."""
        ...

    async def count(self, scope: Scope, match: Match, *, anew: bool) -> int | None:
        """Count a scope: what is missing is added and open calls are adopted. When that changed anything, or `anew`, the owner gets a
        new epoch: which."""
        ...

    async def unattended(self) -> list[str]:
        """Owners of calls that have been open for an hour longer than their lease; each is named once an hour."""
        ...

    async def sweep(self) -> None:
        """Forget what nobody asks for any more, and make room for the coming months."""
        ...

    async def answers(self, most: int) -> list[tuple[str, str, int]]:
        """As DurableLedger has it."""
        ...

    async def lost(self) -> int:
        """As DurableLedger has it."""
        ...

    async def balance(self, account: str, window: str) -> Balance:
        """What is spent by the rows written so far, and what dispatched calls hold."""
        ...


def as_json(value: Any) -> bytes:
    """A value as JSON. Half of a surrogate pair and NUL, which neither UTF-8 nor PostgreSQL can hold, are replaced as rows have it."""
    try:
        text = msgspec.json.encode(value)
    except UnicodeEncodeError:
        text = _NUL
    return text if _NUL not in text else msgspec.json.encode(_clean(msgspec.to_builtins(value)))


def by_owner(scopes: Sequence[Scope]) -> dict[str, tuple[Scope, ...]]:
    """The scopes of each owner."""
    parts: dict[str, list[Scope]] = {}
    for scope in scopes:
        parts.setdefault(owner_of(scope.account), []).append(scope)
    return {owner: tuple(some) for owner, some in parts.items()}


def spent_of(posting: Posting) -> dict[Place, int]:
    """What an ending spends on each place, those of a minute's tokens too."""
    parts = ((scope, part_of(scope, posting.bill)) for scope in posting.scopes)
    return {(scope.account, scope.window): part for scope, part in parts if part} if posting.bill else {}


def endings_of(id: str, number: int, spent: Mapping[Place, int], owners: Sequence[str] = ()) -> list[Ending]:
    """What a till is to be told: one ending for each owner, of `owners` too where nothing was spent."""
    parts: dict[str, list[tuple[Place, int]]] = {owner: [] for owner in owners}
    for place, amount in spent.items():
        parts.setdefault(owner_of(place[0]), []).append((place, amount))
    return [Ending(id=id, owner=owner, number=number, spent=tuple(some)) for owner, some in parts.items()]


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {_clean(name): _clean(one) for name, one in value.items()}
    return [_clean(one) for one in value] if isinstance(value, list | tuple) else value
