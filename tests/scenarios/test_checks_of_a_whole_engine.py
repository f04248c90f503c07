"""Learning with everything assembled: the built-in model, a judge that is a model, files, metrics."""

from __future__ import annotations

from pathlib import Path

from headgate.assembly import open_engine
from headgate.model.chat import ChatRequest
from headgate.model.tenancy import Policy, Principal
from headgate.pipeline import Gateway
from headgate.reply import Reply
from headgate.simulator.simulator import Running, Simulator
from tests.scenarios.test_a_whole_engine import configured, journal

ACME = Principal(tenant="acme", key="key-1", policy=Policy(rpm=100_000))
FIRST, AGAIN, ANEW = "How long does a refund take?", "how long does a refund take", "How long do refunds take?"
"""A question, its very words, and others that mean the same."""


def semantic(simulator: Running, **more: object) -> dict[str, object]:
    return {"config": configured(simulator, cache={"semantic": {"max_error_rate": 0.01, **more}})}


async def said(gateway: Gateway, text: str, caller: Principal = ACME) -> Reply:
    request = ChatRequest.parse({"model": "auto", "messages": [{"role": "user", "content": text}]})
    async with await gateway.chat(caller, request) as reply:
        await reply.completion()
    return reply


async def test_what_was_learnt_and_served_is_known_after_a_restart(tmp_path: Path) -> None:
    async with Simulator().serve() as simulator:
        async with open_engine(**semantic(simulator), data=tmp_path) as engine:  # type: ignore[arg-type]
            gateway = engine.gateway
            first = await said(gateway, FIRST)
            hit = await said(gateway, AGAIN)
            later = await said(gateway, AGAIN + " !")
            assert (hit.source, later.source) == ("semantic", "semantic")
            assert (await gateway.checking.feedback("acme", hit.id, correct=False)).learned
            (state,) = gateway.checking.learning.states("acme")
            assert state.labels == 1
            assert gateway.checking.learning.withdrawn(state.scope, first.id)
        async with open_engine(**semantic(simulator), data=tmp_path) as engine:  # type: ignore[arg-type]
            checking = engine.gateway.checking
            assert checking.learning.withdrawn(state.scope, first.id)
            assert checking.learning.state(state.scope).shift == state.shift
            heard = await checking.feedback("acme", later.id, correct=True)
            assert (heard.known, heard.learned) == (True, True)


async def test_checks_and_what_they_found_are_counted(tmp_path: Path) -> None:
    async with Simulator().serve() as simulator:
        async with open_engine(**semantic(simulator, checks={"share": 0.02}), data=tmp_path) as engine:  # type: ignore[arg-type]
            gateway = engine.gateway
            for _ in range(121):
                await said(gateway, FIRST)
            for _ in range(60):
                await said(gateway, ANEW)
            await gateway.checking.idle()
            rows = {
                (row.group["tenant"], row.group["feature"]): row for row in await journal(gateway, "tenant", "feature")
            }
            assert rows["operator", "cache-check"].cost > 0
            rendered = engine.metrics.render().decode()
            assert "headgate_shadow_checks_total{outcome=" in rendered
            assert 'headgate_cache_drift{state="ok"} 1.0' in rendered
