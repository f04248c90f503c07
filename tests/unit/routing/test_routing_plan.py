"""Which deployments are tried, in which order, and what is held for them."""

from __future__ import annotations

import msgspec
import pytest

from headgate.model.chat import ChatRequest
from headgate.model.deployment import Deployment
from headgate.model.errors import ContextTooLong, InvalidRequest, ModelNotAllowed, UnknownModel, Unpriced
from headgate.model.money import Price, Usage
from headgate.model.tenancy import Policy
from headgate.routing.breaker import Breakers
from headgate.routing.fleet import Fleet
from headgate.routing.routing import Decision, Plan, Route, Routing

CHEAP, DEAR = Price(input=150_000_000, output=600_000_000), Price(input=2_500_000_000, output=10_000_000_000)


def deployment(name: str, **fields) -> Deployment:
    return Deployment(**{"name": name, "provider": "sim", "model": f"m-{name}", "price": CHEAP, **fields})


DEPLOYMENTS = {
    "small": deployment("small", context_window=8_000, max_output=1_000),
    "middle": deployment("middle", context_window=16_000, max_output=2_000),
    "large": deployment("large", price=DEAR, capabilities=frozenset({"tools", "json", "vision"})),
    "coder": deployment("coder"),
    "spare": deployment("spare", price=None),
}
AUTO = Route(
    "auto",
    {"low": ("small", "middle"), "medium": ("middle",), "high": ("large",)},
    {"code": ("coder",)},
)
HELLO = [{"role": "user", "content": "hello"}]


def decision(tier="low", task="chat") -> Decision:
    return Decision(task, tier, 0.7, "plain+length")


class Planner:
    def __init__(self, deployments=DEPLOYMENTS, route=AUTO, **options) -> None:
        self.now = 0.0
        self.breakers = Breakers(clock=lambda: self.now, random=lambda: 0.0)
        self.routing = Routing(
            deployments, {route.name: route}, fleet=Fleet(self.breakers, clock=lambda: self.now), **options
        )

    def __call__(self, chosen=None, *, policy=None, likely=10, most=40, priced=False, expected=0, **body) -> Plan:
        request = ChatRequest.parse({"model": "auto", "messages": HELLO, **body})
        return self.routing.plan(
            chosen or decision(),
            policy or Policy(),
            request,
            likely=likely,
            most=most,
            priced=priced,
            expected=expected,
        )

    def names(self, *args, **options) -> list[str]:
        return [step.deployment.name for step in self(*args, **options).steps]


def test_the_tier_comes_first_then_higher_tiers_then_lower() -> None:
    plan = Planner().names
    assert plan(decision("low")) == ["small", "middle", "large"]
    assert plan(decision("medium")) == ["middle", "large", "small"]
    assert plan(decision("high")) == ["large", "middle", "small"]


def test_a_task_with_a_chain_of_its_own_goes_there_first() -> None:
    assert Planner().names(decision("low", "code")) == ["coder", "small", "middle"]


def test_a_tenants_own_tier_leaves_the_tasks_chain_out() -> None:
    assert Planner().names(decision("high", "code"), policy=Policy(tier="high"))[0] == "large"


def test_preferred_deployments_go_first_when_the_route_offers_them() -> None:
    assert Planner().names(policy=Policy(prefer=("spare", "large"))) == ["large", "small", "middle"]


def test_a_pinned_deployment_has_only_the_fallbacks_that_the_configuration_names() -> None:
    assert Planner().names(model="small") == ["small"]
    planner = Planner(fallbacks={"small": ("large", "middle")})
    assert planner.names(model="small") == ["small", "large", "middle"]
    assert planner.names(model="sim/m-small") == ["small", "large", "middle"]
    assert planner.names(model="small", policy=Policy(allowed_models=("small", "middle"))) == ["small", "middle"]


def test_at_most_two_fallbacks() -> None:
    route = Route("auto", dict.fromkeys(("low", "medium", "high"), ("small", "middle", "large", "coder")))
    assert len(Planner(route=route)().steps) == 3


def test_refused_deployments_go_last_and_cooling_ones_behind_them() -> None:
    planner = Planner()
    planner.breakers.observe("small", failed=True, retry_after=30)
    for _ in range(5):
        planner.breakers.observe("middle", failed=True)
    assert planner.names() == ["large", "middle", "small"]


def test_a_refused_deployment_is_kept_when_there_is_nothing_else() -> None:
    planner = Planner()
    for _ in range(5):
        planner.breakers.observe("small", failed=True)
    assert planner.names(model="small") == ["small"]


def test_only_deployments_with_the_capability_are_planned() -> None:
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    assert Planner().names(messages=image) == ["large"]


@pytest.mark.parametrize(
    ("body", "word", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "tools"),
        ({"functions": [{"name": "f"}]}, "tools", "tools"),
        ({"response_format": {"type": "json_object"}}, "json", "response_format"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
            "vision",
            "messages",
        ),
    ],
)
def test_a_capability_that_nothing_has_is_named(body, word: str, param: str) -> None:
    bare = {"small": deployment("small", capabilities=frozenset())}
    route = Route("auto", dict.fromkeys(("low", "medium", "high"), ("small",)))
    with pytest.raises(InvalidRequest, match=f"supports {word}: `small`") as caught:
        Planner(bare, route)(**body)
    assert caught.value.param == param


