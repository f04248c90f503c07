"""What is kept of calls, and what is concluded from what their users do next."""

from __future__ import annotations

import numpy as np

from headgate.model.chat import ChatRequest
from headgate.model.record import Attempt, CallRecord
from headgate.model.tenancy import Policy
from headgate.routing.difficulty import WEIGHTS
from headgate.routing.knn import Neighbours
from headgate.routing.outcomes import Outcome
from headgate.routing.outcomes_keeping import AGAIN, Outcomes
from headgate.routing.outcomes_memory import MemoryOutcomes
from headgate.routing.route import Decision, Route

AUTO = Route("auto", {"low": ("small",), "medium": ("middle",), "high": ("large",)})
DECIDED = Decision("code", "low", 0.7, "plain", decider="features", propensity=0.99)
VECTORS = {"parcel?": [1, 0, 0], "where is my parcel?": [0.99, 0.1, 0], "refund?": [0, 1, 0]}


class Fixed:
    async def embed(self, text: str) -> np.ndarray:
        vector = np.array(VECTORS[text], np.float32)
        return vector / np.linalg.norm(vector)


class House:
    def __init__(self) -> None:
        self.log = MemoryOutcomes()
        self.neighbours = Neighbours(3)
        routes = {"auto": AUTO}.get
        self.outcomes = Outcomes(self.log, routes, embed=Fixed().embed, neighbours=self.neighbours)
        self._calls = 0

    async def call(self, text: str = "parcel?", *, at: float = 0.0, user: str | None = "ann", **more) -> str:
        self._calls += 1
        fields = {
            "id": f"c{self._calls}",
            "at": at,
            "tenant": "acme",
            "user": user,
            "route": "auto",
            "status": 200,
            "deployment": "small",
            "attempts": (Attempt(deployment="small", outcome="ok", seconds=0.5),),
            "cost": 7,
            "saved": 0,
            "duration": 0.6,
            **more,
        }
        request = ChatRequest.parse({"model": "auto", "messages": [{"role": "user", "content": text}]})
        record = CallRecord(**fields)
        self.outcomes.bought(record, request, DECIDED, Policy())
        await self.outcomes.idle()
        return record.id

    def kept(self) -> dict[str, Outcome]:
        return {one.id: one for one in self.log.past()}

    def said(self) -> dict[str, tuple[float | None, str | None]]:
        return {id: (one.outcome, one.origin) for id, one in self.kept().items()}


async def test_a_row_has_all_that_can_never_be_known_later_and_no_text() -> None:
    house = House()
    await house.call()
    (row,) = house.kept().values()
    assert row.candidates == AUTO.tiers
    assert (row.tier, row.propensity, row.decider, row.task) == ("low", 0.99, "features", "code")
    assert len(row.features) == len(WEIGHTS)
    assert len(row.vector) == 3
    assert (row.deployment, row.cost, row.latency) == ("small", 7, 0.6)
    assert (row.outcome, row.origin) == (None, None)
    assert "parcel" not in repr(row)


async def test_feedback_on_a_call_is_its_outcome_and_teaches() -> None:
    house = House()
    id = await house.call()
    assert house.outcomes.heard("acme", id, 1.0)
    assert house.said() == {id: (1.0, "feedback")}
    assert len(house.neighbours) == 1
    assert not house.outcomes.heard("other", id, 0.0)
    assert not house.outcomes.heard("acme", "unknown", 0.0)


async def test_who_asks_nearly_the_same_again_soon_was_not_content() -> None:
    house = House()
    first = await house.call("parcel?")
    second = await house.call("where is my parcel?", at=60.0)
    assert house.said() == {first: (0.0, "retry"), second: (None, None)}


async def test_who_does_not_was_content() -> None:
    house = House()
    first = await house.call("parcel?")
    second = await house.call("refund?", at=60.0)
    assert house.said()[first] == (None, None)
    await house.call("parcel?", at=AGAIN + 1)
    assert house.said()[first] == (1.0, "retry")
    assert house.said()[second] == (None, None)


async def test_another_users_question_and_one_of_nobody_say_nothing() -> None:
    house = House()
    await house.call("parcel?", user="ann")
    await house.call("parcel?", user="bob", at=1.0)
    await house.call("parcel?", user=None, at=2.0)
    await house.call("parcel?", user=None, at=3.0)
    assert set(house.said().values()) == {(None, None)}


async def test_what_somebody_has_said_stands_against_what_was_concluded() -> None:
    house = House()
    first = await house.call("parcel?")
    house.outcomes.heard("acme", first, 1.0, "judge")
    await house.call("parcel?", at=10.0)
    assert house.said()[first] == (1.0, "judge")
    house.outcomes.heard("acme", first, 0.0)
    house.outcomes.heard("acme", first, 1.0, "judge")
    assert house.said()[first] == (0.0, "feedback")
    house.outcomes.heard("acme", first, 1.0)
    assert house.said()[first] == (1.0, "feedback"), "who changes his mind is heard"


async def test_a_call_without_an_answer_is_an_error_that_teaches_no_tier() -> None:
    house = House()
    id = await house.call(status=502, error="all_failed", deployment=None)
    assert house.said() == {id: (0.0, "error")}
    assert len(house.neighbours) == 0


async def test_a_question_that_nothing_can_read_has_a_row_all_the_same() -> None:
    house = House()
    id = await house.call("something else")
    assert house.kept()[id].vector == b""
    assert house.outcomes.lost == 0


async def test_routes_without_tiers_are_not_kept() -> None:
    house = House()
    await house.call(route="flat")
    assert house.kept() == {}


async def test_what_earlier_runs_kept_is_known_and_can_still_be_spoken_of() -> None:
    house = House()
    first, second = await house.call("parcel?"), await house.call("refund?")
    house.outcomes.heard("acme", first, 1.0)
    later = House()
    later.outcomes.recall(house.log.past())
    assert len(later.neighbours) == 1
    assert later.outcomes.heard("acme", second, 0.0)
    assert len(later.neighbours) == 2
