"""`headgate config`."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from headgate.config import Config
from headgate.config_file import load_config
from tests.unit.cli.conftest import Headgate, printed

REFERENCE = Path(__file__).resolve().parents[3] / "docs" / "reference"


def test_a_good_file_is_said_to_be_good(headgate: Headgate) -> None:
    Path("mine.yaml").write_text("providers: {p: {kind: openai}}\nmodels: {m: {provider: p}}")
    assert headgate("config", "check", "mine.yaml").stdout == "mine.yaml: ok (1 provider, 1 model, 0 routes)\n"
    found = printed(headgate("config", "check", "mine.yaml", "--json"))
    assert found == {"file": "mine.yaml", "ok": True, "providers": 1, "models": 1, "routes": 0}


@pytest.mark.skipif(find_spec("fastembed") is not None, reason="the extra is installed here")
def test_an_embedder_whose_library_is_not_installed_is_refused(headgate: Headgate) -> None:
    """The gateway itself would start, without the semantic tier."""
    Path("mine.yaml").write_text("cache: {semantic: {embedder: {kind: fastembed, model: m}}}")
    said = headgate("config", "check", "mine.yaml", code=2).stderr
    assert "fastembed is not installed; run `pip install 'headgate[fastembed]'`" in said


def test_show_prints_what_would_be_used_with_secrets_masked(headgate: Headgate) -> None:
    env = {"OPENAI_API_KEY": "sk-secret"}
    shown = headgate("config", "show", env=env).stdout
    assert "sk-secret" not in shown
    assert yaml.safe_load(shown)["providers"]["openai"]["api_key"] == "**********"
    assert printed(headgate("config", "show", "--json", env=env)) == yaml.safe_load(shown)


def test_the_schema_is_printed_as_json(headgate: Headgate) -> None:
    assert json.loads(headgate("config", "schema").stdout) == Config.json_schema()


def test_defaults_in_the_schema_are_as_they_would_be_written() -> None:
    defs = Config.json_schema()["$defs"]
    assert defs["ExactConfig"]["properties"]["ttl"]["default"] == "24h"
    assert defs["LimitsConfig"]["properties"]["body"]["default"] == "4MiB"
    assert defs["CapsConfig"]["properties"]["hour"]["default"] == "10.00"


def test_the_example_in_the_reference_is_valid() -> None:
    config = load_config(REFERENCE / "headgate.yaml", {"OPENAI_API_KEY": "a", "ANTHROPIC_API_KEY": "b"})
    assert set(config.routes) == {"auto"}
