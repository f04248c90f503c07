"""Usage as JSON: the same report for a tenant (`GET /v1/usage`) and for an operator (`GET /admin/usage`)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from headgate.budget.budget import Statements, UsageQuery, UsageRow
from headgate.model.chat import Json
from headgate.model.errors import InvalidRequest
from headgate.model.money import to_usd


async def usage_report(statements: Statements, tenant: str | None, query: Mapping[str, str]) -> Json:
    """Sum the journal as `from`, `to` and `group_by` of the query string say. Raises InvalidRequest."""
    unknown = set(query) - {"from", "to", "group_by", "tenant"}
    if unknown:
        raise InvalidRequest(f"Unknown parameter `{min(unknown)}`.", param=min(unknown))
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
    if text is None or text == "":
        return None
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(
            f"`{name}` must be unix seconds or an ISO date such as 2026-11-20.", param=name
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
