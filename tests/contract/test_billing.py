"""Billing out, from a ledger's file to a service's books: over real HTTP, through every way in which that goes wrong."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import hmac
import io
import json
import random
import re
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from headgate.assembly import open_books, open_engine
from headgate.billing.billing import BILLED, Place, event_id
from headgate.billing.pump import LOOK, Pump
from headgate.billing.sqlite import SqliteOutbox
from headgate.budget.budget import Entry, Hold, Scope, UsageQuery
from headgate.budget.sqlite import SqliteLedger
from headgate.budget.tail import Tail
from headgate.config import Config
from headgate.fittings_billing import feed_of, rewind, sink_exporter
from headgate.model.errors import Conflict
from headgate.model.money import Usage, to_usd
from tests.contract.billing_service import FAULTS, SERVICES, Service, serving
from tests.contract.house import House
from tests.unit.budget.backups import back_up, restore

SINKS = {
    "stripe": {"api_key": "sk_test", "event": "spend"},
    "openmeter": {"event": "spend"},
    "lago": {"api_key": "key", "event": "spend"},
    "webhook": {"secret": "whsec"},
}
MOST_TURNS = 400


class Clock:
    def __init__(self) -> None:
        self.now = 1_795_176_000.0

    def __call__(self) -> float:
        return self.now


async def call(ledger: SqliteLedger, id: str, *costs: int, tenant: str = "t_1", lost: bool = False) -> None:
    """A call with so many attempts, as the gateway makes it."""
    entry = Entry(tenant=tenant, route="auto", model="m", deployment="d", usage=Usage(prompt_tokens=3), source="live")
    total = sum(costs)
    scopes = (Scope(f"tenant:{tenant}", "total"),)
    await ledger.reserve(Hold(id=id, scopes=scopes, amount=total, least=total, lease=60.0, entry=entry))
    await ledger.dispatched(id)
    if not lost:
        ledger.settle(id, [Entry(**{**fields(entry), "amount": cost}) for cost in costs])


def fields(entry: Entry) -> dict:
    return {name: getattr(entry, name) for name in Entry.__struct_fields__}


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A ledger in which calls of three tenants had one attempt or several, some were answered from stock, and two never ended."""
    path, chance = tmp_path / "headgate.db", random.Random(7)
    ledger = SqliteLedger(path)
    for number in range(40):
        tenant = f"t_{number % 3}"
        await call(
            ledger, f"call-{number}", *[chance.randrange(1, 10**9) for _ in range(1 + number % 3)], tenant=tenant
        )
        hit = Entry(tenant=tenant, model="m", source="exact", billed=chance.randrange(0, 2) * 777, saved=5)
        ledger.note(f"hit-{number}", hit)
    await call(ledger, "lost-1", 123_456_789, lost=True)
    await ledger.close()
    await SqliteLedger(path).close()
    return path


