"""The embedder's section: built in, a provider's model, or one that a library runs here."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from headgate.config import Config
from headgate.config_cache import LocalEmbedderConfig
from headgate.config_file import ConfigError, parse_config
from headgate.fittings import embedder


def config_with(embedder: str) -> Config:
    return parse_config(f"cache: {{semantic: {{embedder: {embedder}}}}}", env={})


def test_a_librarys_model_is_named_with_its_kind() -> None:
    chosen = config_with("{kind: sentence-transformers, model: BAAI/bge-small-en-v1.5, revision: abc}").cache.semantic
    assert chosen.embedder == LocalEmbedderConfig(
        kind="sentence-transformers", model="BAAI/bge-small-en-v1.5", revision="abc"
    )
    assert chosen.remote is None


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{kind: word2vec, model: m}", "cache.semantic.embedder.kind: must be sentence-transformers or fastembed"),
        ("{kind: fastembed}", "cache.semantic.embedder.model: is required"),
        ("{kind: fastembed, model: m, revision: r}", "cache.semantic.embedder.revision: fastembed knows one version"),
        ("{kind: fastembed, model: m, dimensions: 8}", "cache.semantic.embedder.dimensions: unknown key"),
    ],
)
def test_what_is_wrong_with_it_is_said(section: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_with(section)
    assert said in str(caught.value)


async def test_a_model_that_cannot_be_loaded_costs_the_semantic_tier_and_not_the_start(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    config = config_with(f"{{kind: fastembed, model: m, path: {tmp_path / 'absent'}}}")
    with caplog.at_level(logging.WARNING):
        assert await embedder(config, None) is None
    assert "the semantic cache is off: fastembed " in caplog.text
