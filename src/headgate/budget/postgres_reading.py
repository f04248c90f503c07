"""Reading: what the journal in PostgreSQL says, and the changes that other processes write into it.

Sums of the journal are asked for by time, so months that are not meant are not looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from headgate.budget.allowance import personal
from headgate.budget.budget import Balance, Change, Entry, Repricing, UsageQuery, UsageRow
from headgate.budget.journal import change_row, damaged_rows, is_sound, price_row
from headgate.budget.memory import check_groups, usage_row
from headgate.budget.postgres_acts import act, scopes_from
from headgate.budget.postgres_schema import COLUMNS, RARE, SPENDING
from headgate.budget.sums import MICRO, micros
from headgate.budget.till import Place, owner_of
from headgate.budget.windows import TOKENS
from headgate.model.money import Usage
from headgate.storage.postgres import Postgres

POST = "SELECT headgate_post(%s::jsonb, %s::jsonb)"

ROWS = f"SELECT seq, checksum, currency, {COLUMNS} FROM headgate_journal"
"""Whole rows, as `is_sound` takes them."""

SHARED = "coalesce((detail::json ->> 'shared')::numeric, 0)"
"""What is shared of a row that spends."""

ENTRY = (
    'tenant, key, "user", feature, route, model, deployment, source, amount, billed, saved, prices, '
    f"{SHARED}, prompt_tokens, completion_tokens, cached_tokens, cache_write_tokens, reasoning_tokens, estimated"
)
"""The columns that `entry_of` takes. The detail is read only where a row spends: elsewhere it is something else."""

_ANSWERS = (
    "SELECT tenant, route, completion_tokens FROM headgate_journal WHERE seq > (SELECT seq FROM headgate_head) - %s"
    " AND kind = 'settle' AND source = 'live' AND estimated = 0 AND completion_tokens > 0 AND route <> '' ORDER BY seq"
)
_BALANCE = """SELECT
    (SELECT spent FROM headgate_spent WHERE owner = %(owner)s AND "window" = %(window)s AND account = %(account)s),
    (SELECT json_agg(json_build_array(scopes, amount, tokens)) FROM headgate_calls WHERE state = 'open' AND %(owner)s = ANY (owners))"""

_change = msgspec.json.Decoder(Change)
_repricing = msgspec.json.Decoder(Repricing)


class PostgresReading:
    """The journal for those who read it beside the processes that spend: Statements, Changes and Repricings."""

    def __init__(self, postgres: Postgres, *, now: Callable[[], float] = time.time) -> None:
        """`now` is in unix seconds. The connections are closed by whoever opened them."""
        self._postgres = postgres
        self._now = now

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        """Sum settled rows by group, ordered by group. Raises InvalidRequest for a group there is not."""
        check_groups(query)
        rows = await self._postgres.query(*_usage_sql(query))
        return [
            usage_row(query.group_by, row, map(int, row[len(query.group_by) :]))
            for row in rows
            if row[len(query.group_by)] is not None
        ]

    async def balance(self, account: str, window: str) -> Balance:
        """What is spent on a scope by the rows written so far, and what dispatched calls hold."""
        place = {"owner": owner_of(account), "account": account, "window": window}
        ((spent, calls),) = await self._postgres.query(_BALANCE, place)
        held = sum(
            tokens if window.startswith(TOKENS) else amount
            for scopes, amount, tokens in calls or ()
            if any((scope.account, scope.window) == (account, window) for scope in scopes_from(scopes))
        )
        return Balance(int(spent or 0), held)

    async def change(self, change: Change) -> None:
        """Durable: write a change, for servers to learn of."""
        await self._say(change.id, change_row(change, self._now()))

    async def changes(self, after: int = 0) -> tuple[int, list[Change]]:
        """All changes behind the row `after`, oldest first, and the last one's row. Raises Conflict when one is damaged."""
        place, details = await self._said("change", after)
        return place, [_change.decode(detail) for detail in details]

    async def reprice(self, repricing: Repricing) -> None:
        """Durable: write a change of a price, for servers to learn of."""
        await self._say(repricing.id, price_row(repricing, self._now()))

    async def repricings(self, after: int = 0) -> tuple[int, list[Repricing]]:
        """All changes of prices behind the row `after`, and the last one's row. Raises Conflict when one is damaged."""
        place, details = await self._said("price", after)
        return place, [_repricing.decode(detail) for detail in details]

    async def answers(self, most: int) -> list[tuple[str, str, int]]:
        """Tenant, route and output tokens of answers among the newest `most` rows, oldest first."""
        rows = await self._postgres.query(_ANSWERS, (most,))
        return [(tenant, route, tokens) for tenant, route, tokens in rows]

    async def lost(self) -> int:
        """Nano-USD that were settled at their holds because nobody saw the end of the call."""
        sql = f"SELECT sum(amount) FROM headgate_journal WHERE {RARE} AND kind = 'lost'"
        ((lost,),) = await self._postgres.query(sql)
        return int(lost or 0)

    async def _say(self, id: str, row: bytes) -> None:
        await self._postgres.query(POST, (f"[{act('once', id, [row]).decode()}]", "[]"))

    async def _said(self, kind: str, after: int) -> tuple[int, list[str]]:
        """The details of the rows of a kind behind the row `after`, and the last one's row."""
        place, details = after, []
        for row in await self._postgres.query(
            f"{ROWS} WHERE {RARE} AND kind = %s AND seq > %s ORDER BY seq", (kind, after)
        ):
            if not is_sound(row):
                raise damaged_rows(1, row[0])
            place = row[0]
            details.append(row[-1])
        return place, details


