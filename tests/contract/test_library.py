"""The library's door: the same engine in process, from the public names alone."""

from __future__ import annotations

from pathlib import Path

import pytest

import headgate
from headgate import ChatRequest, Config, GatewayError, Principal, open_gateway
from headgate.simulator.simulator import Simulator

ASK = {"model": "auto", "messages": [{"role": "user", "content": "How do I reset my password?"}]}


@pytest.mark.parametrize("name", headgate.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(headgate, name) is not None


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        headgate.nothing  # noqa: B018


async def test_a_program_asks_twice_and_pays_once(tmp_path: Path) -> None:
    async with Simulator().serve() as provider:
        config = Config().answered_at(provider.url)
        async with open_gateway(config, tmp_path) as gateway:
            caller = Principal(tenant="acme")
            texts = []
            for stream in (False, True):
                async with await gateway.chat(caller, ChatRequest.parse({**ASK, "stream": stream})) as reply:
                    texts.append((await reply.completion()).text)
                    source = reply.source
                await gateway.flights.idle()
        assert provider.stats().calls == 1
    assert texts[0] == texts[1]
    assert source == "exact"


async def test_a_program_gets_the_same_typed_errors(tmp_path: Path) -> None:
    poor = Config.model_validate({"tenant_defaults": {"budget": {"hour": "0.000000001"}}})
    async with Simulator().serve() as provider, open_gateway(poor.answered_at(provider.url), tmp_path) as gateway:
        async with await gateway.chat(Principal(tenant="acme"), ChatRequest.parse(ASK)) as reply:
            with pytest.raises(GatewayError) as refused:
                await reply.completion()
    assert (refused.value.status, refused.value.code) == (402, "budget_exceeded")
