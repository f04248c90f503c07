"""Fittings of jobs: their store, who works them off, and who is told of their ends, as the configuration describes it. Used by assembly
alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from headgate.config import Config
from headgate.config_inference import InferenceConfig, NoticesConfig
from headgate.jobs.jobs import JobStore
from headgate.jobs.lanes import Bounds, Lanes
from headgate.jobs.notices import Heard, Notices, Post, secret_of
from headgate.model.errors import NotFound, Unauthenticated
from headgate.model.ids import Ids
from headgate.model.tenancy import Principal
from headgate.pipeline import Gateway
from headgate.providers.egress import origin_of
from headgate.providers.http import Http, Timeouts
from headgate.providers.quotas import retry_after
from headgate.telemetry.metrics import PrometheusSink
from headgate.tenants.tenants import ENVIRONMENTS_KEY, Tenants
from headgate.worker import Callers, Worker

GRACE = 30.0
"""Seconds that jobs at work may go on when the gateway closes."""
FRESH_SECONDS = 2.0
"""How long is known who a key belongs to, as at every door."""
MOST_KEYS = 10_000


@asynccontextmanager
async def working(
    config: Config, store: JobStore, gateway: Gateway, tenants: Tenants, metrics: PrometheusSink
) -> AsyncIterator[Worker]:
    """The worker over the jobs in a store, at work until this is left. Raises ValueError when the webhook cannot be used."""
    said = config.inference
    async with AsyncExitStack() as stack:
        notices = await _notices(stack, said.webhook, store, metrics)
        worker = Worker(
            gateway,
            store,
            callers_of(tenants),
            new_id=Ids(),
            lanes=Lanes(_bounds(said)),
            patience=said.patience,
            keep=said.keep,
            begins=said.workers == "here",
            ended=None if notices is None else notices.nudge,
            waited=metrics.job_wait,
        )
        stack.push_async_callback(worker.close, GRACE)
        await worker.recover()
        _at_work(stack, worker.run)
        yield worker


def _bounds(said: InferenceConfig) -> Bounds:
    return Bounds(at_work=said.at_work, open=said.open, open_of_a_tenant=said.open_of_a_tenant, bytes=said.bytes)


def callers_of(
    tenants: Tenants, *, now: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
) -> Callers:
    """Who keys belong to now: a job may begin long after its submission, under what its tenant may do by then. `now` is unix seconds."""
    known: dict[tuple[str, str], tuple[Principal, float]] = {}

    async def caller(tenant: str, key: str) -> Principal:
        found, until = known.get((tenant, key), (None, 0.0))
        if found is None or monotonic() >= until:
            found = await _holder(tenants, tenant, key, now())
            if len(known) >= MOST_KEYS:
                del known[next(iter(known))]
            known[tenant, key] = found, monotonic() + FRESH_SECONDS
        return found

    return caller


async def _holder(tenants: Tenants, tenant: str, key: str, now: float) -> Principal:
    try:
        policy = (await tenants.get(tenant)).policy
    except NotFound:
        raise _gone() from None
    above = await tenants.organisations.lineage(policy.organisation)
    if key == ENVIRONMENTS_KEY:
        return Principal(tenant=tenant, organisations=above, policy=policy, key=key, role="admin")
    for record in await tenants.list_keys(tenant):
        if record.id == key and record.revoked is None and (record.expires is None or record.expires > now):
            return Principal(
                tenant=tenant, organisations=above, policy=policy, key=key, role=record.role, user=record.user
            )
    raise _gone()


def _gone() -> Unauthenticated:
    return Unauthenticated("The API key with which this was submitted is not valid any more.")


async def _notices(
    stack: AsyncExitStack, said: NoticesConfig | None, store: JobStore, metrics: PrometheusSink
) -> Notices | None:
    """Who tells the operator's webhook, at work until the stack is left; None where there is none."""
    if said is None:
        return None
    http, path = _connection(said)
    stack.push_async_callback(http.close)
    secret = secret_of(said.secret.get_secret_value())
    notices = Notices(store, _poster(http, path, said.timeout), secret=secret, observe=metrics.job_notice)
    _at_work(stack, notices.run)
    return notices


def _connection(said: NoticesConfig) -> tuple[Http, str]:
    """The client of the webhook, and what follows its address' path in a request."""
    url, mark, query = said.url.partition("?")
    origin = origin_of(url, allow_private=said.allow_private)
    http = Http(
        origin,
        name="the webhook of submitted requests",
        allow_private=said.allow_private,
        timeouts=Timeouts(connect=min(5.0, said.timeout), first_byte=said.timeout, idle=said.timeout),
    )
    return http, ("" if origin.path else "/") + mark + query


def _poster(http: Http, path: str, seconds: float) -> Post:
    async def post(body: bytes, headers: Mapping[str, str]) -> Heard:
        answer = await http.post(path, body, timeout=seconds, headers=headers)
        heard = Heard(answer.status, retry_after(answer.header, time.time()))
        answer.finish()
        return heard

    return post


def _at_work(stack: AsyncExitStack, run: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run this until the stack is left."""
    task = asyncio.create_task(run())

    async def stopped() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(stopped)
