"""`python -m benchmarks.budget_race`: a thousand callers race for budgets that are smaller than what they want.

All call at once over HTTP, through a real `headgate serve`, on tenants', users', keys', features', models' and an organisation's
budgets (race_setting.py), each until it is refused for good (race_callers.py). The simulator that plays the provider counts what it
generated for each group of callers; its count at the configured price is what was spent, whatever the gateway says.

What is counted, for each budget and each refusal:

overspent   the provider's bill of the groups under a budget, less its cap. Must be 0 everywhere.
reached     that bill as a share of the cap, when every caller has been refused. Goal: at least 98 %.
wrong       refusals for good (`budget_exceeded`, or `budget_held` as often as a patient client comes back) of a call for which
            every budget that it counts on had free money enough: the cap, less what every call sent before the refusal came back has
            cost in the end, covered the prompt (a token for each byte, 8 for a message) and the longest answer that anybody
            in its group asked for, or its own `max_tokens`. Money of calls in flight is not free: they were served with it. Goal: 0.
close       refusals for good that were not wrong, but whose answer would have fitted after all, as is known afterwards: free
            money lay between what the call would really have cost and what it could have come to.
used        how much of a budget was used when somebody was first refused for good because of it; the least of all budgets.
short       answers that ended before their length and before the caller's own limit, since the gateway asked for fewer
            tokens near the cap.
journal     the gateway's own sum for a group less the provider's. Must be 0.

The exit code is 1 when something that must be 0 is not, or when a call failed for another reason than money. A missed goal fails nothing.

`--replicas N` races through N processes on one Redis and one PostgreSQL, the callers divided among them.

`--url --key --model --upstream-stats` point the same callers at another gateway that leads to a running `headgate simulate`; it is to
have a price of 1 and 4 USD for a million tokens and, to be compared, the budget given as `--cap`. Then the budget is one, and there
is no journal to read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import click
import msgspec
import uvloop

from benchmarks import servers, shared_stores
from benchmarks.race_callers import Call, Caller
from benchmarks.race_setting import PRICE, Cap, Furnished, Group, config, furnish, scaled
from headgate.assembly import open_books
from headgate.budget.budget import UsageQuery
from headgate.config import Config
from headgate.model.money import Usage, from_usd, to_usd

CORES = 2
LONGEST = 75.0
QUICK_CALLERS = 400
REACHED = 0.98
LATENCY_MS = "100"
SDK_RETRIES = 2
"""How often OpenAI's client comes back when nobody tells it otherwise."""

Bill = Mapping[str, int]
"""Nano-USD by group."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One budget, in nano-USD."""

    name: str
    cap: int
    billed: int

    @property
    def overspent(self) -> int:
        """What was spent beyond it."""
        return max(0, self.billed - self.cap)

    @property
    def reached(self) -> float:
        """What was spent of it, 0 to 1."""
        return self.billed / self.cap


class Race(msgspec.Struct, frozen=True, kw_only=True):
    """All that was seen. `journal` is what the gateway itself has counted, None when it cannot be asked."""

    calls: Sequence[Call]
    seconds: float
    caps: tuple[Cap, ...]
    billed: Bill
    journal: Bill | None


class Refusals(msgspec.Struct):
    """Refusals for good: see the head of this file. `used` is a share, 0 to 1."""

    wrong: list[Call] = []
    close: list[Call] = []
    used: float = 1.0


