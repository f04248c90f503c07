"""Fittings of billing: sinks and their pumps as the configuration describes them. Used by assembly alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from headgate.billing import lago, openmeter, stripe
from headgate.billing.billing import ALERTS, BILLED, Event, Exporter, Line, Outbox, Place, event_id
from headgate.billing.files import RowFile
from headgate.billing.lago import Lago
from headgate.billing.openmeter import OpenMeter
from headgate.billing.post import Answer, Post
from headgate.billing.pump import Customers, Feed, Pump
from headgate.billing.stripe import Stripe
from headgate.billing.webhook import Webhook
from headgate.budget.posted import Fork, JournalTail, Posted
from headgate.config import Config, SinkConfig
from headgate.model.errors import Conflict, NotFound, UpstreamError
from headgate.providers.egress import origin_of
from headgate.providers.http import Http, Timeouts
from headgate.providers.quotas import retry_after
from headgate.telemetry.metrics import PrometheusSink
from headgate.tenants.tenants import Tenants

ALERT_SINK = "alerts"
"""The sink that the section `alerts` makes."""
MOST_OF_ANSWER = 65_536
KNOWN_SECONDS = 30.0
"""How long a customer's name is used without asking again."""
FRESH_SECONDS = 2.0
"""The same for a tenant that has none: an operator may just have set it."""

_PATHS = {"stripe": stripe.PATH, "openmeter": openmeter.PATH, "lago": lago.PATH}
_URLS = {"stripe": stripe.URL, "lago": lago.URL}
_MEDIA_TYPES = {"stripe": stripe.MEDIA_TYPE, "openmeter": openmeter.MEDIA_TYPE}


@asynccontextmanager
async def running_pumps(
    config: Config, data: Path, *, tail: JournalTail, outbox: Outbox, tenants: Tenants, metrics: PrometheusSink
) -> AsyncIterator[None]:
    """A pump for each sink of the configuration, at work until this is left. Raises ValueError when a sink cannot be used."""
    sinks = dict(config.billing)
    if config.alerts is not None:
        sinks[ALERT_SINK] = config.alerts.sink()
    feed, customers = feed_of(tail), customers_of(tenants)
    async with AsyncExitStack() as stack:
        pumps = []
        for name, sink in sinks.items():
            http, exporter = sink_exporter(name, sink, data)
            if http is not None:
                stack.push_async_callback(http.close)
            since = 0.0 if sink.since is None else datetime.combine(sink.since, datetime.min.time(), UTC).timestamp()
            pumps.append(Pump(name, exporter, outbox, feed, customers, since=since))
        _show(pumps, metrics)
        tasks = [asyncio.create_task(pump.run()) for pump in pumps]
        stack.push_async_callback(_stopped, tasks)
        yield


