"""Texts and embedders of every bad kind: the request is answered, nothing wrong is stored, and what did not work is counted."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from headgate.assembly import open_engine
from headgate.cache.cache import Entry, Selection
from headgate.cache.embedders import MiniLM
from headgate.cache.learning import Learning
from headgate.cache.prior import Prior
from headgate.cache.reading import EmbedderUnavailable
from headgate.cache.verdict import CalibratedVerdict
from headgate.providers.scripted import ScriptedProvider, answer
from headgate.reply import Reply
from headgate.simulator.simulator import Simulator
from tests.readings import Words
from tests.scenarios.house import CALLER, House, ask
from tests.scenarios.test_a_whole_engine import configured, told

KINDS = {
    "empty": ("", " "),
    "blank": (" \n\t", "\n\n"),
    "a megabyte": ("Where is it? " * 80_000, "Where is it? " * 80_000 + "And when?"),
    "a megabyte without a break": ("x" * 1_000_000, "x" * 999_999 + "y"),
    "emoji only": ("\U0001f600\U0001f3fd", "\U0001f622\U0001f3fd"),
    "mixed script": ("Где is das 世界 и مرحبا?", "Где is das 地球 и مرحبا?"),
    "a script that the model does not know": ("ꦱꦸꦒꦼꦁ", "ꦩꦠꦸꦂ"),
    "control characters": ("\x00\x01\x1b[31m", "\x00\x02\x1b[32m"),
    "control characters in a question": ("Where\x00is\x07it at 5?", "Where\x00is\x07it at 6?"),
    "punctuation only": ("?!", "..."),
    "combining marks": ("a" + "\u0301" * 2_000, "e" + "\u0301" * 2_000),
}
"""Two texts of each kind that do not mean the same."""


async def said(house: House, text: str) -> tuple[Reply, str]:
    async with await house.gateway.chat(CALLER, ask(text)) as reply:
        answered = (await reply.completion()).text
    await house.flown()
    return reply, answered


async def entries(house: House) -> list[Entry]:
    return list(await house.gateway.cache.entries.selected(Selection(tenant="acme")))


def scripts() -> ScriptedProvider:
    return ScriptedProvider(*(answer(f"Answer {number}.") for number in range(1, 9)))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_text_of_any_kind_is_answered_with_its_own_answer(kind: str) -> None:
    model = await asyncio.to_thread(MiniLM.load)
    verdict = CalibratedVerdict(model, Prior.load(), Learning())
    house = House({"one": scripts()}, embedder=model, verdict=verdict, context_window=10_000_000)
    for number, text in enumerate(KINDS[kind], 1):
        reply, answered = await said(house, text)
        assert (reply.source, answered) == ("live", f"Answer {number}.")
        again, answered = await said(house, text)
        assert (again.source, answered) == ("exact", f"Answer {number}.")
    assert not any(house.gateway.cache.failures().values()), "none of this is a fault"
    await house.gateway.close()


class Unwell(Words):
    """An embedder that fails in one way."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    async def embed(self, text: str) -> Any:
        vector = await super().embed(text)
        if self.way == "well":
            return vector
        if self.way == "down":
            raise EmbedderUnavailable("connection refused")
        if self.way == "slow":
            await asyncio.Event().wait()
        return {
            "not numbers": np.full_like(vector, np.nan),
            "one not a number": np.where(np.arange(len(vector)) == 3, np.nan, vector),
            "infinite": np.full_like(vector, np.inf),
            "too short": vector[:-1],
            "too long": np.append(vector, np.float32(0.0)),
            "nothing": np.zeros_like(vector),
            "not of length one": vector * 2,
            "several": np.stack([vector, vector]),
            "none": None,
        }[self.way]


WAYS = (
    *("down", "slow", "not numbers", "one not a number", "infinite", "too short", "too long", "nothing", "several"),
    *("not of length one", "none"),
)


@pytest.mark.parametrize("way", WAYS)
async def test_an_embedder_that_fails_costs_the_semantic_tier_and_no_answer(way: str) -> None:
    house = House({"one": scripts()}, embedder=Unwell(way), embedding_patience=0.02)
    first, answered = await said(house, "How do I return a lamp?")
    assert (first.source, answered) == ("live", "Answer 1.")
    assert (first.trail.cache, first.trail.cache_reason) == ("miss", "embedder")
    other, answered = await said(house, "How can I return a lamp?")
    assert (other.source, answered) == ("live", "Answer 2.")
    assert (await said(house, "How do I return a lamp?"))[0].source == "exact"
    assert [(one.vector, one.text) for one in await entries(house)] == [(None, None)] * 2
    failures = house.gateway.cache.failures()
    assert failures["embedder",] == 2.0, "an exact hit asks for no vector"
    assert sum(failures.values()) == 2.0


async def test_once_it_is_well_again_it_is_used_again_and_what_came_meanwhile_is_found_exactly_only() -> None:
    embedder = Unwell("down")
    house = House({"one": scripts()}, embedder=embedder)
    await said(house, "How do I return a lamp?")
    embedder.way = "well"
    assert (await said(house, "how do I return a lamp?"))[0].source == "live"
    assert (await said(house, "How do I return a lamp"))[0].source == "semantic"


class Unread(Words):
    """A reader that is gone when a verdict asks for it."""

    async def read(self, text: str) -> Any:
        raise EmbedderUnavailable("closed")


async def test_a_verdict_whose_reader_is_gone_serves_nothing_and_is_counted() -> None:
    verdict = CalibratedVerdict(Unread(), Prior.load(), Learning())
    house = House({"one": scripts()}, embedder=Words(), verdict=verdict)
    await said(house, "How do I return a lamp?")
    reply, answered = await said(house, "How do I return a lamp")
    assert (reply.source, answered) == ("live", "Answer 2.")
    assert house.gateway.cache.failures()["verdict",] == 1.0


@pytest.mark.parametrize(("model", "dimensions"), [("sim-500", 1_536), ("embedding", 7), ("sim-truncated-json", 1_536)])
async def test_a_providers_embedder_that_fails_is_in_the_metrics(tmp_path: Any, model: str, dimensions: int) -> None:
    async with Simulator().serve() as simulator:
        embedder = {"provider": "sim", "model": model, "dimensions": dimensions}
        prices = {f"sim/{model}": {"input": "0.5", "output": "0"}}
        config = configured(simulator, cache={"semantic": {"embedder": embedder}}, prices=prices)
        async with open_engine(config, tmp_path) as engine:
            assert await told(engine.gateway, "How do I return a lamp?")
            assert await told(engine.gateway, "How can I return a lamp?")
            rendered = engine.metrics.render().decode()
    assert 'headgate_cache_failures_total{part="embedder"} 2.0' in rendered
