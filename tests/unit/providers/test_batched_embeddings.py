"""Embeddings calls put together: who goes with whom, when they go, and that each gets what is its own."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from headgate.model.chat import Json
from headgate.model.clearance import Clearance
from headgate.model.deployment import Deployment
from headgate.model.errors import Malformed, Rejected, Throttled, Unavailable, UpstreamContextTooLong, UpstreamTimeout
from headgate.providers.batched import Batched, items_of
from headgate.providers.lanes import Bounds
from tests.vectors import BAD, Vectors, listed, tokens, vector
from tests.virtual_time import clock, in_virtual_time

HERE = Deployment(name="e", provider="acme", model="e-1")
DELAY = 0.002


class Desk:
    """Batched embeddings over a provider that waits to be told, and callers of it."""

    def __init__(self, *, held: bool = True, items: int = 8, tokens_: int = 100) -> None:
        self.provider = Vectors(held=held)
        self.told: list[tuple[str, int, int]] = []
        self.batched = Batched(
            self.provider,
            Bounds(items=items, tokens=tokens_, delay=DELAY),
            weigh=tokens,
            tell=lambda *call: self.told.append(call),
            chance=random.Random(3),
        )

    def call(
        self, given: Any, *, tenant: str = "a", deployment: Deployment = HERE, timeout: float = 60.0, **more: Any
    ) -> Call:
        return Call(self, deployment, {"model": "public", "input": given, **more}, Clearance("r", 0, tenant), timeout)

    @property
    def sent(self) -> list[list[Any]]:
        """The inputs of each call that went out."""
        return [call.inputs for call in self.provider.asked]

    def answer(self, number: int, end: Any = None) -> None:
        """End one of them."""
        self.provider.asked[number].end.set_result(end)


class Call:
    """A caller, who waits in a task of its own."""

    def __init__(self, desk: Desk, deployment: Deployment, body: Json, clearance: Clearance, timeout: float) -> None:
        self.body = body
        self.clearance = clearance
        self.task = asyncio.create_task(desk.batched.embed(deployment, body, clearance, timeout=timeout))

    async def vectors(self) -> list[Any]:
        """What it got, by the index that each has."""
        rows = {row["index"]: row["embedding"] for row in (await self.task)["data"]}
        return [rows[index] for index in range(len(rows))]

    async def served(self) -> None:
        """It got its own."""
        assert await self.vectors() == [vector(one, self.body) for one in listed(self.body["input"])]

    async def failed(self) -> Any:
        """Its error."""
        with pytest.raises(Exception) as caught:
            await self.task
        return caught.value


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_a_lone_call_goes_at_once_and_is_passed_through_untouched() -> None:
    desk = Desk()
    call = desk.call("one", user="ann", labels=None)
    await turns()
    (asked,) = desk.provider.asked
    assert asked.body is call.body
    assert asked.clearance is call.clearance
    answer = {"data": [{"embedding": "whatever"}], "usage": "of a kind", "beside": 1}
    desk.answer(0, answer)
    assert await call.task is answer


async def test_what_comes_in_one_turn_goes_together_and_each_gets_its_own() -> None:
    desk = Desk(held=False)
    calls = [desk.call("one two"), desk.call(["three", "four five"]), desk.call("six")]
    for call in calls:
        await call.served()
    assert desk.sent == [["one two", "three", "four five", "six"]]
    assert [(await call.task)["usage"]["prompt_tokens"] for call in calls] == [2, 3, 1]
    assert desk.told == [("e", 4, 3)]


@in_virtual_time
async def test_what_comes_while_a_call_is_under_way_waits_for_the_delay_and_no_longer() -> None:
    desk = Desk()
    first = desk.call("one")
    await turns()
    assert (desk.sent, clock()) == ([["one"]], 0.0), "an idle lane does not wait"
    later = [desk.call("two"), desk.call("three")]
    await turns()
    assert desk.sent == [["one"]]
    assert [call.clearance.waiting for call in (first, *later)] == [False, True, True]
    await asyncio.sleep(DELAY)
    await turns()
    assert desk.sent == [["one"], ["two", "three"]]
    desk.answer(1)
    for call in later:
        await call.served()
        assert not call.clearance.waiting
    desk.answer(0)
    await first.served()
    assert clock() == DELAY


@in_virtual_time
async def test_when_the_call_under_way_ends_those_who_wait_go() -> None:
    desk = Desk()
    first = desk.call("one")
    await turns()
    second, third = desk.call("two"), desk.call("three")
    await turns()
    desk.answer(0)
    await first.served()
    await turns()
    assert desk.sent == [["one"], ["two", "three"]]
    desk.answer(1)
    await second.served()
    await third.served()
    assert clock() == 0.0


@in_virtual_time
async def test_enough_inputs_or_tokens_go_without_a_delay() -> None:
    desk = Desk(items=3, tokens_=10)
    first = desk.call("one")
    await turns()
    few = [desk.call("a"), desk.call(["b", "c"])]
    long = [desk.call("d d d d d d"), desk.call("e e e e e")]
    rest = [desk.call("f")]
    await turns()
    assert desk.sent == [["one"], ["a", "b", "c"], ["d d d d d d"]]
    await asyncio.sleep(DELAY)
    await turns()
    assert desk.sent[3:] == [["e e e e e", "f"]]
    for number in range(4):
        desk.answer(number)
    for call in (first, *few, *long, *rest):
        await call.served()


@pytest.mark.parametrize("given", [["w"] * 8, ["w"] * 50, "w " * 100, [list(range(200))], [[1, 2], [3] * 150]])
async def test_what_fills_a_call_by_itself_goes_by_itself_at_once(given: Any) -> None:
    """Who waits until it fits beside others waits for ever when it is larger than all that may go together."""
    desk = Desk()
    small, large = desk.call("one"), desk.call(given)
    await turns()
    assert sorted(map(len, desk.sent)) == sorted([1, len(listed(given))])
    assert next(call for call in desk.provider.asked if call.body is large.body)
    for number in range(2):
        desk.answer(number)
    await small.served()
    await large.served()


OTHER = Deployment(name="f", provider="acme", model="f-1")
APART: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"tenant": "a"}, {"tenant": "b"}),
    ({"deployment": HERE}, {"deployment": OTHER}),
    ({"dimensions": 1}, {"dimensions": 2}),
    ({"dimensions": 2}, {}),
    ({"encoding_format": "base64"}, {"encoding_format": "float"}),
    ({"user": "ann"}, {"user": "bob"}),
    ({"a field of tomorrow": 1}, {"a field of tomorrow": 2}),
]


@pytest.mark.parametrize(("one", "other"), APART)
async def test_what_differs_in_anything_but_its_inputs_never_meets(one: dict[str, Any], other: dict[str, Any]) -> None:
    desk = Desk(held=False)
    calls = [desk.call("x", **one), desk.call("y", **other), desk.call("z", **one)]
    for call in calls:
        await call.served()
    assert desk.sent == [["x", "z"], ["y"]]
    for asked in desk.provider.asked:
        assert {asked.clearance.tenant} == {(one if "x" in asked.inputs else other).get("tenant", "a")}


async def test_texts_and_tokens_never_meet() -> None:
    desk = Desk(held=False)
    calls = [desk.call("x"), desk.call([1, 2]), desk.call([[3], [4, 5]]), desk.call(["y"])]
    for call in calls:
        await call.served()
    assert desk.sent == [["x", "y"], [[1, 2], [3], [4, 5]]]


async def test_vectors_in_base64_are_handed_on_as_they_are() -> None:
    desk = Desk(held=False)
    calls = [
        desk.call("x", encoding_format="base64", dimensions=3),
        desk.call("y", encoding_format="base64", dimensions=3),
    ]
    assert [type((await call.vectors())[0]) for call in calls] == [str, str]
    for call in calls:
        await call.served()
    assert len(desk.sent) == 1


async def test_who_has_no_payer_or_says_something_of_each_input_goes_alone() -> None:
    desk = Desk(held=False)
    calls = [desk.call("x", tenant=""), desk.call("y", tenant="")]
    calls += [desk.call("x", titles=["a"]), desk.call("y", titles=["a"])]
    for call in calls:
        await call.served()
    assert sorted(desk.sent) == [["x"], ["x"], ["y"], ["y"]]


async def test_with_one_input_at_a_time_everybody_goes_alone() -> None:
    desk = Desk(held=False, items=1)
    for call in [desk.call("x"), desk.call("y")]:
        await call.served()
    assert desk.sent == [["x"], ["y"]]


@pytest.mark.parametrize(
    "error", [Rejected("no"), Rejected("too many", status=413), UpstreamContextTooLong("too long")]
)
async def test_of_a_refused_call_each_asks_again_alone_and_only_the_guilty_is_refused(error: Rejected) -> None:
    desk = Desk()
    calls = [desk.call("x"), desk.call([BAD, "y"]), desk.call("z")]
    await turns()
    desk.answer(0, error)
    await turns()
    assert desk.sent[1:] == [["x"], [BAD, "y"], ["z"]]
    for number in (3, 1, 2):
        desk.answer(number)
    await calls[0].served()
    await calls[2].served()
    assert (await calls[1].failed()).message == "This input is bad."
    assert not any(call.clearance.echo for call in calls)
    assert desk.told == [("e", 4, 3), ("e", 1, 1), ("e", 2, 1), ("e", 1, 1)]


async def test_a_refusal_of_the_model_itself_befalls_all_without_another_call() -> None:
    desk = Desk()
    calls = [desk.call("x"), desk.call("y")]
    await turns()
    desk.answer(0, Rejected("no such model", status=404))
    errors = [await call.failed() for call in calls]
    assert [(error.status, error.message) for error in errors] == [(404, "no such model")] * 2
    assert errors[0] is not errors[1], "each will carry the id of its own call"
    assert len(desk.sent) == 1


async def test_a_failure_befalls_all_and_sends_them_back_at_one_time_and_one_speaks_for_them() -> None:
    desk = Desk()
    calls = [desk.call("x"), desk.call("y"), desk.call("z")]
    await turns()
    calls[0].task.cancel()
    await turns()
    desk.answer(0, Throttled("slow down", retry_after=3.0))
    errors = [await call.failed() for call in calls[1:]]
    assert [(type(error), error.retry_after) for error in errors] == [(Throttled, 3.0)] * 2
    assert errors[0].jitter == errors[1].jitter is not None
    assert [call.clearance.echo for call in calls[1:]] == [False, True]
    assert len(desk.sent) == 1


async def test_of_an_answer_one_speaks_for_all() -> None:
    desk = Desk(held=False)
    calls = [desk.call("x"), desk.call("y")]
    for call in calls:
        await call.served()
    assert [call.clearance.echo for call in calls] == [False, True]


async def test_a_lone_failure_is_nobody_elses() -> None:
    desk = Desk()
    call = desk.call("x")
    await turns()
    desk.answer(0, Unavailable("down"))
    error = await call.failed()
    assert error.jitter is None
    assert not call.clearance.echo


async def test_an_answer_without_a_vector_for_each_is_nobodys_and_each_is_told_its_share() -> None:
    desk = Desk()
    calls = [desk.call("x x x"), desk.call("y")]
    await turns()
    desk.answer(0, {"data": [{"index": 0, "embedding": [1.0]}], "usage": {"prompt_tokens": 10, "total_tokens": 10}})
    errors = [await call.failed() for call in calls]
    assert [(type(error), error.sent) for error in errors] == [(Malformed, True)] * 2
    assert [call.clearance.told.prompt_tokens for call in calls if call.clearance.told] == [8, 2]


@in_virtual_time
async def test_who_leaves_before_it_goes_takes_its_inputs_along() -> None:
    desk = Desk()
    first = desk.call("one")
    await turns()
    stays, leaves = desk.call("two"), desk.call("three")
    await turns()
    leaves.task.cancel()
    await turns()
    assert leaves.task.cancelled()
    assert leaves.clearance.waiting, "nothing of it was sent, so it owes nothing"
    await asyncio.sleep(DELAY)
    await turns()
    assert desk.sent == [["one"], ["two"]]
    desk.answer(0)
    desk.answer(1)
    await first.served()
    await stays.served()


async def test_who_leaves_afterwards_takes_nothing_from_the_others() -> None:
    desk = Desk()
    stays, leaves = desk.call("one"), desk.call("two three four")
    await turns()
    leaves.task.cancel()
    await turns()
    assert not leaves.clearance.waiting
    desk.answer(0)
    await stays.served()
    assert (await stays.task)["usage"]["prompt_tokens"] == 1, "who left has used its own share"


async def test_a_call_that_all_have_left_is_given_up() -> None:
    desk = Desk()
    calls = [desk.call("one"), desk.call("two")]
    await turns()
    for call in calls:
        call.task.cancel()
        await turns()
    assert desk.provider.open == 0
    assert desk.provider.asked[0].end.cancelled()
    again = desk.call("three")
    await turns()
    desk.answer(1)
    await again.served()


@in_virtual_time
async def test_everybody_has_its_own_time() -> None:
    desk = Desk()
    patient, hasty = desk.call("one", timeout=9.0), desk.call("two", timeout=1.0)
    await turns()
    assert desk.provider.asked[0].timeout == 9.0
    error = await hasty.failed()
    assert (type(error), error.sent, clock()) == (UpstreamTimeout, True, 1.0)
    waits = desk.call("three", timeout=DELAY / 2)
    error = await waits.failed()
    assert (type(error), error.sent) == (UpstreamTimeout, False)
    desk.answer(0)
    await patient.served()
    assert desk.sent == [["one", "two"]]


async def test_closing_gives_up_what_waits_and_what_is_under_way() -> None:
    desk = Desk()
    first = desk.call("one")
    await turns()
    second = desk.call("two")
    await turns()
    await desk.batched.close()
    assert desk.provider.closed
    for call in (first, second):
        assert isinstance(await call.failed(), Unavailable)
    assert desk.provider.open == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize(
    ("given", "items"),
    [
        ("x", ["x"]),
        (["x", "y"], ["x", "y"]),
        ([1, 2], [[1, 2]]),
        ([[1], [2]], [[1], [2]]),
        ([], []),
        (["x", [1]], []),
        ([1, "x"], []),
        (None, []),
        ({"text": "x"}, []),
    ],
)
def test_inputs_are_told_apart(given: Any, items: list[Any]) -> None:
    assert items_of(given) == items
