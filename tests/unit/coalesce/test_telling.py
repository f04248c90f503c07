"""Telling and hearing: one flight and its copy, at the edges that whole gateways seldom come to."""

from __future__ import annotations

import asyncio

import pytest

from headgate.coalesce.coalesce import Flight
from headgate.coalesce.hearing import Hearing
from headgate.coalesce.memory import Board, MemoryRelay
from headgate.coalesce.relay import LINGER, TTL, Log
from headgate.coalesce.telling import MOST, Telling
from headgate.model.chat import Completion, Delta, Event
from headgate.model.money import Usage
from tests.replicas import Wire
from tests.virtual_time import clock, in_virtual_time


def delta(text: str) -> Event:
    return Delta([{"index": 0, "delta": {"content": text}, "finish_reason": None}])


def whole(text: str) -> Completion:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return Completion(model="m", choices=[choice], usage=Usage(), reported={})


class Pair:
    """A flight that is told, and what is heard of it."""

    def __init__(self) -> None:
        board = Board(clock)
        self.near, self.far = Wire(MemoryRelay(board, "near")), Wire(MemoryRelay(board, "far"))
        self.flight = Flight("id-1")
        self.given = False

    async def begin(self) -> None:
        await self.lead()
        await self.follow()

    async def lead(self) -> None:
        self.log: Log = await self.near.join("acme", "p")
        self.telling = Telling(self.near, self.log, self.flight, lambda _: True)
        self.near.hear("p", self.telling.wake)
        self.tasks = [asyncio.create_task(self.telling.run())]

    async def follow(self) -> None:
        self.hearing = Hearing(self.far, await self.far.join("acme", "p"), given=lambda: self.given)
        self.far.hear("p", self.hearing.wake)
        self.copy = self.hearing.copy
        self.tasks.append(asyncio.create_task(self.hearing.run()))
        await asyncio.sleep(0.1)

    def end(self, completion: Completion) -> None:
        self.flight.land(completion)
        self.telling.over(kept=True)

    async def over(self) -> None:
        await asyncio.gather(*self.tasks)

    @property
    def heard(self) -> str:
        deltas = [event for event in self.copy.events if isinstance(event, Delta)]
        return "".join(one.choices[0]["delta"]["content"] for one in deltas)


@in_virtual_time
async def test_the_first_part_is_told_at_once_and_the_next_ones_together() -> None:
    pair = Pair()
    await pair.begin()
    pair.flight.publish(delta("a"))
    await asyncio.sleep(0.001)
    assert (pair.heard, pair.near.pages) == ("a", 1)
    for text in "bcd":
        pair.flight.publish(delta(text))
        await asyncio.sleep(0.01)
    assert (pair.heard, pair.near.pages) == ("a", 1)
    await asyncio.sleep(0.03)
    assert (pair.heard, pair.near.pages) == ("abcd", 2)
    pair.end(whole("abcd"))
    await pair.over()


@in_virtual_time
async def test_much_is_told_before_its_time() -> None:
    pair = Pair()
    await pair.begin()
    pair.flight.publish(delta("a"))
    await asyncio.sleep(0.001)
    pair.flight.publish(delta("b" * 128))
    await asyncio.sleep(0.001)
    assert pair.heard == "a" + "b" * 128
    pair.end(whole("all"))
    await pair.over()


@pytest.mark.parametrize("parts", [1, 3])
@in_virtual_time
async def test_an_answer_that_is_too_long_to_be_passed_on_fails_there_and_nowhere_else(parts: int) -> None:
    pair = Pair()
    await pair.begin()
    for _ in range(parts):
        pair.flight.publish(delta("x" * (MOST // 2)))
        await asyncio.sleep(0.1)
    pair.end(whole("x" * (MOST // 2 * parts)))
    await pair.over()
    assert pair.copy.error is not None
    assert pair.copy.error.label == "stream_interrupted"
    assert pair.flight.completion is not None


@in_virtual_time
async def test_a_page_whose_fate_is_unknown_is_told_again_and_heard_once() -> None:
    pair = Pair()
    await pair.begin()
    pair.near.deaf = True
    pair.flight.publish(delta("a"))
    await asyncio.sleep(0.01)
    pair.flight.publish(delta("b"))
    await asyncio.sleep(2.0)
    pair.near.deaf = False
    await asyncio.sleep(2.0)
    assert pair.heard == "ab"
    pair.end(whole("ab"))
    await pair.over()


@in_virtual_time
async def test_who_comes_when_the_answer_is_there_and_being_stored_has_it_at_once() -> None:
    pair = Pair()
    await pair.lead()
    pair.flight.land(whole("a"))
    await asyncio.sleep(0.5)
    assert pair.near.pages == 0
    await pair.follow()
    assert pair.copy.completion == whole("a")
    assert clock() < 1.0
    pair.telling.over(kept=True)
    await pair.over()


@in_virtual_time
async def test_a_leader_that_reaches_nobody_gives_up_when_its_log_is_gone() -> None:
    pair = Pair()
    await pair.begin()
    pair.near.cut = True
    await pair.tasks[0]
    assert clock() <= TTL + 1.0
    await pair.tasks[1]
    assert pair.copy.error is not None


@in_virtual_time
async def test_a_log_that_is_over_is_forgotten_after_a_moment() -> None:
    pair = Pair()
    await pair.begin()
    pair.end(whole("a"))
    await pair.over()
    assert not (await pair.far.join("acme", "p")).leads
    await asyncio.sleep(LINGER)
    assert (await pair.far.join("acme", "p")).leads