async def _stopped(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _show(pumps: Sequence[Pump], metrics: PrometheusSink) -> None:
    def events() -> dict[tuple[str, ...], float]:
        counts: dict[tuple[str, ...], float] = {}
        for pump in pumps:
            counts[pump.sink, "pending"] = pump.standing.pending
            counts[pump.sink, "parked"] = pump.standing.parked
        return counts

    metrics.gauge("headgate_billing_events", events, ("sink", "state"))
    metrics.gauge("headgate_billing_oldest_seconds", lambda: {(pump.sink,): pump.oldest() for pump in pumps}, ("sink",))
    metrics.gauge(
        "headgate_billing_stopped", lambda: {(pump.sink,): bool(pump.standing.stopped) for pump in pumps}, ("sink",)
    )


def sink_exporter(name: str, sink: SinkConfig, data: Path) -> tuple[Http | None, Exporter]:
    """What speaks to a sink, and the connections that it needs, to be closed by whoever asked. Raises ValueError."""
    if sink.kind in ("csv", "jsonl"):
        return None, RowFile(data / (sink.file or f"{name}.{sink.kind}"), sink.kind)
    http, path = _connection(name, sink)
    post = poster(http, path, sink.timeout)
    if sink.kind == "webhook":
        secret = None if sink.secret is None else sink.secret.get_secret_value()
        return http, Webhook(post, secret=secret, kinds=ALERTS if name == ALERT_SINK else BILLED)
    if sink.kind == "stripe":
        remembers = stripe.REMEMBERS if sink.remembers is None else sink.remembers
        return http, Stripe(post, event=sink.event, value=sink.value or "nano_usd", remembers=remembers)
    value = sink.value or "usd"
    if sink.kind == "lago":
        return http, Lago(post, event=sink.event, value=value, remembers=sink.remembers)
    return http, OpenMeter(post, event=sink.event, value=value, source=sink.source, remembers=sink.remembers)


def _connection(name: str, sink: SinkConfig) -> tuple[Http, str]:
    """The client of a sink, and the path that events are posted to, beneath that of its address."""
    url, mark, query = (sink.url or _URLS[sink.kind]).partition("?")
    origin = origin_of(url, allow_private=sink.allow_private)
    path = _PATHS.get(sink.kind) or ("" if origin.path else "/")
    http = Http(
        origin,
        name=f"billing sink {name}",
        headers={} if sink.api_key is None else {"authorization": f"Bearer {sink.api_key.get_secret_value()}"},
        content_type=_MEDIA_TYPES.get(sink.kind, "application/json"),
        allow_private=sink.allow_private,
        timeouts=Timeouts(connect=min(5.0, sink.timeout), first_byte=sink.timeout, idle=sink.timeout),
    )
    return http, path + mark + query


def poster(http: Http, path: str, seconds: float) -> Post:
    """Posts bodies to one path; a whole exchange has so many seconds."""

    async def post(body: bytes, headers: Mapping[str, str]) -> Answer:
        answer = await http.post(path, body, timeout=seconds, headers=headers)
        content = b""
        try:
            wait = retry_after(answer.header, time.time())
            while len(content) < MOST_OF_ANSWER and (piece := await answer.read()):
                content += piece
        except UpstreamError:
            # Taken is taken; but why something was not taken, half an answer does not say.
            if not 200 <= answer.status < 300:
                raise
        finally:
            answer.close()
        return Answer(answer.status, content, wait)

    return post


def feed_of(tail: JournalTail) -> Feed:
    """The journal's rows as billing reads them."""

    async def feed(after: Place, kinds: Sequence[str], limit: int) -> tuple[Place, list[Line]]:
        (row, checksum), rows = await tail.rows((after.row, after.checksum), kinds, limit)
        return Place(row, checksum), [_line(row) for row in rows]

    return feed


async def rewind(
    sink: str, tail: JournalTail, outbox: Outbox, *, since: float | None = None, really: bool = False, now: float
) -> Fork:
    """Let a sink go on in a journal that was replaced: behind the last row that both journals have, so nothing that it was told
    is told again, and everything else is. What that is; only if `really`, it is done.

    The end of a call that had begun before is parked: the sink may have been told another end of it. `since`: the unix time from
    which on rows are new, when the outbox' own clock was wrong. Raises Conflict as `JournalTail.fork` does.
    """
    before = await outbox.place(sink)
    moment = before.at if since is None else since
    kinds = ALERTS if sink == ALERT_SINK else BILLED
    fork = await tail.fork((before.row, before.checksum), moment, kinds)
    if really:
        parked = [_cut_off(sink, _line(row), now) for row in fork.cut_off]
        if not await outbox.rewind(sink, before, parked, Place(*fork.place, at=moment)):
            raise Conflict(f"Billing sink {sink} was moved by somebody else meanwhile.")
    return fork


def _cut_off(sink: str, line: Line, now: float) -> Event:
    """The event of a call that the journal saw begin, and of which it had not seen the end when it was replaced."""
    other = event_id(sink, replace(line, kind="settle"))
    reason = f"its call had begun before the journal was replaced: retry only if the sink has neither this nor {other}"
    return Event(
        id=event_id(sink, line),
        seq=line.seq,
        tenant=line.tenant,
        billed=line.billed,
        body=None,
        made=now,
        reason=reason,
    )


def _line(row: Posted) -> Line:
    entry = row.entry
    return Line(
        seq=row.seq,
        id=row.id,
        kind=row.kind,
        attempt=row.attempt,
        at=row.at,
        tenant=entry.tenant,
        key=entry.key,
        user=entry.user,
        feature=entry.feature,
        route=entry.route,
        model=entry.model,
        deployment=entry.deployment,
        source=entry.source,
        amount=entry.amount,
        billed=entry.billed,
        saved=entry.saved,
        prompt_tokens=entry.usage.prompt_tokens,
        completion_tokens=entry.usage.completion_tokens,
        cached_tokens=entry.usage.cached_tokens,
        detail=row.detail,
    )


def customers_of(tenants: Tenants, *, monotonic: Callable[[], float] = time.monotonic) -> Customers:
    """What tenants are called by whoever bills them. One that was deleted is called as it was last."""
    known: dict[str, tuple[str | None, float]] = {}

    async def customer(tenant: str) -> str | None:
        name, until = known.get(tenant, (None, 0.0))
        if monotonic() >= until:
            with suppress(NotFound):
                name = (await tenants.get(tenant)).policy.customer
            known[tenant] = name, monotonic() + (FRESH_SECONDS if name is None else KNOWN_SECONDS)
        return name

    return customer
