"""What processes tell each other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.model.errors import Overloaded
from headgate.routing.breaker import Breakers
from headgate.routing.hearsay import KIND, shared
from headgate.storage.news import WAITING, News
from headgate.storage.redis import Redis
from tests.servers.redis import PATIENT


class Air:
    """A channel in this process: what is published is heard by all who listen."""

    def __init__(self) -> None:
        self.listeners: list[tuple[Callable[[bytes], None], Callable[[], None]]] = []
        self.down = False
        self.published = 0

    async def publish(self, channel: str, message: bytes) -> None:
        self.published += 1
        if self.down:
            raise Overloaded("away")
        for heard, _ in self.listeners:
            heard(message)

    async def listen(self, channel: str, heard: Callable[[bytes], None], begun: Callable[[], None]) -> None:
        self.listeners.append((heard, begun))
        begun()
        await asyncio.Event().wait()


class Process:
    """One that listens."""

    def __init__(self, air: Air) -> None:
        self.news = News(air)
        self.heard: list[bytes] = []
        self.news.on("said", self.heard.append)
        self.listening = asyncio.ensure_future(self.news.run())

    async def end(self) -> None:
        self.listening.cancel()
        await asyncio.gather(self.listening, return_exceptions=True)


@pytest.fixture
async def pair():
    air = Air()
    both = [Process(air), Process(air)]
    await asyncio.sleep(0)
    yield air, *both
    for one in both:
        await one.end()


async def test_what_one_tells_the_others_hear_and_it_does_not(pair) -> None:
    _, one, other = pair
    one.news.tell("said", b"hello")
    await one.news.close()
    assert (one.heard, other.heard) == ([], [b"hello"])


async def test_a_kind_that_nobody_knows_is_passed_over(pair) -> None:
    _, one, other = pair
    one.news.tell("of a later version", b"?")
    one.news.tell("said", b"hello")
    await one.news.close()
    assert other.heard == [b"hello"]


async def test_telling_while_the_channel_is_away_loses_the_message_and_nothing_else(pair) -> None:
    air, one, other = pair
    air.down = True
    one.news.tell("said", b"lost")
    await one.news.close()
    air.down = False
    one.news.tell("said", b"heard")
    await one.news.close()
    assert other.heard == [b"heard"]


async def test_what_cannot_be_sent_off_fast_enough_is_not_told(pair) -> None:
    air, one, _ = pair
    for _ in range(2 * WAITING):
        one.news.tell("said", b".")
    await one.news.close()
    assert air.published == WAITING


async def test_a_hearer_that_fails_stops_nobody(pair, caplog) -> None:
    _, one, other = pair
    other.news.on("bad", lambda body: 1 / 0)
    one.news.tell("bad", b"")
    one.news.tell("said", b"hello")
    await one.news.close()
    assert other.heard == [b"hello"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_all_are_told_when_listening_begins_anew(pair) -> None:
    air, one, _ = pair
    begun: list[int] = []
    one.news.on_begun(lambda: 1 / 0)
    one.news.on_begun(lambda: begun.append(1))
    air.listeners[0][1]()
    assert begun == [1]


def test_a_kind_has_one_hearer() -> None:
    news = News(Air())
    news.on("said", bytes)
    with pytest.raises(ValueError, match="said"):
        news.on("said", bytes)


async def test_a_breaker_that_opens_in_one_process_opens_in_another_that_shares_its_redis(redis_url) -> None:
    breakers, redises, listening = (
        [Breakers(), Breakers()],
        [Redis(redis_url, timeout=PATIENT), Redis(redis_url, timeout=PATIENT)],
        [],
    )
    begun = [asyncio.Event(), asyncio.Event()]
    told = []
    for one, redis, event in zip(breakers, redises, begun, strict=True):
        news = News(redis)
        news.on(KIND, shared(one, {"gpt"}, partial(news.tell, KIND)))
        news.on_begun(event.set)
        listening.append(asyncio.ensure_future(news.run()))
        told.append(news)
    async with asyncio.timeout(20):
        await asyncio.gather(*(event.wait() for event in begun))
        for _ in range(5):
            breakers[0].observe("gpt", failed=True)
        while breakers[1].state("gpt") != "open":
            await asyncio.sleep(0.01)
    for task, news, redis in zip(listening, told, redises, strict=True):
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await news.close()
        await redis.close()


@given(st.binary(max_size=60))
def test_what_cannot_be_read_is_passed_over(raw: bytes) -> None:
    async def hear() -> list[bytes]:
        air = Air()
        process = Process(air)
        await asyncio.sleep(0)
        await air.publish("news", raw)
        await process.end()
        return process.heard

    assert asyncio.run(hear()) == []