def test_where_money_is_limited_a_model_without_a_price_is_never_reached() -> None:
    route = Route("auto", dict.fromkeys(("low", "medium", "high"), ("spare", "small")))
    planner = Planner(route=route)
    assert planner.names() == ["spare", "small"]
    assert planner.names(priced=True) == ["small"]
    with pytest.raises(Unpriced, match="`spare`"):
        planner(model="spare", priced=True)


def test_the_limit_is_the_least_of_what_is_asked_given_and_left() -> None:
    planner = Planner()
    assert [step.limit for step in planner().steps] == [1_000, 2_000, 4_096]
    assert [step.limit for step in planner(max_tokens=1_500).steps] == [1_000, 1_500, 1_500]
    assert planner(model="small", likely=7_500, most=30_000).steps[0].limit == 500


def test_the_likely_size_decides_when_the_most_does_not_fit() -> None:
    """`most` counts bytes: it would refuse English text that needs a quarter of the window."""
    assert Planner().names(likely=5_000, most=20_000)[0] == "small"


def test_a_prompt_that_leaves_no_room_for_an_answer_goes_to_a_larger_model() -> None:
    assert Planner().names(likely=7_900, most=31_600) == ["middle", "large"]


def test_a_deployment_that_cannot_give_all_that_was_asked_for_goes_behind_one_that_can() -> None:
    assert Planner().names(likely=7_500, most=30_000, max_tokens=800) == ["middle", "large", "small"]


def test_a_prompt_that_fits_nowhere_is_refused_with_the_numbers() -> None:
    with pytest.raises(ContextTooLong, match=r"about 130000 tokens.*`large`, takes 128000") as caught:
        Planner()(likely=130_000, most=520_000)
    assert caught.value.param == "messages"


def test_the_ceiling_is_the_dearest_step_for_all_choices() -> None:
    plan = Planner()(n=3, max_tokens=100, likely=10, most=40)
    assert plan.ceiling == DEAR.ceiling(40, 300)
    assert (plan.route, plan.reason, plan.confidence, plan.prompt_tokens) == ("auto", "plain+length", 0.7, 10)


def test_the_least_is_what_the_first_step_costs_for_an_answer_of_the_usual_length() -> None:
    plan = Planner()
    assert plan(expected=200).least == CHEAP.ceiling(40, 200)
    assert plan(expected=200, max_tokens=50).least == CHEAP.ceiling(40, 50), "the caller asked for less"
    assert plan(expected=200, n=3).least == CHEAP.ceiling(40, 600)
    assert plan(model="spare", expected=200).least == 0


def test_a_plan_that_was_granted_all_it_asked_for_is_left_as_it_is() -> None:
    plan = Planner()()
    assert plan.within(plan.ceiling, expected=10) is plan


def test_with_less_money_steps_ask_for_fewer_tokens_but_for_no_fewer_than_an_answer_needs() -> None:
    plan = Planner()(expected=200)
    granted = CHEAP.ceiling(40, 900)
    within = plan.within(granted, expected=200)
    assert [(step.deployment.name, step.limit, step.shrunk) for step in within.steps] == [
        ("small", 900, True),
        ("middle", 900, True),
        ("large", 200, True),
    ]
    assert [step.ceiling <= granted for step in within.steps] == [True, True, False], "more is held when its turn comes"
    assert within.ceiling == DEAR.ceiling(40, 200)


def test_only_steps_that_do_not_fit_are_shrunk() -> None:
    plan = Planner()(expected=20)
    within = plan.within(CHEAP.ceiling(40, 1_000), expected=20)
    assert [(step.deployment.name, step.limit, step.shrunk) for step in within.steps] == [
        ("small", 1_000, False),
        ("middle", 1_000, True),
        ("large", 50, True),
    ]
    assert [within.limit_of(name) for name in ("small", "large", "absent", None)] == [1_000, 50, 0, 0]


def test_a_step_that_asks_for_less_than_is_usual_is_not_shrunk() -> None:
    within = Planner()(max_tokens=30).within(CHEAP.ceiling(40, 30), expected=200)
    assert [(step.limit, step.shrunk) for step in within.steps] == [(30, False)] * 3


def test_several_answers_share_what_was_granted() -> None:
    within = Planner()(n=4).within(CHEAP.ceiling(40, 400), expected=100)
    assert [step.limit for step in within.steps] == [100, 100, 100]


def test_a_frugal_plan_stays_in_its_tier() -> None:
    frugal = Decision("code", "low", 1.0, "budget_degraded", frugal=True)
    assert Planner().names(frugal) == ["small", "middle"]


