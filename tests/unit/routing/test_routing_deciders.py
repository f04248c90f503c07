"""Who is asked, whose word counts, and what no guess may do."""

from __future__ import annotations

import pytest

from headgate.model.chat import ChatRequest
from headgate.model.tenancy import Policy
from headgate.routing.deciders import Asked, Deciders, Opinion
from headgate.routing.features import features
from headgate.routing.route import TIERS, Decision, Route, Tier

REQUEST = ChatRequest.parse({"model": "auto", "messages": [{"role": "user", "content": "Where is my parcel?"}]})


class Voice:
    """A decider that says what it is told to."""

    def __init__(self, tier: Tier | None, confidence: float = 0.5, error: Exception | None = None) -> None:
        self.asked = 0
        self.error = error
        self.said = Opinion(tier=tier, confidence=confidence, reason="told")

    async def opinion(self, asked: Asked) -> Opinion:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.said


async def decided(voices: dict, *, ceiling: Tier = "high", sure: float = 0.8) -> Decision:
    route = Route("auto", dict.fromkeys(TIERS, ("a",)), deciders=tuple(voices), ceiling=ceiling)
    asked = Asked(
        id="1",
        tenant="acme",
        user=None,
        policy=Policy(),
        route=route,
        request=REQUEST,
        seen=features(REQUEST),
        text="Where is my parcel?",
    )
    return await Deciders(voices, sure=sure).decide(asked, "chat")


async def test_who_is_sure_decides_and_nobody_else_is_asked() -> None:
    late = Voice("high", 0.9)
    decision = await decided({"features": Voice("low", 0.8), "classifier": late})
    assert (decision.tier, decision.decider, late.asked) == ("low", "features", 0)


async def test_an_unsure_word_stands_until_a_dearer_decider_has_another() -> None:
    assert (await decided({"features": Voice("low"), "classifier": Voice("high", 0.6)})).tier == "high"
    decision = await decided({"features": Voice("low"), "classifier": Voice(None)})
    assert (decision.tier, decision.decider) == ("low", "features")
    assert decision.reasons == ("features: low 0.50, told", "classifier: abstains, told")


async def test_a_decider_that_fails_has_abstained() -> None:
    decision = await decided({"features": Voice(None), "classifier": Voice("high", error=ValueError("no"))})
    assert (decision.tier, decision.confidence, decision.decider) == ("medium", 0.0, None)
    assert decision.reasons[-1] == "classifier: abstains, failed"


@pytest.mark.parametrize("name", ["features", "knn", "classifier"])
@pytest.mark.parametrize("guess", TIERS)
@pytest.mark.parametrize("ceiling", TIERS)
async def test_no_guess_goes_above_the_routes_ceiling(name: str, guess: Tier, ceiling: Tier) -> None:
    decision = await decided({name: Voice(guess, 1.0)}, ceiling=ceiling)
    assert TIERS.index(decision.tier) == min(TIERS.index(guess), TIERS.index(ceiling))


async def test_a_rule_does() -> None:
    assert (await decided({"rules": Voice("high", 1.0)}, ceiling="low")).tier == "high"