@click.command()
@click.option("--callers", type=click.IntRange(min=1), default=1_000, show_default=True, help="How many call at once.")
@click.option("--quick", is_flag=True, help=f"{QUICK_CALLERS} callers: some seconds.")
@click.option(
    "--replicas", type=click.IntRange(min=0), default=0, help="So many processes on shared stores; 0: one, with files."
)
@click.option("--url", help="Another gateway's base URL, such as http://127.0.0.1:4000/v1.")
@click.option("--key", default="", help="Its API key.")
@click.option("--model", help="The model to ask it for.")
@click.option("--upstream-stats", help="`/_sim/stats` of the simulator behind it.")
@click.option("--cap", help="The budget that was set there, in USD.")
def main(
    callers: int,
    *,
    replicas: int,
    url: str | None,
    key: str,
    model: str | None,
    upstream_stats: str | None,
    cap: str | None,
    quick: bool,
) -> None:
    """Race callers for budgets; JSON on standard output, a table on standard error."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    callers = QUICK_CALLERS if quick else callers
    if url is None:
        race = _ours(callers, replicas)
    elif model is None or upstream_stats is None:
        raise click.UsageError("--url needs --model and --upstream-stats.")
    else:
        group = Group(name=model, tenant="", callers=callers)
        caps = () if cap is None else (Cap(name="its budget", amount=from_usd(cap), groups=(group.name,)),)
        race = uvloop.run(_theirs(group, url, key, upstream_stats, caps))
    report = reported(race)
    click.echo(table(report), err=True)
    click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
    none = to_usd(0)
    sound = report["overspent_usd"] == none and report["journal_differs_usd"] in (None, none)
    sys.exit(0 if sound and not report["failed"] + report["unfinished"] else 1)


def _ours(callers: int, replicas: int) -> Race:
    """Headgate in a folder of its own, with the budgets of race_setting.py."""
    groups = scaled(callers)
    _await_new_day()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headgate-race-")))
        simulator = stack.enter_context(_simulator(folder))
        written, kept = config(simulator.port), folder / "headgate-0" / "kept"
        if replicas:
            written |= {
                "storage": stack.enter_context(shared_stores.postgres()),
                "redis": stack.enter_context(shared_stores.redis()),
            }
            shared_stores.migrate(written, folder)
        furnished = asyncio.run(furnish(written, kept, groups))
        with contextlib.ExitStack() as served:
            running = [
                served.enter_context(servers.headgate(folder / f"headgate-{number}", written))
                for number in range(replicas or 1)
            ]
            urls = [f"http://{servers.HOST}:{one.port}/v1" for one in running]
            calls, seconds = uvloop.run(_run(urls, furnished, groups))
        stats = _stats(f"http://{servers.HOST}:{simulator.port}/_sim/stats")
        journal = asyncio.run(_journal(written, kept))
    billed = {group.name: _cost(stats["by_model"].get(group.name)) for group in groups}
    told = {group.name: journal.get(group.name, 0) for group in groups}
    return Race(calls=calls, seconds=seconds, caps=furnished.caps, billed=billed, journal=told)


async def _theirs(group: Group, url: str, key: str, stats: str, caps: tuple[Cap, ...]) -> Race:
    """Whatever listens at `url`. What the simulator had counted before the race is not its."""
    before = _cost(await asyncio.to_thread(_stats, stats))
    calls, seconds = await _run([url], Furnished({group.name: key}, caps), (group,))
    billed = _cost(await asyncio.to_thread(_stats, stats)) - before
    return Race(calls=calls, seconds=seconds, caps=caps, billed={group.name: billed}, journal=None)


async def _run(urls: Sequence[str], furnished: Furnished, groups: Iterable[Group]) -> tuple[list[Call], float]:
    """Let everybody loose at once, and wait until the last has been refused; all calls, and the seconds it took."""
    began = time.monotonic()
    numbered = enumerate(group for group in groups for _ in range(group.callers))
    name = f"{time.time_ns():x}"
    callers = [
        Caller(urls[number % len(urls)], furnished.keys[group.name], group, number, race=name, latest=began + LONGEST)
        for number, group in numbered
    ]
    lists = await asyncio.gather(*(caller.run() for caller in callers))
    return [call for calls in lists for call in calls], time.monotonic() - began


def verdicts(race: Race) -> list[Verdict]:
    """Each budget with what the provider billed under it."""
    return [
        Verdict(name=cap.name, cap=cap.amount, billed=sum(race.billed[name] for name in cap.groups))
        for cap in race.caps
    ]


def refusals(race: Race) -> Refusals:
    """The refusals for good, judged as the head of this file says."""
    budgets = [(cap, _Free(cap.amount, [call for call in race.calls if call.group in cap.groups])) for cap in race.caps]
    longest = {name: max(call.question.answer for call in race.calls if call.group == name) for name in race.billed}
    found = Refusals()
    for call in race.calls:
        if call.outcome in ("exceeded", "gave up"):
            own = [(money.at(call.ended), cap.amount) for cap, money in budgets if call.group in cap.groups]
            left = min((free for free, _ in own), default=0)
            found.used = min(found.used, max((1 - free / cap for free, cap in own), default=1.0))
            if left >= call.question.need(longest[call.group]):
                found.wrong.append(call)
            elif left >= call.question.cost:
                found.close.append(call)
    return found


class _Free:
    """What is left of a cap when all calls sent before a moment have been paid."""

    def __init__(self, cap: int, calls: Iterable[Call]) -> None:
        paid = sorted((call.sent, call.cost) for call in calls if call.cost)
        self._cap = cap
        self._sent = [sent for sent, _ in paid]
        self._spent = [0, *accumulate(cost for _, cost in paid)]

    def at(self, moment: float) -> int:
        """Nano-USD, at this moment of the callers' clock."""
        return self._cap - self._spent[bisect_left(self._sent, moment)]


