"""Pace: is a task becoming dearer than it was?

Compared with its own past: what a call of one tenant, feature and route cost on average during the last day, against the seven
days before. Answers from the cache count as calls, so a cache that stops answering is noticed as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headgate.budget.budget import Statements, UsageQuery, UsageRow
from headgate.model.money import to_usd

GROUP = ("tenant", "feature", "route")
DAY = 86_400.0
PAST_DAYS = 7
TELL_ABOVE = 15
"""Percent by which a task must have become dearer."""
FEWEST = 100
"""Calls that there must be in the last day, and in the days before: the average of a few calls says nothing."""
LEAST_NANO = 10_000_000
"""Nano-USD ($0.01) that the increase must have come to in the last day."""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """A task that became dearer by `percent`. Amounts are decimal USD for one call, the last day's and the past's."""

    tenant: str
    feature: str
    route: str
    percent: int
    usd_per_call: str
    past_usd_per_call: str
    calls: int


def dearer(recent: Sequence[UsageRow], past: Sequence[UsageRow]) -> list[Pace]:
    """The tasks whose average cost rose by more than TELL_ABOVE percent, dearest increase first. Rows are grouped by GROUP.

    Pure and in whole numbers: a / b > c / d is asked as a * d > c * b.
    """
    before = {_task(row): row for row in past}
    found = []
    for row in recent:
        old = before.get(_task(row))
        if old is None or row.requests < FEWEST or old.requests < FEWEST or not old.cost:
            continue
        excess = row.cost * old.requests - old.cost * row.requests
        if excess * 100 <= TELL_ABOVE * old.cost * row.requests or excess < LEAST_NANO * old.requests:
            continue
        pace = Pace(
            **row.group,
            percent=excess * 100 // (old.cost * row.requests),
            usd_per_call=to_usd(row.cost // row.requests),
            past_usd_per_call=to_usd(old.cost // old.requests),
            calls=row.requests,
        )
        found.append((excess / old.requests, pace))
    return [pace for _, pace in sorted(found, key=lambda pair: -pair[0])]


async def dearer_now(statements: Statements, now: float) -> list[Pace]:
    """The tasks that became dearer, as the journal says at the unix time `now`."""
    recent = await statements.usage(UsageQuery(since=now - DAY, until=now, group_by=GROUP))
    past = await statements.usage(UsageQuery(since=now - (1 + PAST_DAYS) * DAY, until=now - DAY, group_by=GROUP))
    return dearer(recent, past)


def _task(row: UsageRow) -> tuple[str, ...]:
    return tuple(row.group[name] for name in GROUP)
