"""How full a vLLM's memory for prompts is, and what it is given then."""

from __future__ import annotations

import asyncio

from headgate.housekeeping import KvWatch
from headgate.providers.endpoint import Endpoint
from headgate.providers.kv_cache import ANY_MODEL, KvCache, usage
from headgate.routing.fleet import Fleet
from headgate.telemetry.metrics import PrometheusSink
from tests.unit.providers.rawserver import Visit, raw_server

METRICS = """# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="mistral"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="mistral"} 0.75
vllm:kv_cache_usage_perc{engine="0",model_name="other"} 1.5
vllm:num_requests_running{engine="0",model_name="mistral"} 3.0
"""


def test_the_fullest_engine_of_each_model_counts_and_what_makes_no_sense_is_skipped() -> None:
    assert usage(METRICS) == {"mistral": 0.75}
    assert usage("vllm:gpu_cache_usage_perc 0.5\n") == {ANY_MODEL: 0.5}
    assert usage('vllm:gpu_cache_usage_perc{model_name="a"} 1e-2 1700000000\nvllm:kv_cache_usage_perc .e\n') == {
        "a": 0.01
    }
    assert usage("") == {}


async def test_the_fuller_it_is_the_fewer_calls_it_is_given_and_silence_lifts_the_bound() -> None:
    answers = [(METRICS, "200 OK"), ("gone", "404 Not Found")]

    async def play(visit: Visit) -> None:
        for text, status in answers:
            assert (await visit.request()).startswith(b"GET /metrics HTTP/1.1\r\n")
            await visit.answer(text.encode(), status=status)

    async with raw_server(play) as server:
        cache = KvCache(Endpoint(name="vllm", base_url=f"{server.url}/v1", api_key="secret-key", allow_private=True))
        fleet, metrics = Fleet(), PrometheusSink(routes=(), deployments=("small", "away"))
        watch = KvWatch({cache: {"small": "mistral", "away": "nobody"}}, fleet, metrics)
        await watch.look(cache)
        assert fleet.health("small")["limit"] == 3
        assert fleet.health("away")["limit"] == 10_000
        assert 'headgate_upstream_kv_cache_ratio{deployment="small"} 0.75' in metrics.render().decode()
        assert b"authorization: Bearer secret-key" in server.visits[0].requests[0]
        await watch.look(cache)
        assert fleet.health("small")["limit"] == 10_000
        assert 'headgate_upstream_kv_cache_ratio{deployment="small"}' not in metrics.render().decode()
        await cache.close()


async def test_a_server_that_is_away_says_nothing() -> None:
    cache = KvCache(Endpoint(name="vllm", base_url="http://127.0.0.1:9", allow_private=True))
    assert await cache.read(timeout=1.0) == {}
    await cache.close()


async def test_without_a_server_to_watch_nothing_is_watched() -> None:
    async with KvWatch({}, Fleet(), PrometheusSink(routes=(), deployments=())):
        assert len(asyncio.all_tasks()) == 1


async def test_a_server_is_looked_at_while_the_watch_is_open_and_let_go_afterwards() -> None:
    looked = asyncio.Event()

    async def play(visit: Visit) -> None:
        await visit.request()
        await visit.answer(METRICS.encode())
        looked.set()
        await visit.gone()

    async with raw_server(play) as server:
        cache = KvCache(Endpoint(name="vllm", base_url=server.url, allow_private=True))
        async with KvWatch({cache: {"small": "mistral"}}, Fleet(), PrometheusSink(routes=(), deployments=("small",))):
            await looked.wait()
        await server.left.wait()
