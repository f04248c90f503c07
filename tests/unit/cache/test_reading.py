"""Readings: made once, shared while they are made, and forgotten in time."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.cache.reading import EmbedderUnavailable, Reading, Readings

BYTES = 8 + 4


class Maker:
    """Makes readings of twelve bytes, after the gate was opened, and counts what it makes and what was given up."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.made: list[str] = []
        self.given_up: list[str] = []
        self.gate = asyncio.Event()
        if is_open:
            self.gate.set()

    async def __call__(self, text: str) -> Reading:
        self.made.append(text)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.given_up.append(text)
            raise
        if text == "bad":
            raise EmbedderUnavailable("bad")
        return Reading(text, np.zeros(2, np.float32), np.zeros((1, 2), np.float16), (0,), np.zeros(2, np.float32))


async def asked(readings: Readings, *texts: str) -> list[asyncio.Task[Reading]]:
    tasks = [asyncio.create_task(readings.of(text)) for text in texts]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_a_text_is_read_once() -> None:
    maker = Maker()
    readings = Readings(maker)
    assert await readings.of("a") is await readings.of("a")
    assert maker.made == ["a"]


async def test_those_who_ask_at_once_share_one_reading() -> None:
    maker = Maker(is_open=False)
    one, other = await asked(Readings(maker), "a", "a")
    maker.gate.set()
    assert await one is await other
    assert maker.made == ["a"]


async def test_the_last_one_to_leave_ends_the_reading_and_the_next_one_begins_anew() -> None:
    maker = Maker(is_open=False)
    readings = Readings(maker)
    one, other = await asked(readings, "a", "a")
    one.cancel()
    await asyncio.sleep(0)
    assert maker.given_up == []
    other.cancel()
    (third,) = await asked(readings, "a")
    maker.gate.set()
    assert (await third).text == "a"
    assert maker.given_up == ["a"]
    assert maker.made == ["a", "a"]


async def test_a_failure_is_everyones_and_is_not_remembered() -> None:
    maker = Maker(is_open=False)
    readings = Readings(maker)
    tasks = await asked(readings, "bad", "bad")
    maker.gate.set()
    assert [type(one) for one in await asyncio.gather(*tasks, return_exceptions=True)] == [EmbedderUnavailable] * 2
    with pytest.raises(EmbedderUnavailable):
        await readings.of("bad")
    assert maker.made == ["bad", "bad"]


async def test_the_least_recently_asked_for_is_forgotten_first() -> None:
    maker = Maker()
    readings = Readings(maker, most=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        await readings.of(text)
    assert maker.made == ["a", "b", "c", "b"]


async def test_a_reading_too_large_to_keep_is_made_each_time() -> None:
    maker = Maker()
    readings = Readings(maker, most_bytes=1_000)
    await readings.of("a")
    await readings.of("x" * 2_000)
    await readings.of("x" * 2_000)
    assert len(maker.made) == 3
    assert readings.bytes == 0


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans()), max_size=60))
def test_everyone_gets_the_reading_of_the_own_text_and_memory_stays_bounded(plan: list[tuple[str, bool]]) -> None:
    """Any order of texts, some callers leaving."""

    async def play() -> None:
        readings = Readings(Maker(), most=4, most_bytes=300)
        tasks = []
        for text, leaves in plan:
            tasks.append((text, asyncio.create_task(readings.of(text))))
            if leaves:
                await asyncio.sleep(0)
                tasks[-1][1].cancel()
        for text, task in tasks:
            (found,) = await asyncio.gather(task, return_exceptions=True)
            assert isinstance(found, asyncio.CancelledError) or found.text == text
        assert 0 <= readings.bytes <= 300

    asyncio.run(play())
