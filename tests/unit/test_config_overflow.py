"""What the configuration says of long prompts, of regions and of LiteLLM, and what becomes of it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
from pydantic import ValidationError

from headgate.budget.prices import PriceTable
from headgate.config import Config
from headgate.fittings import embeds_for, priced, provider, route
from headgate.model.errors import InvalidRequest
from headgate.model.tenancy import Policy
from headgate.tenants.overrides import merged

FREE = {"input": 0, "output": 0}


def config(**more: Any) -> Config:
    return Config.model_validate(
        {
            "providers": {
                "here": {"kind": "openai", "base_url": "https://eu.example", "region": "eu"},
                "there": {"kind": "openai", "base_url": "https://us.example"},
            },
            "models": {
                "near": {"provider": "here", "price": FREE},
                "far": {"provider": "there", "price": FREE},
                "far-eu": {"provider": "there", "price": FREE, "region": "eu"},
            },
            **more,
        }
    )


def test_a_model_works_where_it_says_else_where_its_provider_does() -> None:
    found = priced(config(), PriceTable.load())
    assert {name: one.region for name, one in found.items()} == {"near": "eu", "far": None, "far-eu": "eu"}


def test_new_tenants_get_the_configured_residency() -> None:
    assert config(tenant_defaults={"residency": ["eu"]}).tenant_defaults.policy().residency == ("eu",)
    assert config().tenant_defaults.policy().residency is None


@pytest.mark.parametrize("regions", [[], ["EU"], ["e u"], [""]])
def test_a_residency_names_regions(regions: list[str]) -> None:
    with pytest.raises(ValidationError):
        config(tenant_defaults={"residency": regions})
    with pytest.raises(InvalidRequest) as caught:
        merged({}, {"residency": regions}, Policy())
    assert caught.value.param == "residency"


@pytest.mark.parametrize(("at", "seen"), [("here", True), ("there", False)])
def test_an_embedder_of_a_provider_is_where_that_is(at: str, seen: bool) -> None:
    embedder = {"provider": at, "model": "e", "dimensions": 8}
    sees = embeds_for(config(cache={"semantic": {"embedder": embedder}}))
    assert sees(Policy(residency=("eu",))) == seen
    assert sees(Policy())
    assert embeds_for(config())(Policy(residency=("moon",)))


def test_a_route_says_what_is_done_about_a_prompt_that_is_too_long() -> None:
    said = {"models": ["near"], "overflow": ["larger", "condense"], "condenser": "far"}
    found = config(routes={"auto": said}).routes["auto"]
    made = route("auto", found)
    assert (made.overflow, made.condenser) == (("larger", "condense"), "far")
    assert route("auto", config(routes={"auto": {"models": ["near"]}}).routes["auto"]).overflow == ("larger",)


@pytest.mark.parametrize(
    "said",
    [
        {"overflow": []},
        {"overflow": ["prune", "prune"]},
        {"overflow": ["refuse", "prune"]},
        {"overflow": ["prune", "condense"], "condenser": "far"},
        {"overflow": ["condense"]},
        {"overflow": ["prune"], "condenser": "far"},
        {"overflow": ["condense"], "condenser": "nobody"},
    ],
)
def test_a_list_that_makes_no_sense_is_a_mistake(said: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        config(routes={"auto": {"models": ["near"], **said}})


def test_litellm_needs_no_address_and_takes_options() -> None:
    tail = {"kind": "litellm", "options": {"aws_region_name": "eu-central-1"}}
    found = config(providers={"tail": tail}, models={"m": {"provider": "tail", "model": "bedrock/x", "price": FREE}})
    assert found.providers["tail"].base_url == ""
    for wrong in ({"kind": "openai", "options": {"a": "b"}}, {"kind": "litellm", "kv_metrics": True}):
        with pytest.raises(ValidationError):
            config(providers={"tail": wrong}, models={})


@pytest.mark.skipif(find_spec("litellm") is not None, reason="LiteLLM is installed")
def test_litellm_that_is_not_installed_is_told_with_what_to_do() -> None:
    found = config(providers={"tail": {"kind": "litellm"}}, models={})
    with pytest.raises(ValueError, match=r"pip install 'headgate\[litellm\]'"):
        provider("tail", found.providers["tail"], lambda *_: None)
