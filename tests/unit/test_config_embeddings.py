"""The section that says how much of a tenant's embeddings goes together, and what of it can be seen."""

from __future__ import annotations

import asyncio

import pytest

from headgate.config import Config
from headgate.config_file import ConfigError, parse_config
from headgate.fittings import provider
from headgate.model.clearance import Clearance
from headgate.model.deployment import Deployment
from headgate.simulator.simulator import Simulator
from headgate.telemetry.metrics import PrometheusSink

HERE = Deployment(name="e", provider="acme", model="simulated-embedding")


def config_with(section: str, url: str = "https://example.com/v1") -> Config:
    text = f"providers: {{acme: {{kind: openai, base_url: {url}, allow_private: true, embeddings: {section}}}}}"
    return parse_config(text, env={})


def test_unless_said_otherwise_32_inputs_go_together_after_two_milliseconds() -> None:
    said = config_with("{}").providers["acme"].embeddings
    assert (said.items, said.tokens, said.delay) == (32, 100_000, 0.002)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{items: 0}", "providers.acme.embeddings.items: "),
        ("{items: 2049}", "providers.acme.embeddings.items: "),
        ("{tokens: 0}", "providers.acme.embeddings.tokens: "),
        ("{delay: 2s}", "providers.acme.embeddings.delay: "),
        ("{inputs: 2}", "providers.acme.embeddings.inputs: unknown key"),
    ],
)
def test_what_is_wrong_with_it_is_said(section: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_with(section)
    assert said in str(caught.value)


@pytest.mark.parametrize(("items", "calls"), [(1, 9), (2, 5), (4, 3), (32, 1)])
async def test_so_many_inputs_go_together_and_the_metrics_show_it(items: int, calls: int) -> None:
    async with Simulator().serve() as simulator:
        metrics = PrometheusSink(routes=(), deployments=("e",))
        said = config_with(f"{{items: {items}, delay: 1s}}", f"{simulator.url}/v1").providers["acme"]
        made = provider("acme", said, metrics.embeddings_call)
        body = {"model": "e", "input": "one text", "dimensions": 4}
        await asyncio.gather(*(made.embed(HERE, body, Clearance("r", 0, "acme"), timeout=10) for _ in range(9)))
        await made.close()
        assert simulator.stats().calls == calls
    shown = metrics.render().decode()
    assert f'headgate_embedding_batch_inputs_count{{deployment="e"}} {calls}.0' in shown
    assert 'headgate_embedding_batch_inputs_sum{deployment="e"} 9.0' in shown
    assert f'headgate_embedding_batch_callers_count{{deployment="e"}} {calls}.0' in shown
