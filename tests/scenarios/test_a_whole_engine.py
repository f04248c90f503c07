"""What is only there when everything is assembled: what a new process remembers, and what the operator itself pays for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headgate.assembly import open_engine
from headgate.budget.budget import UsageQuery, UsageRow
from headgate.budget.outputs import PRIOR
from headgate.config import Config
from headgate.model.chat import ChatRequest
from headgate.model.tenancy import Policy, Principal, Wishes
from headgate.pipeline import Gateway
from headgate.simulator.simulator import Running, Simulator

ACME = Principal(tenant="acme", key="key-1", policy=Policy(rpm=10_000))
DIMENSIONS = 1_536


def configured(simulator: Running, **more: Any) -> Config:
    """One model of a simulated provider, without the semantic cache."""
    return Config.model_validate(
        {
            "providers": {"sim": {"kind": "openai", "base_url": f"{simulator.url}/v1", "allow_private": True}},
            "models": {"small": {"provider": "sim", "model": "simulated", "price": {"input": "1", "output": "2"}}},
            "prices": {"sim/embedding": {"input": "0.5", "output": "0"}},
            "routes": {"auto": {"models": ["small"]}},
            "cache": {"semantic": {"mode": "off"}},
            "telemetry": {"log": "off"},
            **more,
        }
    )


async def told(gateway: Gateway, text: str, wishes: Wishes | None = None) -> str:
    request = ChatRequest.parse({"model": "auto", "messages": [{"role": "user", "content": text}]})
    async with await gateway.chat(ACME, request, wishes) as reply:
        return (await reply.completion()).text


async def journal(gateway: Gateway, *names: str) -> list[UsageRow]:
    return await gateway.budget.ledger.usage(UsageQuery(group_by=names))


async def test_how_long_answers_are_is_known_after_a_restart(tmp_path: Path) -> None:
    async with Simulator().serve() as simulator:
        async with open_engine(configured(simulator), tmp_path) as engine:
            outputs = engine.gateway.budget.outputs
            assert outputs.expected("acme", "auto") == PRIOR
            for number in range(60):
                await told(engine.gateway, f"Where is parcel {number}?", Wishes(cache="no-store"))
            learnt = outputs.expected("acme", "auto")
        async with open_engine(configured(simulator), tmp_path) as engine:
            outputs = engine.gateway.budget.outputs
            assert outputs.expected("acme", "auto") == learnt < PRIOR
            assert outputs.expected("another", "auto") == learnt, "others on the route speak for who has said little"


async def test_vectors_that_a_provider_makes_for_the_cache_are_the_operators(tmp_path: Path) -> None:
    async with Simulator().serve() as simulator:
        embedder = {"provider": "sim", "model": "embedding", "dimensions": DIMENSIONS}
        config = configured(simulator, cache={"semantic": {"embedder": embedder}})
        async with open_engine(config, tmp_path) as engine:
            await told(engine.gateway, "How do I reset my password?")
            rows = {
                row.group["tenant"]: row for row in await journal(engine.gateway, "tenant", "feature", "deployment")
            }
        billed = simulator.stats().by_model["embedding"].prompt_tokens
    assert set(rows) == {"acme", "operator"}
    assert rows["operator"].group == {"tenant": "operator", "feature": "cache", "deployment": "embedding"}
    assert (rows["operator"].prompt_tokens, rows["operator"].cost) == (billed, billed * 500)
    assert rows["acme"].cost > 0


async def test_a_vector_that_never_came_is_paid_as_an_estimate_and_costs_no_answer(tmp_path: Path) -> None:
    async with Simulator().serve() as simulator:
        embedder = {"provider": "sim", "model": "sim-truncated-json", "dimensions": DIMENSIONS}
        prices = {"sim/sim-truncated-json": {"input": "0.5", "output": "0"}}
        config = configured(simulator, cache={"semantic": {"embedder": embedder}}, prices=prices)
        async with open_engine(config, tmp_path) as engine:
            assert await told(engine.gateway, "How do I reset my password?")
            (operator,) = [row for row in await journal(engine.gateway, "tenant") if row.group["tenant"] == "operator"]
            assert operator.cost > 0
            assert engine.gateway.budget.ledger.open_reservations() == 0
