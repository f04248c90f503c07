"""Hedged calls under any interleaving of two providers' beginnings, ends and failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from hypothesis import assume, given
from hypothesis import strategies as st

from headgate.model.chat import ChatRequest, Event
from headgate.model.clearance import Clearance
from headgate.model.deployment import Deployment
from headgate.model.errors import AllFailed, Interrupted, Unavailable
from headgate.providers.scripted import ScriptedProvider, answer
from headgate.routing.fleet import Place
from headgate.routing.retries import RetryBudget
from headgate.routing.scores import FEW
from tests.scenarios.house import CALLER, House, ask

PLAYS = st.tuples(
    st.integers(0, 12), st.sampled_from(["answers", "fails", "breaks off", "falls silent"]), st.integers(0, 4)
)
"""Turns of the event loop before it begins, how it ends, and the turns between its parts."""


class Player(ScriptedProvider):
    """Plays the same play for every call."""

    def __init__(self, name: str, play: tuple[int, str, int]) -> None:
        super().__init__()
        self.name = name
        self.play = play
        self.inside = 0

    async def send(
        self, deployment: Deployment, request: ChatRequest, clearance: Clearance, *, timeout: float
    ) -> AsyncGenerator[Event, None]:
        before, end, between = self.play
        self.inside += 1
        try:
            await turns(before)
            if end == "falls silent":
                await asyncio.Event().wait()
            if end == "fails":
                raise Unavailable("down")
            for number, event in enumerate(answer(f"{self.name} ", f"{self.name} ", f"{self.name}.")):
                if number == 2 and end == "breaks off":
                    raise Unavailable("cut")
                yield event
                await turns(between)
        finally:
            self.inside -= 1


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def known(house: House) -> None:
    """How long answers of the first deployment take to begin is known: no time at all."""
    for _ in range(FEW):
        place = await house.fleet.enter("one", tokens=0, patience=0.0)
        assert isinstance(place, Place)
        place.answered(0.0, stream=True)
        place.succeeded(0)
        place.leave()


@given(PLAYS, PLAYS)
def test_one_answers_alone_nothing_stays_under_way_and_every_attempt_is_paid_once(
    first: tuple[int, str, int], second: tuple[int, str, int]
) -> None:
    assume(first[1] != "falls silent" or second[1] in ("answers", "breaks off"))
    assume(second[1] != "falls silent" or first[1] in ("answers", "breaks off"))

    async def play() -> None:
        one, two = Player("one", first), Player("two", second)
        budget = RetryBudget(share=1.0, reserve_per_second=0.0, clock=lambda: 0.0)
        house = House({"one": one, "two": two}, hedges={"auto": budget})
        await known(house)
        said = ""
        async with await house.gateway.chat(CALLER, ask(stream=True)) as reply:
            try:
                await reply.opened()
                async for event in reply.events():
                    for choice in getattr(event, "choices", ()):
                        said += choice["delta"].get("content") or ""
                assert said in ("one one one.", "two two two.")
            except Interrupted:
                assert said in ("one one ", "two two ")
            except AllFailed:
                assert (first[1], second[1]) == ("fails", "fails")
        await house.flown()
        assert one.inside == two.inside == 0
        assert [house.fleet.health(name)["inside"] for name in ("one", "two")] == [0, 0]
        assert house.ledger.open_reservations() == 0
        assert len(reply.trail.attempts) <= 3
        assert sum(attempt.outcome == "ok" for attempt in reply.trail.attempts) <= 1
        assert await house.settled() == sum(attempt.cost for attempt in reply.trail.attempts)

    asyncio.run(play())
