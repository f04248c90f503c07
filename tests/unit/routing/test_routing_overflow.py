"""What becomes of a prompt that is too long for a model: the route's list, in its order, for each model that may be tried."""

from __future__ import annotations

import pytest

from headgate.budget.estimate import measure
from headgate.model.chat import ChatRequest
from headgate.model.deployment import Deployment
from headgate.model.errors import ContextTooLong
from headgate.model.money import Price
from headgate.model.tenancy import Policy
from headgate.routing.breaker import Breakers
from headgate.routing.fleet import Fleet
from headgate.routing.route import Overflow
from headgate.routing.routing import Decision, Plan, Route, Routing

PRICE = Price(input=1_000_000_000, output=2_000_000_000)
WINDOWS = {"small": 2_000, "middle": 4_000, "large": 100_000}


def turns(count: int, tokens: int = 100) -> list[dict[str, str]]:
    """A system turn, then `count` of this size, each a question or its answer; a last question."""
    said = [
        {"role": ("user", "assistant")[at % 2], "content": f"{at:03} " + "x" * (4 * tokens - 4)} for at in range(count)
    ]
    return [{"role": "system", "content": "Be brief."}, *said, {"role": "user", "content": "And now?"}]


def plan(
    messages: list[dict[str, str]],
    *ways: Overflow,
    names: tuple[str, ...] = ("small", "middle", "large"),
    shortens: bool = True,
    windows: dict[str, int] = WINDOWS,
) -> Plan:
    deployments = {
        name: Deployment(
            name=name, provider="sim", model=name, price=PRICE, context_window=windows[name], max_output=500
        )
        for name in windows
    }
    route = Route(
        "auto", {"low": names, "medium": names, "high": names}, overflow=ways or ("larger",), condenser="large"
    )
    routing = Routing(deployments, {"auto": route}, fleet=Fleet(Breakers(clock=lambda: 0.0), clock=lambda: 0.0))
    request = ChatRequest.parse({"model": "auto", "messages": messages})
    size = measure(request)
    return routing.plan(
        Decision("chat", "low", 1.0, "plain"),
        Policy(),
        request,
        likely=size.likely,
        most=size.most,
        measure=measure if shortens else None,
    )


def outcomes(found: Plan) -> list[tuple[str, str | None]]:
    return [(step.deployment.name, step.overflow) for step in found.steps]


def test_a_prompt_with_room_to_spare_is_sent_whole_to_whoever_comes_first() -> None:
    assert outcomes(plan(turns(4)))[0] == ("small", None)


def test_from_four_fifths_of_a_window_on_a_larger_model_goes_first_and_says_so() -> None:
    assert outcomes(plan(turns(14)))[0] == ("small", None)
    found = plan(turns(16))
    assert outcomes(found) == [("middle", "larger"), ("large", "larger"), ("small", None)]
    assert outcomes(plan(turns(40))) == [("large", "larger")]


def test_what_still_fits_is_sent_whole_where_there_is_nothing_larger() -> None:
    assert outcomes(plan(turns(16), names=("small",))) == [("small", None)]


def test_pruning_before_larger_keeps_the_models_order_and_shortens_for_each() -> None:
    found = plan(turns(40), "prune", "larger")
    assert [name for name, _ in outcomes(found)] == ["small", "middle", "large"]
    first, second, third = (step.overflow for step in found.steps)
    assert first is not None
    assert second is not None
    assert third is None
    assert int(first.removeprefix("pruned:")) > int(second.removeprefix("pruned:")) > 0
    for step in found.steps[:2]:
        assert step.shortened is not None
        assert step.shortened.likely <= 0.8 * step.deployment.context_window
        assert step.shortened.likely == measure(step.shortened.request).likely


def test_larger_before_pruning_shortens_only_for_the_smaller_ones_that_are_fallen_back_to() -> None:
    found = outcomes(plan(turns(40), "larger", "prune"))
    assert found[0] == ("large", "larger")
    assert all(how is not None and how.startswith("pruned:") for _, how in found[1:])
    assert len(found) == 3


def test_money_is_held_for_what_is_sent_not_for_what_was_said() -> None:
    whole, pruned = plan(turns(40), "larger").steps[0], plan(turns(40), "prune").steps[0]
    assert pruned.ceiling < whole.ceiling / 2
    within = plan(turns(40), "prune").within(pruned.ceiling // 2, 10)
    assert within.steps[0].shortened == pruned.shortened
    assert within.steps[0].shrunk


def test_who_would_rather_refuse_refuses_with_the_numbers() -> None:
    with pytest.raises(
        ContextTooLong, match=r"about \d+ tokens .* takes 100000 together, of which a prompt may take 80%"
    ):
        plan(turns(16), "refuse")
    assert outcomes(plan(turns(16), "larger", "refuse"))[0] == ("middle", "larger")
    with pytest.raises(ContextTooLong):
        plan(turns(16), "larger", "refuse", names=("small",))


def test_a_last_question_that_no_window_holds_is_refused_whatever_the_list_says() -> None:
    question = [*turns(4), {"role": "user", "content": "y" * 20_000}]
    with pytest.raises(ContextTooLong):
        plan(question, "prune", "condense", names=("small",))


def test_turns_to_be_condensed_are_pruned_until_there_is_a_summary() -> None:
    found = plan(turns(40), "condense").steps[0].shortened
    assert found is not None
    assert (found.condenser, found.how[:7]) == ("large", "pruned:")
    pruned = plan(turns(40), "prune").steps[0].shortened
    assert pruned is not None
    assert (pruned.condenser, pruned.request) == (None, found.request)


def test_nothing_is_shortened_behind_the_back_of_who_cannot_tell() -> None:
    with pytest.raises(ContextTooLong):
        plan(turns(40), "prune", names=("small",), shortens=False)