def reported(race: Race) -> dict[str, Any]:
    """The findings as JSON; money in USD."""
    found, refused = verdicts(race), refusals(race)
    ends = Counter(call.outcome for call in race.calls)
    journal = None if race.journal is None else {name: race.journal[name] - race.billed[name] for name in race.billed}
    return {
        "callers": ends.total() - ends["served"],
        "calls_served": ends["served"],
        "calls_per_second": round(ends["served"] / race.seconds, 1),
        "seconds": round(race.seconds, 1),
        "overspent_usd": to_usd(sum(verdict.overspent for verdict in found)),
        "least_reached": round(min(verdict.reached for verdict in found), 4) if found else None,
        "refused_for_good": ends["exceeded"],
        "wrong": len(refused.wrong),
        "close": len(refused.close),
        "used_when_refused": round(refused.used, 4),
        "told_to_come_back": sum(call.held for call in race.calls),
        "calls_told_so_more_than_twice": sum(call.held > SDK_RETRIES for call in race.calls),
        "gave_up": ends["gave up"],
        "short": sum(call.short for call in race.calls),
        "failed": ends["failed"],
        "unfinished": ends["unfinished"],
        "what_failed": sorted({call.said for call in race.calls if call.outcome == "failed"})[:5],
        "journal_differs_usd": None if journal is None else to_usd(sum(map(abs, journal.values()))),
        "budgets": [
            {
                "name": one.name,
                "cap_usd": to_usd(one.cap),
                "billed_usd": to_usd(one.billed),
                "overspent_usd": to_usd(one.overspent),
                "reached": round(one.reached, 4),
            }
            for one in found
        ],
    }


_TOLD = (
    "refused_for_good",
    "close",
    "used_when_refused",
    "told_to_come_back",
    "calls_told_so_more_than_twice",
    "gave_up",
    "short",
)


_MONEY = ("name", "cap_usd", "billed_usd", "overspent_usd")


def table(report: Mapping[str, Any]) -> str:
    """The same for people."""
    rows = [
        ("budget", "cap USD", "billed USD", "overspent", "reached"),
        *((*(one[column] for column in _MONEY), f"{100 * one['reached']:.2f} %") for one in report["budgets"]),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    goals = (
        ("overspent", report["overspent_usd"], report["overspent_usd"] == to_usd(0)),
        (
            "least reached, of 1",
            report["least_reached"],
            report["least_reached"] is None or report["least_reached"] >= REACHED,
        ),
        ("refused wrongly", report["wrong"], report["wrong"] == 0),
        ("failed or unfinished", report["failed"] + report["unfinished"], report["failed"] + report["unfinished"] == 0),
        (
            "journal differs from the provider by",
            report["journal_differs_usd"],
            report["journal_differs_usd"] in (None, to_usd(0)),
        ),
    )
    lines += ["", *(f"{'ok  ' if met else 'MISS'}  {name}: {value}" for name, value, met in goals)]
    told = {name: report[name] for name in ("callers", "calls_served", "seconds", *_TOLD)}
    return "\n".join([*lines, "", *(f"{name.replace('_', ' ')}: {value}" for name, value in told.items())])


async def _journal(written: Mapping[str, Any], data: Path) -> dict[str, int]:
    """Nano-USD by deployment, as the gateway's journal has it."""
    async with open_books(Config.model_validate(dict(written)), data) as books:
        rows = await books.statements.usage(UsageQuery(group_by=("deployment",)))
    return {row.group["deployment"]: row.cost for row in rows}


def _simulator(folder: Path) -> Any:
    port = servers.free_port()
    command = [sys.executable, "-m", "headgate", "simulate", "--port", str(port), "--latency-ms", LATENCY_MS]
    return servers.started("simulator", command, port=port, ready="/_sim/stats", folder=folder)


def _stats(url: str) -> dict[str, Any]:
    with urlopen(url, timeout=10) as answer:  # noqa: S310 - where the operator says the simulator is
        found: dict[str, Any] = msgspec.json.decode(answer.read())
    return found


def _cost(counts: Mapping[str, int] | None) -> int:
    """Nano-USD of what the simulator has generated."""
    if counts is None:
        return 0
    return PRICE.charge(Usage(prompt_tokens=counts["prompt_tokens"], completion_tokens=counts["completion_tokens"]))


def _await_new_day() -> None:
    """Budgets of a day end at midnight, UTC; a race that runs across it would race for two."""
    now = datetime.now(UTC)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    left = (midnight - now).total_seconds()
    if left < 2 * LONGEST:
        time.sleep(left + 1)


if __name__ == "__main__":
    main()