class Billing:
    """One sink of a configuration, with its own clock and chance; `restart` is a new process on the same files."""

    def __init__(self, kind: str, url: str, path: Path, clock: Clock | None = None) -> None:
        self.clock, self.path = clock or Clock(), path
        sink = {"kind": kind, "url": url, "allow_private": True, "timeout": "200ms", **SINKS[kind]}
        self.config = Config.model_validate({"billing": {"out": sink}}).billing["out"]
        self.chance = random.Random(3)
        self.customers = {"t_0": "cus_0", "t_1": "cus_1", "t_2": "cus_2"}

    async def __aenter__(self) -> Billing:
        self.http, exporter = sink_exporter("out", self.config, self.path.parent)
        self.tail = Tail(self.path)
        self.outbox = SqliteOutbox(self.path.with_name("outbox.db"))
        self.pump = Pump(
            "out", exporter, self.outbox, feed_of(self.tail), self.customer, now=self.clock, draw=self.chance.random
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self.tail.close()
        await self.outbox.close()
        if self.http is not None:
            await self.http.close()

    async def customer(self, tenant: str) -> str | None:
        return self.customers.get(tenant)

    async def settle(self) -> None:
        """Turn after turn, an hour apart, until nothing waits."""
        for _ in range(MOST_TURNS):
            while await self.pump.turn() == 0.0:
                pass
            standings = await self.outbox.standings()
            if not standings[0].pending:
                return
            self.clock.now += 600.0
        raise AssertionError(standings)


async def owed(path: Path) -> tuple[dict[str, Decimal], Decimal]:
    """What the journal says: by event, and in all."""
    tail = Tail(path)
    _, lines = await feed_of(tail)(Place(), BILLED, 10_000)
    tail.close()
    ledger = SqliteLedger(path)
    total = sum(row.billed for row in await ledger.usage(UsageQuery()))
    await ledger.close()
    return {event_id("out", line): Decimal(line.billed) / 10**9 for line in lines if line.billed}, Decimal(
        total
    ) / 10**9


@pytest.mark.parametrize("kind", SERVICES)
async def test_through_every_fault_the_sum_delivered_is_the_journals(kind: str, path: Path) -> None:
    wanted, total = await owed(path)
    async with serving(SERVICES[kind]) as (service, url), Billing(kind, url, path) as billing:
        chance = random.Random(11)
        service.faults = [fault for fault in FAULTS for _ in range(2)] + chance.choices(FAULTS, k=20)
        chance.shuffle(service.faults)
        await billing.settle()
        assert service.taken == wanted
        assert sum(service.taken.values()) == total
        (standing,) = await billing.outbox.standings()
        assert (standing.parked, to_usd(standing.delivered_billed)) == (0, to_usd(int(total * 10**9)))


@pytest.mark.parametrize("kind", SERVICES)
async def test_poison_rows_are_parked_alone_and_delivered_when_mended(kind: str, path: Path) -> None:
    wanted, _ = await owed(path)
    async with serving(SERVICES[kind]) as (service, url), Billing(kind, url, path) as billing:
        service.poison = set(list(wanted)[5:50:9])
        service.faults = ["lost", "ok", "late", "503"]
        await billing.settle()
        assert service.taken == {id: amount for id, amount in wanted.items() if id not in service.poison}
        parked = await billing.outbox.parked("out", 100)
        assert {event.id for event in parked} == service.poison
        assert all(re.match("4[0-9][0-9]: ", event.reason) for event in parked)
        service.poison = set()
        await billing.outbox.retry("out")
        await billing.settle()
        assert service.taken == wanted


@pytest.mark.parametrize("kind", SERVICES)
async def test_a_process_that_ends_at_any_moment_is_followed_by_one_that_sends_the_rest(kind: str, path: Path) -> None:
    """Each process ends while its fourth request is under way; none knows more than the files."""
    wanted, _ = await owed(path)
    async with serving(SERVICES[kind]) as (service, url):
        for _ in range(12):
            service.faults = [*["ok"] * 3, "silent"]
            async with Billing(kind, url, path) as billing:
                running = asyncio.create_task(billing.pump.turn())
                while service.faults and not running.done():
                    await asyncio.sleep(0)
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
        service.faults = []
        async with Billing(kind, url, path) as billing:
            await billing.settle()
        assert service.taken == wanted


async def test_stripe_parks_the_rows_of_a_tenant_without_a_customer(path: Path) -> None:
    wanted, _ = await owed(path)
    async with serving(SERVICES["stripe"]) as (service, url), Billing("stripe", url, path) as billing:
        del billing.customers["t_1"]
        await billing.settle()
        parked = await billing.outbox.parked("out", 1_000)
        assert {event.tenant for event in parked} == {"t_1"}
        assert service.taken.keys() | {event.id for event in parked} == wanted.keys()
        billing.customers["t_1"] = "cus_1"
        await billing.outbox.retry("out")
        await billing.settle()
        assert service.taken == wanted


async def test_each_service_is_asked_at_its_own_path_with_its_own_media_type(path: Path) -> None:
    heads = {}
    for kind, take in SERVICES.items():
        async with serving(take) as (service, url), Billing(kind, url, path) as billing:
            await billing.pump.turn()
            heads[kind] = service.heads[0].lower()
        path.with_name("outbox.db").unlink()
    assert heads["stripe"].startswith("post /v1/billing/meter_events http/1.1")
    assert "content-type: application/x-www-form-urlencoded" in heads["stripe"]
    assert "authorization: bearer sk_test" in heads["stripe"]
    assert heads["openmeter"].startswith("post /api/v1/events http/1.1")
    assert "content-type: application/cloudevents-batch+json" in heads["openmeter"]
    assert heads["lago"].startswith("post /api/v1/events/batch http/1.1")
    assert heads["webhook"].startswith("post / http/1.1")
    assert "headgate-signature: t=" in heads["webhook"]


async def test_a_restored_backup_stops_a_sink_until_somebody_says_where_to_go_on(tmp_path: Path, caplog) -> None:
    path, backup, clock = tmp_path / "headgate.db", tmp_path / "backup.db", Clock()

    async def serve(*ids: str) -> None:
        ledger = SqliteLedger(path, now=clock)
        for id in ids:
            await call(ledger, id, 10**9)
        await ledger.close()
        clock.now += 60.0

    await serve("a", "b")
    back_up(path, backup)
    await serve("c", "d")
    async with serving(SERVICES["lago"]) as (service, url):
        async with Billing("lago", url, path, clock) as billing:
            await billing.settle()
        restore(backup, path)
        clock.now += 600.0
        async with Billing("lago", url, path, clock) as billing:
            for more in ([], ["w", "x", "y", "z"]):
                await serve(*more)
                assert await billing.pump.turn() == LOOK
            assert "Row 8 of the journal" in billing.pump.standing.stopped
            assert [record.levelname for record in caplog.records] == ["ERROR"]
            assert len(service.taken) == 4
            fork = await rewind("out", billing.tail, billing.outbox, now=clock())
            assert (fork.place[0], fork.rows, fork.billed) == (4, 4, 4 * 10**9)
            assert await billing.pump.turn() == LOOK
            await rewind("out", billing.tail, billing.outbox, really=True, now=clock())
            await billing.settle()
            (standing,) = await billing.outbox.standings()
            with pytest.raises(Conflict, match="nothing to go back from"):
                await rewind("out", billing.tail, billing.outbox, really=True, now=clock())
    assert (standing.delivered, standing.delivered_billed, standing.stopped) == (8, 8 * 10**9, "")
    assert len(service.taken) == 8
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


async def test_the_end_of_a_call_that_the_backup_cut_in_two_waits_for_somebody_who_looks(tmp_path: Path) -> None:
    path, backup, clock = tmp_path / "headgate.db", tmp_path / "backup.db", Clock()
    ledger = SqliteLedger(path, now=clock)
    await call(ledger, "cut", 10**9, lost=True)
    back_up(path, backup)
    ledger.settle("cut", [Entry(tenant="t_1", route="auto", model="m", amount=10**8, billed=10**8)])
    await ledger.close()
    async with serving(SERVICES["lago"]) as (service, url), Billing("lago", url, path, clock) as billing:
        await billing.settle()
        (told,) = service.taken
    restore(backup, path)
    clock.now += 60.0
    ledger = SqliteLedger(path, now=clock)
    await call(ledger, "new", 5)
    await ledger.close()
    async with serving(SERVICES["lago"]) as (service, url), Billing("lago", url, path, clock) as billing:
        await billing.pump.turn()
        await rewind("out", billing.tail, billing.outbox, really=True, now=clock())
        await billing.settle()
        (parked,) = await billing.outbox.parked("out", 10)
        assert parked.reason.endswith(f"retry only if the sink has neither this nor {told}")
        assert (parked.billed, len(service.taken)) == (10**9, 1)
        await billing.outbox.retry("out")
        await billing.settle()
        assert parked.id in service.taken


@pytest.fixture
async def alerted(tmp_path: Path) -> AsyncIterator[tuple[Service, str, Path]]:
    async with serving(SERVICES["webhook"]) as (service, url):
        yield service, url, tmp_path


async def test_a_server_posts_thresholds_and_writes_what_tenants_owe(alerted, tmp_path: Path) -> None:
    service, url, data = alerted
    config = Config.model_validate(
        {
            "billing": {"rows": {"kind": "jsonl", "file": "owed.jsonl"}},
            "alerts": {"url": f"{url}/hook?team=1", "secret": "whsec", "allow_private": True},
            "cache": {"semantic": {"mode": "off"}},
            "telemetry": {"log": "off"},
            "tenant_defaults": {"budget": {"hour": "1.00"}},
        }
    )
    async with asyncio.timeout(20), open_engine(config, data) as engine:
        ledger = engine.gateway.budget.ledger
        (allowance,) = [one for one in engine.gateway.budget.allowances.of_tenant("default") if one.window == "hour"]
        scope = Scope("tenant:default", "hour:2026-11-20T12", cap=10**9, allowance=allowance)
        entry = Entry(tenant="default", model="m", amount=850_000_000)
        await ledger.reserve(Hold(id="x", scopes=(scope,), amount=9 * 10**8, least=9 * 10**8, lease=60.0, entry=entry))
        await ledger.dispatched("x")
        ledger.settle("x", [entry])
        # Acknowledged, not only sent: who leaves between the two has it sent once more.
        while {one.sink: one.delivered for one in await engine.outbox.standings()} != {"rows": 1, "alerts": 2}:
            await asyncio.sleep(0.01)
        metrics = engine.metrics.render().decode()
    told = [json.loads(body) for body in service.bodies]
    assert [one["data"]["percent"] for one in told] == [50, 80]
    assert told[1]["data"]["spent"] == "0.85"
    for head, body in zip(service.heads, service.bodies, strict=True):
        assert head.startswith("POST /hook?team=1 HTTP/1.1")
        at, signed = re.search(r"headgate-signature: t=(\d+),v1=(\w+)", head).groups()
        assert signed == hmac.new(b"whsec", f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    assert 'headgate_budget_alerts_total{percent="80",tenant="default",window="hour"} 1.0' in metrics
    (row,) = [json.loads(line) for line in (data / "owed.jsonl").read_text().splitlines()]
    assert (row["tenant"], row["billed_usd"]) == ("default", "0.85")
    async with open_books(config, data) as books:
        found = {one.sink: one for one in await books.outbox.standings()}
    assert (found["rows"].delivered, found["alerts"].delivered) == (1, 2)


def test_a_tenant_reads_its_own_usage_and_its_own_statement_only(house: House) -> None:
    mine, other = house.tenant(), house.tenant()
    for tenant in (mine, other):
        body = {"model": "small", "messages": [{"role": "user", "content": f"Name a colour, {tenant.id}."}]}
        for _ in range(2):
            assert house.request("POST", "/v1/chat/completions", body, key=tenant.key).status == 200
    usage = house.request("GET", "/v1/usage?group_by=tenant,source", key=mine.key).json
    assert {row["tenant"] for row in usage["data"]} == {mine.id}
    assert usage["total"]["requests"] == 2
    assert Decimal(usage["total"]["billed_usd"]) == Decimal(usage["total"]["cost_usd"]) > 0
    assert usage["total"]["saved_by"] == {"exact": usage["total"]["saved_usd"]}
    assert house.request("GET", "/v1/usage?tenant=" + other.id, key=mine.key).status == 400
    month = _this_month(house)
    assert house.request("GET", f"/v1/statement?month={month}", key=mine.key).status == 403
    boss = house.request("POST", "/admin/keys", {"tenant": mine.id, "role": "tenant_admin"}).json["key"]
    sheet = house.request("GET", f"/v1/statement?month={month}&format=csv", key=boss)
    assert sheet.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(sheet.body.decode())))
    assert rows[-1]["day"] == "total"
    assert {name: rows[-1][name] for name in ("requests", "cost_usd", "billed_usd", "saved_usd")} == {
        name: str(usage["total"][name]) for name in ("requests", "cost_usd", "billed_usd", "saved_usd")
    }
    page = house.request("GET", f"/v1/statement?month={month}", key=boss)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert mine.name in page.body.decode()
    assert other.id not in page.body.decode()
    assert house.request("GET", f"/admin/statements/{mine.name}?month={month}&format=csv").body == sheet.body


