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

ROUTED = "routed"
"""Why a call that was made has saved something: it went to a cheaper model than the one asked for."""


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
    """Sum the journal as `from`, `to` and `group_by` of the query string say. Raises InvalidRequest.

    Cost is what providers are owed, billed what the tenant owes, saved what the calls would have cost more: `saved_by` says why,
    by the source of the answers, and `routed` for calls that were made. So in a row of source `live` all that is saved was routed.
    """
    groups = tuple(name.strip() for name in query.get("group_by", "").split(",") if name.strip())
    # Always by source too: what was saved is told by its reason.
    asked = UsageQuery(
        tenant=tenant,
        since=_moment("from", query.get("from")),
        until=_moment("to", query.get("to")),
        group_by=groups if "source" in groups else (*groups, "source"),
    )
    rows = await statements.usage(asked)
    together: dict[tuple[str, ...], list[UsageRow]] = {}
    for row in rows:
        together.setdefault(tuple(row.group[name] for name in groups), []).append(row)
    listed = [{**dict(zip(groups, group, strict=True)), **_figures(each)} for group, each in together.items()]
    return {"object": "list", "currency": "USD", "data": listed, "total": _figures(rows)}


def _figures(rows: list[UsageRow]) -> Json:
    saved: dict[str, int] = {}
    for row in rows:
        if row.saved:
            reason = ROUTED if row.group["source"] == "live" else row.group["source"]
            saved[reason] = saved.get(reason, 0) + row.saved
    return {
        "requests": sum(row.requests for row in rows),
        "prompt_tokens": sum(row.prompt_tokens for row in rows),
        "completion_tokens": sum(row.completion_tokens for row in rows),
        "cached_tokens": sum(row.cached_tokens for row in rows),
        "cost_usd": to_usd(sum(row.cost for row in rows)),
        "billed_usd": to_usd(sum(row.billed for row in rows)),
        "saved_usd": to_usd(sum(saved.values())),
        "saved_by": {reason: to_usd(amount) for reason, amount in saved.items()},
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