def entry_of(columns: Sequence[Any]) -> Entry:
    """An entry of the columns ENTRY."""
    tenant, key, user, feature, route, model, deployment, source, amount, billed, saved, prices, shared, *usage = (
        columns
    )
    *tokens, estimated = usage
    return Entry(
        tenant=tenant,
        key=key,
        user=user,
        feature=feature,
        route=route,
        model=model,
        deployment=deployment,
        source=source,
        amount=amount,
        billed=billed,
        saved=saved,
        shared=int(shared),
        prices=prices,
        usage=Usage(
            prompt_tokens=tokens[0],
            completion_tokens=tokens[1],
            cached_tokens=tokens[2],
            cache_write_tokens=tokens[3],
            reasoning_tokens=tokens[4],
            estimated=bool(estimated),
        ),
    )


def spent_on(place: Place) -> str:
    """SQL for what a row that spends adds to a place. As `counted` of the book has it."""
    if place[1].startswith(TOKENS):
        return "CASE source WHEN 'live' THEN prompt_tokens::numeric + completion_tokens ELSE 0 END"
    if personal(place[0]):
        return f"CASE source WHEN 'live' THEN amount - {SHARED} ELSE billed END"
    return f"CASE source WHEN 'live' THEN amount ELSE billed - {SHARED} END"


def _usage_sql(query: UsageQuery) -> tuple[str, dict[str, Any]]:
    """The names in `group_by` have been checked; everything else is bound."""
    day = f"to_char(to_timestamp(at / {MICRO}) AT TIME ZONE 'UTC', 'YYYY-MM-DD')"
    groups = [day if name == "day" else f'coalesce("{name}", \'\') COLLATE "C"' for name in query.group_by]
    bounds = {"tenant": "tenant = %(tenant)s", "since": "at >= %(since)s", "until": "at < %(until)s"}
    parameters = {name: value for name in bounds if (value := getattr(query, name)) is not None}
    for name in parameters.keys() & {"since", "until"}:
        parameters[name] = micros(parameters[name])
    conditions = [SPENDING, *(bounds[name] for name in parameters)]
    order = ", ".join(str(index + 1) for index in range(len(groups)))
    sums = "sum((kind <> 'charge')::int), " + ", ".join(
        f"sum({amount})"
        for amount in ("prompt_tokens", "completion_tokens", "cached_tokens", "amount", "billed", "saved", SHARED)
    )
    sql = f"SELECT {', '.join([*groups, sums])} FROM headgate_journal WHERE {' AND '.join(conditions)}"
    return (f"{sql} GROUP BY {order} ORDER BY {order}" if groups else sql), parameters
