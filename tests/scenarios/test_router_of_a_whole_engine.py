"""Routing with everything assembled: the classifier asks a model over HTTP, at the operator's expense, and is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headgate.assembly import open_engine
from headgate.config import Config
from headgate.model.chat import ChatRequest
from headgate.simulator.simulator import Running, Simulator
from tests.scenarios.test_a_whole_engine import ACME, configured, journal

HARD = "A 54 year old man has chest pain radiating to the left arm and a history of diabetes. Next treatment?"


def routed(simulator: Running, **classifier: Any) -> Config:
    one = {"provider": "sim", "max_output": 1_000}
    return configured(
        simulator,
        models={
            "small": {**one, "model": "simulated-small", "price": {"input": "0.1", "output": "0.1"}},
            "large": {**one, "model": "simulated-large", "price": {"input": "20", "output": "80"}},
        },
        routes={
            "auto": {
                "tiers": {"low": ["small"], "medium": ["small"], "high": ["large"]},
                "deciders": ["features", "classifier"],
                "explore": 0,
            }
        },
        routing={"classifier": {"model": "small", **classifier}},
    )


async def test_what_is_asked_of_a_model_is_paid_and_counted_and_a_poor_answer_costs_nobody_theirs(
    tmp_path: Path,
) -> None:
    async with Simulator().serve() as simulator, open_engine(routed(simulator), tmp_path) as engine:
        gateway = engine.gateway
        request = ChatRequest.parse({"model": "auto", "messages": [{"role": "user", "content": HARD}]})
        async with await gateway.chat(ACME, request) as reply:
            await reply.completion()
        assert reply.trail.decision is not None
        # The simulator writes prose.
        assert reply.trail.decision.reasons[-1] == "classifier: abstains, unreadable"
        rows = {(row.group["tenant"], row.group["feature"]): row for row in await journal(gateway, "tenant", "feature")}
        assert rows["operator", "router"].cost > 0
        assert rows["operator", "router"].requests == 1
        assert 'headgate_router_classifier_total{outcome="unreadable"} 1.0' in engine.metrics.render().decode()
        assert simulator.stats().calls == 2


async def test_instructions_of_ones_own_take_the_place_of_the_shipped_ones(tmp_path: Path) -> None:
    own = tmp_path / "labels.txt"
    async with Simulator().serve() as simulator:
        with pytest.raises(FileNotFoundError):
            async with open_engine(routed(simulator, template=own), tmp_path / "data"):
                pass
        own.write_text(" \n", encoding="utf-8")
        with pytest.raises(ValueError, match="is empty"):
            async with open_engine(routed(simulator, template=own), tmp_path / "data"):
                pass
        own.write_text("Label it, shortly.", encoding="utf-8")
        async with open_engine(routed(simulator, template=own), tmp_path / "data") as engine:
            request = ChatRequest.parse({"model": "auto", "messages": [{"role": "user", "content": HARD}]})
            async with await engine.gateway.chat(ACME, request) as reply:
                await reply.completion()
            rows = {row.group["feature"]: row for row in await journal(engine.gateway, "feature")}
            assert 0 < rows["router"].prompt_tokens < 200
