"""The decider that learns from outcomes, and how it finds the like of a question."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.model.chat import ChatRequest
from headgate.model.tenancy import Policy
from headgate.routing.deciders import Asked, Deciders
from headgate.routing.features import Features
from headgate.routing.knn import KnnDecider, Neighbours
from headgate.routing.knn_cells import FULL, Cells, quantised, restored
from headgate.routing.outcomes import Outcome
from headgate.routing.route import Route
from headgate.routing.uplift import Uplift, UpliftFile

SIZE = 16
CHANCE = np.random.default_rng(3)
TIERS = {"low": ("small",), "medium": ("middle",), "high": ("large",)}
AUTO = Route("auto", TIERS, deciders=("knn",))


def near(axis: int, spread: float = 0.1) -> np.ndarray:
    vector = np.zeros(SIZE, np.float32)
    vector[axis] = 1
    vector += spread * CHANCE.normal(size=SIZE).astype(np.float32)
    return vector / np.linalg.norm(vector)


def outcome(number: int, axis: int, tier: str, worth: float | None, *, tenant: str = "acme", **more) -> Outcome:
    fields = {
        "id": f"{tenant}{number}",
        "at": float(number),
        "tenant": tenant,
        "route": "auto",
        "candidates": TIERS,
        "tier": tier,
        "propensity": 1.0,
        "vector": quantised(near(axis)),
        "outcome": worth,
        "origin": None if worth is None else "feedback",
    }
    return Outcome(**{**fields, **more})


class Fixed:
    """An embedder that knows one vector for each text."""

    def __init__(self, **vectors: np.ndarray) -> None:
        self._vectors = vectors

    async def embed(self, text: str) -> np.ndarray:
        return self._vectors[text]


def asked(text: str = "q", *, tenant: str = "acme", route: Route = AUTO, policy: Policy | None = None) -> Asked:
    request = ChatRequest.parse({"model": "auto", "messages": [{"role": "user", "content": text}]})
    return Asked(
        id="c",
        tenant=tenant,
        user=None,
        policy=policy or Policy(),
        route=route,
        request=request,
        seen=Features(),
        text=text,
    )


def learnt(*groups: tuple[int, str, float, int], tenant: str = "acme") -> Neighbours:
    """`(axis, tier, worth, how many)` each."""
    found, number = Neighbours(SIZE), 0
    for axis, tier, worth, count in groups:
        for _ in range(count):
            number += 1
            found.learn(outcome(number, axis, tier, worth, tenant=tenant))
    return found


def opinion(neighbours: Neighbours, axis: int = 0, **more):
    return asyncio.run(KnnDecider(Fixed(q=near(axis, 0)).embed, neighbours).opinion(asked(**more)))


def test_where_the_cheap_tier_did_as_well_it_is_chosen() -> None:
    found = opinion(learnt((0, "low", 1.0, 40), (0, "high", 1.0, 40)))
    assert found.tier == "low"
    assert found.confidence > 0.75


def test_where_only_the_better_tier_did_well_it_is_chosen() -> None:
    found = opinion(learnt((0, "low", 0.1, 40), (0, "high", 1.0, 40)))
    assert found.tier == "high"
    assert found.confidence > 0.9
    assert found.reason.startswith("uplift:")


def test_each_kind_of_question_is_decided_by_its_own_like() -> None:
    known = learnt((0, "low", 1.0, 90), (0, "high", 1.0, 90), (1, "low", 0.0, 90), (1, "high", 1.0, 90))
    assert (opinion(known, 0).tier, opinion(known, 1).tier) == ("low", "high")


def test_it_abstains_far_from_all_that_is_known_and_where_only_one_tier_is_known() -> None:
    known = learnt((0, "low", 1.0, 40), (0, "high", 1.0, 40))
    assert opinion(known, 5).tier is None
    assert opinion(learnt((0, "low", 1.0, 400))).tier is None
    assert opinion(learnt((0, "low", 1.0, 3), (0, "high", 1.0, 3))).tier is None
    assert opinion(Neighbours(SIZE)).reason == "few"


def test_another_tenants_neighbours_are_never_looked_at() -> None:
    known = learnt((0, "low", 1.0, 40), (0, "high", 1.0, 40), tenant="other")
    assert opinion(known).tier is None
    assert opinion(known, tenant="other").tier == "low"


def test_nothing_above_the_ceiling_or_shut_to_the_tenant_is_weighed() -> None:
    known = learnt((0, "low", 0.0, 40), (0, "medium", 0.6, 40), (0, "high", 1.0, 40))
    capped = Route("auto", TIERS, deciders=("knn",), ceiling="medium")
    assert opinion(known).tier == "high"
    assert opinion(known, route=capped).tier == "medium"
    assert opinion(known, policy=Policy(allowed_models=("small", "middle"))).tier == "medium"


def test_errors_of_providers_and_unknown_outcomes_teach_nothing() -> None:
    known = Neighbours(SIZE)
    known.learn(outcome(1, 0, "low", 0.0, origin="error"))
    known.learn(outcome(2, 0, "low", None))
    known.learn(outcome(3, 0, "low", 1.0, vector=b"123"))
    assert len(known) == 0


def test_a_later_word_on_a_call_takes_the_place_of_an_earlier_one() -> None:
    known = learnt((0, "low", 1.0, 40), (0, "high", 1.0, 40))
    for number in range(1, 41):
        known.learn(outcome(number, 0, "low", 0.0))
    assert len(known) == 80
    assert opinion(known).tier == "high"


def test_the_oldest_are_forgotten() -> None:
    known = Neighbours(SIZE, most=10)
    for number in range(25):
        known.learn(outcome(number, number % 3, "low", 1.0))
    assert len(known) == 10
    assert known.mean("auto", "low") == pytest.approx(1.0)
    assert known.mean("auto", "high") is None


def test_a_decider_that_cannot_read_the_question_has_abstained() -> None:
    decider = KnnDecider(Fixed().embed, Neighbours(SIZE))
    found = asyncio.run(Deciders({"knn": decider}).decide(asked(), "chat"))
    assert (found.tier, found.decider, found.confidence) == ("medium", None, 0.0)


def fitted(weight: float, *, floor: float = 0.5) -> Uplift:
    """Uplift along the first axis, known around the first two."""
    import base64

    points = b"".join(quantised(near(axis)) for axis in (0, 1) for _ in range(8))
    return Uplift(
        UpliftFile(
            format=1,
            embedder="e",
            dimensions=SIZE,
            rows=16,
            cheap=0.6,
            rich=0.9,
            weights=(weight, *[0.0] * SIZE),
            intercept=0.0,
            floor=floor,
            points=base64.b64encode(points).decode(),
        )
    )


def test_a_fitted_model_speaks_before_the_tenants_own_outcomes_and_is_outvoted_by_them() -> None:
    def by(neighbours: Neighbours, axis: int):
        decider = KnnDecider(Fixed(q=near(axis, 0)).embed, neighbours, fitted={"auto": fitted(0.8)})
        return asyncio.run(decider.opinion(asked()))

    assert by(Neighbours(SIZE), 0).tier == "high"
    assert by(Neighbours(SIZE), 1).tier == "low"
    assert by(Neighbours(SIZE), 9).tier is None
    assert by(learnt((0, "low", 1.0, 100), (0, "medium", 0.4, 100), (0, "high", 0.4, 100)), 0).tier == "low"


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3 * FULL), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_what_was_added_is_found_by_its_own_vector_until_it_is_dropped(count: int, seed: int, gone: float) -> None:
    chance = np.random.default_rng(seed)
    stored = [quantised(row) for row in chance.normal(size=(count, SIZE)).astype(np.float32)]
    cells = Cells(SIZE)
    for number, one in enumerate(stored):
        cells.add(number, one)
    dropped = set(np.flatnonzero(chance.random(count) < gone).tolist())
    for number in dropped:
        cells.drop(number)
    assert len(cells) == count - len(dropped)
    for number in {0, count // 2, count - 1}:
        numbers, similar = cells.near(restored(stored[number]))
        assert (number in numbers.tolist()) == (number not in dropped)
        if number not in dropped:
            assert similar[numbers.tolist().index(number)] == pytest.approx(1.0, abs=1e-4)
        assert not dropped & set(numbers.tolist())


def test_a_tenant_with_one_outcome_takes_little_memory() -> None:
    known = Neighbours(SIZE)
    for number in range(200):
        known.learn(outcome(number, 0, "low", 1.0, tenant=f"t{number}"))
    assert len(known) == 200
    (cell,) = known._cells["t0", "auto"]._cells
    assert cell.rows.nbytes <= 8 * SIZE


def test_many_of_the_same_vector_can_be_kept() -> None:
    cells, stored = Cells(SIZE), quantised(near(0))
    for number in range(3 * FULL):
        cells.add(number, stored)
    assert len(cells) == 3 * FULL
    assert len(cells.near(restored(stored))[0]) > 0


def test_a_vector_without_a_direction_is_none() -> None:
    assert quantised(np.zeros(SIZE, np.float32)) == b""
    with pytest.raises(ValueError, match="dimensions"):
        Cells(SIZE).add(1, b"123")
