"""Usage as JSON: the same report for a tenant (`GET /v1/usage`) and for an operator (`GET /admin/usage`)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl

from headgate.budget.budget import Statements, UsageQuery, UsageRow
from headgate.model.chat import Json
from headgate.model.errors import InvalidRequest
from headgate.model.money import to_usd


def query_of(query: bytes, known: Collection[str]) -> dict[str, str]:
    """The parameters of a query string. Raises InvalidRequest when one is unknown or given twice."""
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    read = dict(pairs)
    if len(read) != len(pairs):
        raise InvalidRequest("A parameter is given twice.")
    for name in read:
        if name not in known:
            raise InvalidRequest(
                f"Unknown parameter `{name[:80]}`; known are {', '.join(sorted(known))}.", param=name[:80]
            )
    return read


async def usage_report(statements: Statements, tenant: str | None, query: Mapping[str, str]) -> Json:
    """Sum the journal as `from`, `to` and `group_by` of the query string say. Raises InvalidRequest."""
    groups = tuple(name.strip() for name in query.get("group_by", "").split(",") if name.strip())
    asked = UsageQuery(
        tenant=tenant,
        since=_moment("from", query.get("from")),
        until=_moment("to", query.get("to")),
        group_by=groups,
    )
    rows = await statements.usage(asked)
    listed = [{**row.group, **_figures([row])} for row in rows]
    return {"object": "list", "currency": "USD", "data": listed, "total": _figures(rows)}


def _figures(rows: list[UsageRow]) -> Json:
    return {
        "requests": sum(row.requests for row in rows),
        "prompt_tokens": sum(row.prompt_tokens for row in rows),
        "completion_tokens": sum(row.completion_tokens for row in rows),
        "cached_tokens": sum(row.cached_tokens for row in rows),
        "cost_usd": to_usd(sum(row.cost for row in rows)),
        "saved_usd": to_usd(sum(row.saved for row in rows)),
    }


def _moment(name: str, text: str | None) -> float | None:
    """Unix seconds, or an ISO date or time; without a zone it is UTC."""
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = _of_date(text)
    if not math.isfinite(seconds):
        raise InvalidRequest(f"`{name}` must be unix seconds or an ISO date such as 2026-11-20.", param=name)
    return seconds


def _of_date(text: str) -> float:
    """Unix seconds of an ISO date or time, NaN when it is none."""
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return math.nan
