"""Whoever joins, leaves, fails or follows in other words: a call that several share is billed as its tenant wants, to the nano-dollar."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence
from typing import Literal

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.budget.budget import Entry
from headgate.budget.memory import MemoryLedger
from headgate.dispatch import Patience
from headgate.model.chat import ChatRequest, Delta, Done, Event, Json
from headgate.model.clearance import Clearance
from headgate.model.deployment import Deployment
from headgate.model.errors import Rejected, Unavailable
from headgate.model.money import Usage
from headgate.model.tally import as_reported
from headgate.model.tenancy import Policy, Principal, Shares, Wishes
from tests.chaos import times
from tests.crowds import PARCEL, Crowd, Reader
from tests.virtual_time import run

HOUR = "hour:1970-01-12T13"
CAPS = {"ann": 10**9, "bob": 300_000, "cid": 60_000}
"""Budgets of users: of many calls, of one and a part, of not even a part; `dan` has none."""


class Play(msgspec.Struct, frozen=True):
    """How one call to the provider goes: parts with a second between two, and an end."""

    first: float
    parts: int
    end: Literal["stop", "length", "down", "no", "cut"]


class Come(msgspec.Struct, frozen=True):
    """Somebody asks at second `at`, and hangs up after `stays` where that is given."""

    at: float
    text: str
    user: str
    stream: bool
    stays: float | None


class Player:
    """Plays what it is given, one play for each call, over and over."""

    def __init__(self, plays: Sequence[Play]) -> None:
        self._plays = itertools.cycle(plays)

    async def send(
        self, deployment: Deployment, request: ChatRequest, clearance: Clearance, *, timeout: float
    ) -> AsyncGenerator[Event, None]:
        play = next(self._plays)
        await asyncio.sleep(play.first)
        if play.end == "down":
            error = Unavailable("down")
            error.sent = True
            raise error
        if play.end == "no":
            raise Rejected("no")
        for _ in range(play.parts if request.stream else 1):
            yield Delta([{"index": 0, "delta": {"content": "word "}, "finish_reason": None}])
            await asyncio.sleep(1.0 if request.stream else 0.0)
        if play.end == "cut":
            raise Unavailable("cut")
        yield Delta([{"index": 0, "delta": {}, "finish_reason": play.end}])
        used = Usage(prompt_tokens=10, completion_tokens=play.parts)
        yield Done("played-1", used, as_reported(used))

    async def embed(self, deployment: Deployment, body: Json, clearance: Clearance, *, timeout: float) -> Json:
        raise Rejected("no embeddings here")

    async def close(self) -> None:
        return None


class Watched(MemoryLedger):
    """A ledger that keeps what it was told, by id."""

    def __init__(self) -> None:
        super().__init__(now=lambda: 1_000_000.0)
        self.bills: dict[str, Sequence[Entry]] = {}
        self.notes: dict[str, Entry] = {}

    def settle(self, id: str, bill: Sequence[Entry]) -> None:
        assert id not in self.bills, "settled twice"
        self.bills[id] = bill
        super().settle(id, bill)

    def note(self, id: str, entry: Entry) -> None:
        assert id not in self.notes, "noted twice"
        self.notes[id] = entry
        super().note(id, entry)


async def lived(shares: Shares, hit_percent: int, plays: list[Play], comes: list[Come]) -> tuple[Crowd, Watched]:
    ledger = Watched()
    house = Crowd(
        providers={"one": Player(plays)},
        ledger=ledger,
        follower_patience=3.0,
        drain=2.0,
        patience=Patience(retries=1, backoff=0.1),
    )
    await house.allow("tenant:acme", 10**10)
    for user, cap in CAPS.items():
        await house.allow(f"user:acme/{user}", cap)
    policy = Policy(shares=shares, hit_percent=hit_percent, rpm=10_000, concurrency=10_000)
    who = Principal(tenant="acme", key="key-1", policy=policy)
    readers: list[Reader] = []
    for come in sorted(comes, key=lambda one: one.at):
        await asyncio.sleep(come.at - asyncio.get_running_loop().time())
        reader = house.come(come.text, who, Wishes(user=come.user), stream=come.stream)
        readers.append(reader)
        if come.stays is not None:
            asyncio.get_running_loop().call_later(come.stays, reader.leave)
    await asyncio.gather(*(reader.task for reader in readers), return_exceptions=True)
    await house.at_rest()
    return house, ledger


def row_of(ledger: Watched, id: str) -> Entry | None:
    """The row of a call whose answer was bought for another."""
    found = [ledger.notes[name] for name in (id, f"{id}-share") if name in ledger.notes]
    assert len(found) <= 1, "two rows for one call"
    return found[0] if found else None


async def checked(shares: Shares, hit_percent: int, plays: list[Play], comes: list[Come]) -> None:
    house, ledger = await lived(shares, hit_percent, plays, comes)
    rows = await house.journal("user", "source")
    cost, billed = sum(row.cost for row in rows), sum(row.billed for row in rows)
    by_user = {user: sum(row.billed for row in rows if row.group["user"] == user) for user in CAPS}
    assert (await house.ledger.balance("tenant:acme", HOUR)).spent == billed
    for user, cap in CAPS.items():
        spent = (await house.ledger.balance(f"user:acme/{user}", HOUR)).spent
        assert spent == by_user[user] <= cap, user
    if not hit_percent and shares != "each":
        assert billed == cost
    if shares == "each":
        for entry in ledger.notes.values():
            worth = entry.saved
            assert entry.billed == (
                worth if entry.source.startswith("coalesced") else worth * hit_percent // 100
            ) or not (entry.billed or entry.saved)
    for record in house.notes.records:
        row = row_of(ledger, record.id)
        if record.status == 200 and record.source != "live":
            assert row is not None, "given something, and no row"
        if record.source in ("live", "none") and record.status != 499:
            assert row is None, "two ways to pay"
    ids = {record.id for record in house.notes.records}
    assert {id.removesuffix("-share") for id in ledger.notes} <= ids
    whole_bills = [sum(entry.amount for entry in bill) for bill in ledger.bills.values()]
    assert sum(whole_bills) == cost == sum(record.cost for record in house.notes.records)
    assert sum(entry.shared for bill in ledger.bills.values() for entry in bill) == sum(
        entry.shared for entry in ledger.notes.values()
    )


@given(
    shares=st.sampled_from(("leader", "split", "split", "each")),
    hit_percent=st.sampled_from((0, 0, 30)),
    plays=st.lists(
        st.builds(
            Play,
            first=st.sampled_from((0.0, 1.0, 1.0, 4.0)),
            parts=st.integers(1, 4),
            end=st.sampled_from(("stop", "stop", "stop", "stop", "length", "down", "no", "cut")),
        ),
        min_size=1,
        max_size=5,
    ),
    comes=st.lists(
        st.builds(
            Come,
            at=st.sampled_from((0.0, 0.0, 0.0, 0.5, 1.0, 1.5, 2.5, 5.0)),
            text=st.sampled_from(PARCEL[:3]),
            user=st.sampled_from(("ann", "bob", "cid", "dan", "dan")),
            stream=st.booleans(),
            stays=st.sampled_from((None, None, None, 0.0, 0.7, 1.5, 2.2)),
        ),
        min_size=2,
        max_size=12,
    ),
)
@settings(max_examples=times(150, 10_000), deadline=None)
def test_what_is_billed_is_what_it_cost_as_often_as_the_tenant_wants(
    shares: Shares, hit_percent: int, plays: list[Play], comes: list[Come]
) -> None:
    run(checked(shares, hit_percent, plays, comes))
