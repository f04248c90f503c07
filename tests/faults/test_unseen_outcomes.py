"""Every way in which an answer can break, over real HTTP: the journal holds what the provider bills, or what came of it, as an estimate.

The simulator bills a token when it makes it, whoever receives it. What is known of each fault:

    refused (4xx, 5xx)        nothing is billed, nothing is charged
    silent, reset unanswered  the prompt is charged; nobody will ever tell more
    broke off                 the prompt and all that came, or was promised by its length; what the provider counted itself counts
    sound, without a count    counted here
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from headgate.assembly import Engine, open_engine
from headgate.budget.budget import UsageQuery
from headgate.config import Config
from headgate.model.chat import ChatRequest, Json
from headgate.model.errors import GatewayError
from headgate.model.tenancy import Policy, Principal, Wishes
from headgate.simulator.simulator import Running, Simulator

Way = Literal["whole", "wide", "streamed", "embedded"]

REFUSED = ("400", "401", "403", "404", "413", "429", "500", "502", "503", "529", "context-length", "no-money")
SOUND = ("slow-first-byte:0.01", "split-utf8", "huge:0.1", "quota:0")
UNSEEN = (
    "hang",
    "stall:0",
    "stall",
    "cut:0",
    "cut",
    "truncated-json",
    "refuse",
    "no-usage",
    "malformed-sse:0",
    "malformed-sse",
)
WAYS: tuple[tuple[str, Way], ...] = (
    ("sim", "whole"),
    ("sim", "wide"),
    ("sim", "streamed"),
    ("sim", "embedded"),
    ("claude", "whole"),
    ("claude", "streamed"),
)
HALF_AN_EVENT = 4
"""Tokens that an event holds whose end never came."""


def configuration(url: str) -> Config:
    timeouts = {"first_byte": "0.2s", "idle": "0.2s"}
    sim = {"kind": "openai", "base_url": f"{url}/v1", "allow_private": True, "timeouts": timeouts}
    claude = {"kind": "anthropic", "base_url": url, "api_key": "any", "allow_private": True, "timeouts": timeouts}
    models = {
        f"{kind}-{fault}": {"provider": kind, "model": f"sim-{fault}", "price": {"input": "1", "output": "2"}}
        for kind in ("sim", "claude")
        for fault in (*REFUSED, *SOUND, *UNSEEN)
    }
    return Config.model_validate(
        {
            "providers": {"sim": sim, "claude": claude},
            "models": models,
            "cache": {"semantic": {"mode": "off"}},
            "dispatch": {"retries": 0},
            "telemetry": {"log": "off"},
        }
    )


class Bill(msgspec.Struct, frozen=True):
    """Tokens that the provider bills, nano-USD of them, and what the journal says."""

    prompt: int
    completion: int
    truth: int
    journal: int
    estimated: bool


class Place:
    """A gateway with a broken provider behind it."""

    def __init__(self, engine: Engine, provider: Running, journal: Path) -> None:
        self._engine = engine
        self._provider = provider
        self._journal = journal

    async def bill(self, kind: str, fault: str, way: Way, *, leaves: bool = False) -> Bill:
        """One call that meets a fault, and what it costs in both books."""
        self._provider.reset()
        tenant = f"{kind}/{fault}/{way}/{leaves}"
        caller = Principal(tenant=tenant, policy=Policy(abandoned="cancel" if leaves else "finish"))
        with suppress(GatewayError):
            await self._call(caller, f"{kind}-{fault}", way, leaves=leaves)
        await self._engine.gateway.flights.idle()
        await self._engine.gateway.budget.ledger.usage(UsageQuery())
        stats = self._provider.stats()
        with closing(sqlite3.connect(self._journal)) as connection:
            ((journal, estimated),) = connection.execute(
                "SELECT coalesce(sum(amount), 0), coalesce(sum(estimated), 0) FROM journal"
                " WHERE tenant = ? AND kind IN ('charge', 'settle', 'lost')",
                (tenant,),
            )
        truth = stats.prompt_tokens * 1_000 + stats.completion_tokens * 2_000
        return Bill(stats.prompt_tokens, stats.completion_tokens, truth, journal, bool(estimated))

    async def _call(self, caller: Principal, model: str, way: Way, *, leaves: bool) -> None:
        gateway = self._engine.gateway
        if way == "embedded":
            wishes = Wishes(timeout=0.05 if leaves else None)
            await gateway.embed(caller, {"model": model, "input": ["Some text.", "And another."]}, wishes)
            return
        text = f"Tell me ten things about a {'long ' * 20}house."
        body: Json = {"model": model, "messages": [{"role": "user", "content": text}], "stream": way == "streamed"}
        if way == "wide":
            body["n"] = 3
        async with await gateway.chat(caller, ChatRequest.parse(body)) as reply:
            if way != "streamed":
                await reply.completion()
                return
            async with aclosing(reply.events()) as events:
                async for _ in events:
                    if leaves:
                        break


@asynccontextmanager
async def place(folder: Path, simulator: Simulator) -> AsyncIterator[Place]:
    async with simulator.serve() as provider, open_engine(configuration(provider.url), folder) as engine:
        yield Place(engine, provider, folder / "headgate.db")


@pytest.mark.parametrize(("kind", "way"), WAYS)
async def test_what_is_refused_costs_nothing_and_what_is_sound_costs_what_it_costs(
    tmp_path: Path, kind: str, way: Way
) -> None:
    async with place(tmp_path, Simulator()) as gateway:
        for fault in (*REFUSED, *SOUND):
            bill = await gateway.bill(kind, fault, way)
            assert bill.journal == bill.truth, fault
            assert not bill.estimated, fault
            assert (bill.truth > 0) == (fault in SOUND), fault


@pytest.mark.parametrize(("kind", "way"), WAYS)
async def test_an_end_that_nobody_saw_is_charged_at_what_came_and_marked(tmp_path: Path, kind: str, way: Way) -> None:
    """Two things no bytes tell: an event whose end never came, and the second half of a body that claims to be whole."""
    async with place(tmp_path, Simulator()) as gateway:
        for fault in UNSEEN:
            bill = await gateway.bill(kind, fault, way)
            least = bill.truth
            if fault == "truncated-json" and way == "streamed":
                least -= HALF_AN_EVENT * 2_000
            elif fault.startswith("malformed-sse") and way in ("whole", "wide"):
                least -= bill.completion * 2_000 // 2
            assert bill.journal >= least > 0 or fault in ("hang", "refuse"), fault
            assert bill.journal > 0, fault
            assert bill.estimated, fault


@pytest.mark.parametrize("kind", ["sim", "claude"])
async def test_a_caller_who_leaves_pays_for_all_when_the_call_goes_on_and_for_what_came_when_it_is_cut(
    tmp_path: Path, kind: str
) -> None:
    fault = "slow-first-byte:0.01"
    async with place(tmp_path, Simulator(tokens_per_s=2_000)) as gateway:
        whole = await gateway.bill(kind, fault, "streamed")
        cut = await gateway.bill(kind, fault, "streamed", leaves=True)
    assert whole.journal == whole.truth
    assert cut.estimated
    assert cut.prompt * 1_000 <= cut.journal < whole.journal


async def test_an_embeddings_call_that_nobody_waits_for_any_more_is_not_free(tmp_path: Path) -> None:
    async with place(tmp_path, Simulator(latency_s=5.0)) as gateway:
        bill = await gateway.bill("sim", "split-utf8", "embedded", leaves=True)
    assert bill.journal > 0
    assert bill.estimated
