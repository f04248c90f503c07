"""Embeddings of many callers under every interleaving: they come, leave, run out of time; calls are answered, fail, or are refused.

Time stands still but for what a step lets pass. What must hold is said in `settled`: each caller has its own vectors in its own order or
an error that is its own, what two tenants ask for never meets, shares sum to the provider's count, and nothing is left behind.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.model.clearance import Clearance
from headgate.model.deployment import Deployment
from headgate.model.errors import Rejected, Throttled, Unavailable, UpstreamError, UpstreamTimeout
from headgate.providers.batched import Batched
from headgate.providers.lanes import Bounds
from tests.chaos import times
from tests.vectors import BAD, Asked, Vectors, listed, tokens, vector
from tests.virtual_time import run

HERE = Deployment(name="e", provider="acme", model="e-1")
DELAY = 0.002
BOUNDS = Bounds(items=8, tokens=30, delay=DELAY)

BAD_SIZE = 0
"""Of an input that the provider refuses."""

sizes = st.lists(st.integers(1, 4), min_size=1, max_size=3)
visits = st.fixed_dictionaries(
    {
        "sizes": sizes | sizes | sizes | st.sampled_from([[2, BAD_SIZE], [BAD_SIZE], [1] * 9, [40]]),
        "timeout": st.sampled_from([60.0, 60.0, 60.0, 0.003]),
        "tenant": st.sampled_from(["a", "a", "a", "a", "b", ""]),
    }
)
ways = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["texts", "texts", "texts", "tokens", "text"]),
        "dimensions": st.sampled_from([1, 1, 1, 2]),
    }
)
arrivals = st.tuples(st.just("arrive"), ways, st.lists(visits, min_size=1, max_size=6))
ends = st.sampled_from(["answer", "answer", "answer", "throttle", "break", "refuse", "missing", "shorten", "timeout"])
steps = st.one_of(
    arrivals,
    arrivals,
    st.tuples(st.just("leave"), st.integers(0, 50)),
    st.tuples(st.just("end"), st.integers(0, 50), ends),
    st.tuples(st.just("turn"), st.integers(1, 4)),
    st.tuples(st.just("pass"), st.sampled_from([DELAY / 2, DELAY])),
)

ERRORS = {
    "throttle": lambda: Throttled("slow down"),
    "break": lambda: Unavailable("broke"),
    "refuse": lambda: Rejected("no"),
    "missing": lambda: Rejected("no such model", status=404),
    "timeout": lambda: UpstreamTimeout("late"),
}


class Visitor:
    """One caller, whose inputs nobody else has, and all that it was told."""

    def __init__(self, batched: Batched, number: int, visit: dict[str, Any]) -> None:
        self.clearance = Clearance("r", 0, visit["tenant"])
        self.body = {"model": "public", "input": _inputs(number, **visit), "dimensions": visit["dimensions"]}
        self.left = False
        self.over = 0
        self.task = asyncio.create_task(batched.embed(HERE, self.body, self.clearance, timeout=visit["timeout"]))

    @property
    def inputs(self) -> list[Any]:
        return listed(self.body["input"])

    def settled(self) -> None:
        """It has its own vectors, or an error that is its own."""
        if self.task.cancelled():
            assert self.left
            return
        error = self.task.exception()
        if error is None:
            rows = {row["index"]: row["embedding"] for row in self.task.result()["data"]}
            assert rows == dict(enumerate(vector(one, self.body) for one in self.inputs))
            return
        assert isinstance(error, UpstreamError)
        if error.message == "This input is bad.":
            assert BAD in self.inputs, "only the guilty is refused"
        if self.clearance.waiting:
            assert isinstance(error, UpstreamTimeout)
            assert not error.sent


def _inputs(number: int, sizes: list[int], kind: str, **_: Any) -> Any:
    if kind == "tokens":
        return [[number, place] + [7] * size for place, size in enumerate(sizes)]
    texts = [f"{number} {place}{' w' * size}" if size != BAD_SIZE else BAD for place, size in enumerate(sizes)]
    return texts[-1] if kind == "text" else texts


class Scene:
    """The provider, the callers, and what each step does."""

    def __init__(self) -> None:
        self.provider = Vectors(held=True)
        self.heard: list[tuple[int, int]] = []
        self.batched = Batched(
            self.provider, BOUNDS, weigh=tokens, tell=lambda _, items, callers: self.heard.append((items, callers))
        )
        self.visitors: list[Visitor] = []

    async def step(self, kind: str, *how: Any) -> None:
        if kind == "arrive":
            for visit in how[1]:
                visitor = Visitor(self.batched, len(self.visitors), {**how[0], **visit})
                visitor.task.add_done_callback(functools.partial(self.gone, visitor))
                self.visitors.append(visitor)
        elif kind == "leave" and self.visitors:
            visitor = self.visitors[how[0] % len(self.visitors)]
            visitor.left = visitor.task.cancel() or visitor.left
        elif kind == "end" and self.open:
            self.end(self.open[how[0] % len(self.open)], how[1])
        elif kind == "turn":
            for _ in range(how[0]):
                await asyncio.sleep(0)
        elif kind == "pass":
            await asyncio.sleep(how[0])

    def gone(self, visitor: Visitor, _: object) -> None:
        """Note how many calls there had been by then."""
        visitor.over = len(self.provider.asked)

    @property
    def open(self) -> list[Asked]:
        return [asked for asked in self.provider.asked if not asked.end.done()]

    def of(self, asked: Asked) -> list[Visitor]:
        """Whose inputs a call holds."""
        return [one for one in self.visitors if any(given in asked.inputs for given in one.inputs if given != BAD)]

    def end(self, asked: Asked, how: str) -> None:
        """An answer that is too short is taken apart for nobody; to who goes alone it would be passed on as it is."""
        if how == "shorten" and len(self.of(asked)) > 1:
            asked.end.set_result({**asked.answer(), "data": []})
        else:
            asked.end.set_result(ERRORS[how]() if how in ERRORS else None)

    async def finish(self) -> None:
        """What is under way has somebody who waits for it. All calls that are made from now on are answered."""
        for _ in range(4):
            await asyncio.sleep(0)
        for asked in self.open:
            assert BAD in asked.inputs or not all(visitor.task.done() for visitor in self.of(asked))
        while not all(visitor.task.done() for visitor in self.visitors):
            for asked in self.open:
                self.end(asked, "answer")
            await asyncio.sleep(DELAY / 4)

    def settled(self) -> None:
        for visitor in self.visitors:
            visitor.settled()
        assert self.provider.open == 0
        for number, asked in enumerate(self.provider.asked):
            self.one_call(asked)
            assert all(number < visitor.over for visitor in self.of(asked)), "nothing is sent for who has left"
        assert [items for items, _ in self.heard] == [len(asked.inputs) for asked in self.provider.asked]

    def one_call(self, asked: Asked) -> None:
        """Whole callers of one payer and one way of asking, none who had left, and no more than may go together."""
        callers = self.of(asked)
        assert len(asked.inputs) <= sum(len(caller.inputs) for caller in callers) + asked.inputs.count(BAD)
        assert {caller.body["dimensions"] for caller in callers} <= {asked.body["dimensions"]}
        assert not any(caller.clearance.waiting for caller in callers), "what was sent is owed"
        if len(callers) > 1:
            assert len({(caller.clearance.tenant, type(caller.inputs[0])) for caller in callers}) == 1
            assert asked.clearance.tenant == callers[0].clearance.tenant != ""
            assert len(asked.inputs) <= BOUNDS.items
            assert tokens(asked.body["input"]) <= BOUNDS.tokens


@given(st.lists(steps, min_size=2, max_size=25))
@settings(max_examples=times(150, 10_000), deadline=None)
def test_whoever_comes_leaves_or_fails_everybody_gets_what_is_its_own(script: list[tuple[Any, ...]]) -> None:
    async def play() -> None:
        scene = Scene()
        for kind, *how in script:
            await scene.step(kind, *how)
        await scene.finish()
        for _ in range(4):
            await asyncio.sleep(0)
        scene.settled()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await scene.batched.close()

    run(play())


parties = st.lists(st.lists(st.text("ab ", min_size=1, max_size=9), min_size=1, max_size=3), min_size=2, max_size=12)


@given(parties, st.integers(0, 10_000), st.sets(st.integers(0, 11), max_size=4))
@settings(max_examples=times(100, 5_000), deadline=None)
def test_what_all_pay_for_is_what_the_provider_counted(asked: list[list[str]], count: int, leaving: set[int]) -> None:
    """Also of those who left after their inputs had gone: their share is charged to nobody else."""

    async def play() -> None:
        provider = Vectors(held=True)
        batched = Batched(provider, Bounds(items=100, tokens=10_000), weigh=tokens)
        bodies = [{"model": "public", "input": one} for one in asked]
        visitors = [
            asyncio.create_task(batched.embed(HERE, body, Clearance("r", 0, "a"), timeout=60.0)) for body in bodies
        ]
        for _ in range(4):
            await asyncio.sleep(0)
        (call,) = provider.asked
        gone = {index for index in leaving if index < len(visitors) - 1}
        for index in gone:
            visitors[index].cancel()
        usage = {"prompt_tokens": count, "total_tokens": count}
        call.end.set_result({**call.answer(), "usage": usage})
        stay = [visitor for index, visitor in enumerate(visitors) if index not in gone]
        answers = await asyncio.gather(*stay)
        shares = [answer["usage"]["prompt_tokens"] for answer in answers]
        weights = [max(1, tokens(one)) for one in asked]
        if not gone:
            assert sum(shares) == count
        own = [weight for index, weight in enumerate(weights) if index not in gone]
        for share, weight in zip(shares, own, strict=True):
            assert abs(share - count * weight / sum(weights)) < 1
        assert sum(shares) <= count
        assert [answer["usage"]["total_tokens"] for answer in answers] == shares

    run(play())