def _this_month(house: House) -> str:
    days = house.request("GET", "/admin/usage?group_by=day").json["data"]
    return str(max(row["day"] for row in days)[:7])


@pytest.mark.parametrize(
    ("query", "param"),
    [("", "month"), ("month=2026-13", "month"), ("month=26-1", "month"), ("month=2026-11&format=pdf", "format"),
     ("month=9998-12", None), ("month=9999-12", "month"), ("month=0000-01", "month"), ("month=2026-11/../x", "month"), ("when=2026-11", "when")],
)  # fmt: skip
def test_a_month_or_a_format_there_is_not_is_refused(house: House, query: str, param: str | None) -> None:
    boss = house.request("POST", "/admin/keys", {"tenant": house.tenant().id, "role": "tenant_admin"}).json["key"]
    answer = house.request("GET", f"/v1/statement?{query}", key=boss)
    if param is None:
        assert answer.status == 200
    else:
        assert (answer.status, answer.error["param"]) == (400, param)


def test_operators_see_where_sinks_stand(house: House) -> None:
    assert house.request("GET", "/admin/billing").json["object"] == "list"
    assert house.request("GET", "/admin/billing/nowhere/parked").status == 404
    assert house.request("POST", "/admin/billing/nowhere/retry", {"ids": ["x"]}).status == 404
    assert house.request("POST", "/admin/billing/nowhere/retry", {"id": "x"}).status == 400
    assert house.request("GET", "/admin/billing", key=house.tenant().key).status == 403
