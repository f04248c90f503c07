"""The demo: real processes, real HTTP, the bundled trace, and an honest report.

Two simulated providers and a gateway are started as a user would start them. The trace is first sent straight to the dear
provider, which tells what it costs without a gateway and what the right answers are; then through Headgate. The gateway's
ledger is read last, from its file: killing the gateway in the middle is allowed, and the report then says what was lost.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import msgspec

from headgate.assembly import read_ledger
from headgate.demo import setting
from headgate.demo.children import Child, control, headgate
from headgate.demo.replay import Client, Outcome, replay, straight
from headgate.demo.report import Report, Spend, make_report
from headgate.demo.setting import CHEAP, RICH
from headgate.demo.trace import MIDDLE, TENANTS, TraceRequest, load

ADMIN_KEY = "hg-demo-admin"


class Progress(Protocol):
    """Tells how far it is."""

    def __call__(self, what: str, of: int) -> Callable[[], None]:
        """Begin a stretch of `of` steps; what is returned is called after each."""
        ...


class Demo:
    """One run in one folder."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        """`folder` holds the gateway's data, its configuration and the logs of all processes."""
        self.folder = folder
        self.data = folder / "data"
        self.gateway: Child | None = None
        self._progress = progress

    async def run(
        self,
        trace: list[TraceRequest] | None = None,
        *,
        meanwhile: tuple[float, Callable[[], Awaitable[object]]] | None = None,
        outage: bool = True,
    ) -> Report:
        """Everything from start to report.

        `meanwhile` is (seconds, what to do then), for those who break things on purpose; `outage`: whether the cheap provider
        goes down in the middle, which bills for answers that broke off while nobody could see how much of them was made.

        Raises ChildError when a process does not start.
        """
        trace = load() if trace is None else trace
        self.folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        async with AsyncExitStack() as stack:
            providers = {model: await stack.enter_async_context(self._provider(model)) for model in (CHEAP, RICH)}
            direct = await straight(
                trace,
                providers[RICH].url,
                RICH,
                concurrency=setting.CONCURRENCY,
                done=self._progress("straight to the provider", len(trace)),
            )
            without = _billed({RICH: await _stats(providers[RICH])})
            for provider in providers.values():
                await control(f"{provider.url}/_sim/reset", {})
            events = [
                *([(MIDDLE, lambda: _outage(providers[CHEAP]))] if outage else []),
                *([] if meanwhile is None else [meanwhile]),
            ]
            outcomes, died = await self._through_headgate(trace, providers, events)
            stats = {model: await _stats(provider) for model, provider in providers.items()}
        billed, lost = await read_ledger(self.data / "headgate.db")
        spend = Spend(
            without=without,
            without_cache=sum(one.cost if one.source == "live" else one.cost + one.saved for one in outcomes),
            with_headgate=_billed(stats),
            journal=billed,
            lost=lost,
        )
        return make_report(
            outcomes,
            direct,
            spend=spend,
            provider_calls=sum(one["calls"] for one in stats.values()),
            seconds=time.monotonic() - began,
            died=died,
        )

    async def _through_headgate(
        self,
        trace: list[TraceRequest],
        providers: dict[str, Child],
        events: list[tuple[float, Callable[[], Awaitable[object]]]],
    ) -> tuple[list[Outcome], bool]:
        async with AsyncExitStack() as inner:
            gateway: Child = await inner.enter_async_context(self._headgate(providers))
            self.gateway = gateway
            clients = {}
            for tenant in TENANTS:
                clients[tenant] = Client(gateway.url, await _key(gateway, tenant))
                inner.push_async_callback(clients[tenant].close)
            done = self._progress("through Headgate", len(trace))
            outcomes = await replay(trace, clients, done=done, events=events)
            died = not gateway.alive
        return outcomes, died

    def _provider(self, model: str) -> AbstractAsyncContextManager[Child]:
        return headgate(
            "simulate",
            "--port=0",
            f"--latency-ms={setting.LATENCY_MS[model]}",
            f"--tokens-per-s={setting.TOKENS_PER_SECOND[model]}",
            says=b"simulator listening",
            log=self.folder / f"{model}.log",
            environ={},
        )

    def _headgate(self, providers: dict[str, Child]) -> AbstractAsyncContextManager[Child]:
        path = self.folder / "headgate.yaml"
        path.write_text(json.dumps(setting.config({model: one.url for model, one in providers.items()}), indent=2))
        return headgate(
            "serve",
            f"--config={path}",
            f"--data={self.data}",
            "--port=0",
            says=b"Headgate listens",
            log=self.folder / "headgate.log",
            environ={"HEADGATE_ADMIN_KEY": ADMIN_KEY},
        )


async def _outage(provider: Child) -> None:
    rule = [{"fault": f"refuse:{setting.OUTAGE_SECONDS}", "calls": {"from": 1, "to": 1}}]
    await control(f"{provider.url}/_sim/script", rule)


async def _key(gateway: Child, tenant: str) -> str:
    admin = f"{gateway.url}/admin"
    await control(f"{admin}/tenants", {"name": tenant, "budget": setting.budget_of(tenant)}, key=ADMIN_KEY)
    issued = await control(f"{admin}/keys", {"tenant": tenant}, key=ADMIN_KEY)
    return str(issued["key"])


async def _stats(provider: Child) -> Any:
    return await control(f"{provider.url}/_sim/stats")


def _billed(stats: dict[str, Any]) -> int:
    """What the providers' counts cost."""
    return sum(setting.nano(model, one["prompt_tokens"], one["completion_tokens"]) for model, one in stats.items())


def as_json(report: Report) -> bytes:
    """The report for programs: money in nano-USD, times in milliseconds."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2)
