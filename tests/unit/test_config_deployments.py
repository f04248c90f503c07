"""What is written of deployments: pools, weights, limits, hedges, own servers."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from headgate.config import Config
from headgate.fittings import hedges, kv_caches, limits, patience, route
from headgate.routing.fleet import Limits


def config(**more: Any) -> Config:
    return Config.model_validate(
        {
            "providers": {
                "p": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "allow_private": True, "kv_metrics": True},
                "q": {"kind": "openai"},
            },
            "models": {
                "a": {"provider": "p", "weight": 3, "rpm": 60, "tpm": 90_000, "concurrency": 32},
                "b": {"provider": "p", "model": "mistral"},
                "c": {"provider": "q"},
            },
            **more,
        }
    )


def test_a_list_in_the_place_of_a_name_is_a_pool_whose_members_are_tried_before_what_follows() -> None:
    said = config(routes={"auto": {"models": [["a", "b"], "c"]}})
    made = route("auto", said.routes["auto"])
    assert made.tiers["low"] == ("a", "b", "c")
    assert made.pools == (("a", "b"),)
    assert not made.tiered


def test_pools_of_all_tiers_and_tasks_are_known_once() -> None:
    tiers = {"low": ["c"], "medium": [["a", "b"]], "high": [["a", "b"], "c"]}
    made = route("auto", config(routes={"auto": {"tiers": tiers, "tasks": {"code": [["b", "c"]]}}}).routes["auto"])
    assert made.pools == (("a", "b"), ("b", "c"))
    assert made.tasks == {"code": ("b", "c")}


def test_a_name_in_a_pool_must_exist() -> None:
    with pytest.raises(ValidationError, match="there is no model 'd'"):
        config(routes={"auto": {"models": [["a", "d"]]}})


def test_limits_and_weights_are_the_models_own() -> None:
    assert limits(config())["a"] == Limits(weight=3.0, rpm=60, tpm=90_000, concurrency=32)
    assert limits(config())["c"] == Limits()


def test_only_routes_that_say_so_are_hedged() -> None:
    said = config(routes={"auto": {"models": ["a", "c"], "hedge": 0.05}, "plain": {"models": ["a"]}})
    assert set(hedges(said)) == {"auto"}


def test_three_attempts_and_a_short_line_unless_something_else_is_said() -> None:
    assert (patience(config()).attempts, patience(config()).line) == (3, 1.0)
    said = config(dispatch={"attempts": 5, "line": "250ms"})
    assert (patience(said).attempts, patience(said).line) == (5, 0.25)


async def test_the_memory_of_own_servers_is_watched_for_all_their_models() -> None:
    watched = kv_caches(config())
    assert list(watched.values()) == [{"a": "a", "b": "mistral"}]
    for cache in watched:
        await cache.close()