def test_routing_saves_what_the_best_tier_would_have_cost_more() -> None:
    used = Usage(prompt_tokens=100, completion_tokens=50)
    plan = Planner()
    assert plan().saved(used, CHEAP.charge(used)) == DEAR.charge(used) - CHEAP.charge(used)
    assert plan(decision("high")).saved(used, DEAR.charge(used)) == 0
    assert plan().saved(used, 2 * DEAR.charge(used)) == 0, "attempts that failed have eaten it up"


def test_nothing_is_saved_where_nobody_routed() -> None:
    used = Usage(prompt_tokens=100, completion_tokens=50)
    pinned, chosen = Planner()(model="small"), Planner()(Decision("chat", "low", 1.0, "tenant_tier"))
    assert pinned.saved(used, 1) == chosen.saved(used, 1) == 0


def test_an_unknown_model_is_refused_with_what_exists() -> None:
    with pytest.raises(UnknownModel, match=r"`gpt-9` does not exist\. Available: auto, small, middle") as caught:
        Planner().routing.check(Policy(), "gpt-9")
    assert caught.value.param == "model"


def test_check_gives_the_canonical_name() -> None:
    check = Planner().routing.check
    assert [check(Policy(), name) for name in ("auto", "small", "sim/m-small")] == ["auto", "small", "small"]


def test_an_allow_list_limits_what_may_be_asked_for_and_what_is_listed() -> None:
    routing, policy = Planner().routing, Policy(allowed_models=("auto", "sim/m-coder"))
    assert routing.models(policy) == ["auto", "coder"]
    assert routing.check(policy, "coder") == "coder"
    with pytest.raises(ModelNotAllowed):
        routing.check(policy, "large")
    with pytest.raises(UnknownModel, match=r"Available: auto, coder\.$"):
        routing.check(policy, "gpt-9")


def test_without_an_allow_list_everything_is_listed_once() -> None:
    assert Planner().routing.models(Policy()) == ["auto", "small", "middle", "large", "coder", "spare"]


@pytest.mark.parametrize(
    ("route", "fallbacks"),
    [
        (Route("auto", {"low": ("absent",)}), {}),
        (Route("auto", {"low": ("small",)}, {"code": ("absent",)}), {}),
        (Route("auto", {"low": ()}), {}),
        (AUTO, {"small": ("absent",)}),
        (AUTO, {"absent": ("small",)}),
    ],
)
def test_names_that_lead_nowhere_are_refused_at_the_start(route: Route, fallbacks) -> None:
    with pytest.raises(ValueError, match=r"absent|no deployment"):
        Planner(route=route, fallbacks=fallbacks)


def test_health_tells_of_every_deployment() -> None:
    planner = Planner()
    planner.breakers.observe("small", failed=True, retry_after=30)
    health = planner.routing.health()
    assert health["small"].items() >= {"state": "closed", "cooling": 30.0, "calls": 1, "failures": 1}.items()
    assert set(health) == set(DEPLOYMENTS)


def test_a_pool_shares_the_calls_and_a_tenants_preference_and_what_is_refused_keep_their_places() -> None:
    tiers = dict.fromkeys(("low", "medium", "high"), ("small", "middle", "large"))
    planner = Planner(route=Route("auto", tiers, pools=(("small", "middle"),)))
    orders = {tuple(planner.names()) for _ in range(60)}
    assert orders == {("small", "middle", "large"), ("middle", "small", "large")}
    preferring = Policy(prefer=("middle",))
    assert {planner.names(policy=preferring)[0] for _ in range(20)} == {"middle"}
    for _ in range(5):
        planner.breakers.observe("small", failed=True)
    assert {planner.names()[0] for _ in range(20)} == {"middle"}


def test_every_capability_has_to_be_at_one_deployment() -> None:
    split = {
        "a": msgspec.structs.replace(deployment("a"), capabilities=frozenset({"tools"})),
        "b": msgspec.structs.replace(deployment("b"), capabilities=frozenset({"json"})),
    }
    planner = Planner(split, Route("auto", dict.fromkeys(("low", "medium", "high"), ("a", "b"))))
    tools = [{"type": "function", "function": {"name": "f"}}]
    with pytest.raises(InvalidRequest, match="tools and json"):
        planner(tools=tools, response_format={"type": "json_object"})


def test_what_is_remembered_of_one_tenants_candidates_is_not_given_to_one_whose_data_stays_elsewhere() -> None:
    planner = Planner({**DEPLOYMENTS, "large": deployment("large", region="eu")})
    assert planner.names(decision("low")) == ["small", "middle", "large"]
    assert planner.names(decision("low"), policy=Policy(residency=("eu",))) == ["large"]
    assert planner.names(decision("low")) == ["small", "middle", "large"]
    with pytest.raises(ModelNotAllowed, match="stays in ch, and nothing that `auto` leads to works there"):
        planner.names(policy=Policy(residency=("ch",)))


def test_a_budget_that_forces_the_cheapest_tier_does_not_force_a_region() -> None:
    planner = Planner({**DEPLOYMENTS, "large": deployment("large", region="eu")})
    frugal = msgspec.structs.replace(decision("low"), frugal=True)
    with pytest.raises(ModelNotAllowed):
        planner.names(frugal, policy=Policy(residency=("eu",)))
