"""A whole engine writes down what came of its calls, learns from it, and remembers it after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from headgate.assembly import open_engine, routing_outcomes
from headgate.budget.budget import UsageQuery
from headgate.config import Config
from headgate.model.chat import ChatRequest
from headgate.model.errors import NotFound
from headgate.model.tenancy import OPERATOR, Principal, Wishes
from headgate.pipeline import Gateway
from headgate.simulator.simulator import Simulator

ACME = Principal(tenant="acme", user="ann")


def settings(simulator: str, *, routing: dict[str, object] | None = None, **route) -> Config:
    price = {"input": "0.15", "output": "0.60"}
    able = {"provider": "sim", "price": price}
    return Config.model_validate(
        {
            "providers": {
                "sim": {"kind": "openai", "base_url": f"{simulator}/v1", "api_key": "k", "allow_private": True}
            },
            "models": {
                "small": {**able, "model": "simulated-small"},
                "large": {**able, "model": "simulated-large"},
            },
            "routes": {
                "auto": {
                    "tiers": {"low": ["small"], "high": ["large"]},
                    "default_tier": "high",
                    "deciders": ["features", "knn"],
                    "explore": 0.0,
                    **route,
                }
            },
            "routing": routing or {},
            "telemetry": {"log": "off"},
        }
    )


async def say(gateway: Gateway, text: str) -> str:
    request = ChatRequest.parse({"model": "auto", "messages": [{"role": "user", "content": text}]})
    async with await gateway.chat(ACME, request, Wishes(cache="no-store")) as reply:
        await reply.completion()
        return reply.id


async def test_a_call_is_kept_and_feedback_on_it_is_there_after_a_restart(tmp_path: Path) -> None:
    async with Simulator().serve() as simulator:
        config = settings(simulator.url)
        async with open_engine(config, tmp_path) as engine:
            id = await say(engine.gateway, "Where is my parcel?")
            assert engine.gateway.outcomes is not None
            await engine.gateway.outcomes.idle()
            assert (await engine.gateway.feedback(ACME, id, correct=True)) is not None
            with pytest.raises(NotFound):
                await engine.gateway.feedback(Principal(tenant="other"), id, correct=True)
        (row,) = await routing_outcomes(config, tmp_path)
        assert (row.id, row.tenant, row.tier, row.outcome, row.origin) == (id, "acme", "low", 1.0, "feedback")
        assert (row.deployment, row.propensity) == ("small", 1.0)
        assert len(row.vector) == 384
        async with open_engine(config, tmp_path) as engine:
            assert (await engine.gateway.feedback(ACME, id, correct=False)) is not None
        (row,) = await routing_outcomes(config, tmp_path)
        assert row.outcome == 0.0


async def test_answers_are_graded_by_a_model_at_the_operators_expense_and_a_users_word_stands_against_it(
    tmp_path: Path,
) -> None:
    async with Simulator().serve() as simulator:
        config = settings(simulator.url, routing={"grader": {"model": "large", "share": 1.0}})
        async with open_engine(config, tmp_path) as engine:
            gateway = engine.gateway
            assert gateway.outcomes is not None
            id = await say(gateway, "Where is my parcel?")
            await gateway.outcomes.idle()
            usage = await gateway.budget.ledger.usage(UsageQuery(group_by=("feature", "tenant")))
            assert {"feature": "router-judge", "tenant": OPERATOR} in [row.group for row in usage]
            # The simulated model says neither yes nor no; this is what would have come of it.
            assert gateway.outcomes.heard("acme", id, 0.0, "judge")
            await gateway.feedback(ACME, id, correct=True)
            assert gateway.outcomes.heard("acme", id, 0.0, "judge")
        (row,) = await routing_outcomes(config, tmp_path)
        assert (row.outcome, row.origin) == (1.0, "feedback")
