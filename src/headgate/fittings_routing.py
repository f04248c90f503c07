"""Fittings of routing: the deciders that a configuration names, and how the classifier comes to its model. Used by assembly alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec

from headgate.budget.estimate import measure
from headgate.budget.reservation import Budget, Reservation
from headgate.coalesce.trail import Trail
from headgate.config import Config
from headgate.config_routing import ClassifierConfig, WhenConfig
from headgate.dispatch import Dispatch
from headgate.model.chat import ChatRequest
from headgate.model.errors import BudgetExceeded, ContextTooLong, ModelNotAllowed, RateLimited
from headgate.model.ids import Ids
from headgate.model.money import Usage
from headgate.model.tenancy import Policy, Principal, Wishes
from headgate.routing.classifier import SCHEMA, Ask, Bounds, Classifier, Outcome, instructions
from headgate.routing.deciders import Asked, Deciders
from headgate.routing.difficulty import FeatureDecider
from headgate.routing.route import Plan
from headgate.routing.routing import Routing
from headgate.routing.rules import Rule, RuleDecider, When
from headgate.telemetry.metrics import PrometheusSink

log = logging.getLogger(__name__)

FEATURE = "router"
"""What the classifier's calls are in the journal."""
WORDS = 96
"""Tokens that labels may take: some fifty, and what some models put around them."""
WORTH = 4
"""So many times its own price a call must be able to save before the classifier is asked about it."""


def deciders(config: Config) -> Deciders:
    """Those that need nothing but the request."""
    rules = {
        name: [
            Rule(name=rule.name, when=_when(rule.when), tier=rule.tier, strategy=rule.strategy) for rule in route.rules
        ]
        for name, route in config.routes.items()
    }
    return Deciders({"rules": RuleDecider(rules), "features": FeatureDecider()}, sure=config.routing.sure)


def _when(one: WhenConfig) -> When:
    return When(**{name: getattr(one, name) for name in When.__struct_fields__})


def template(config: Config) -> str:
    """The classifier's instructions. Reads a file: raises OSError, and ValueError for one that holds nothing or no UTF-8."""
    one = config.routing.classifier
    if one is None or one.template is None:
        return instructions()
    text = one.template.read_text(encoding="utf-8")
    if not text.strip():
        raise ValueError(f"The classifier's template {one.template} is empty.")
    return text


def add_classifier(
    deciders: Deciders,
    config: Config,
    template: str,
    *,
    routing: Routing,
    budget: Budget,
    dispatch: Dispatch,
    tell: Callable[[Outcome], None],
) -> None:
    """Add the decider that asks a model, where one is named. `tell` counts what became of each question."""
    one = config.routing.classifier
    if one is None:
        return
    typed = "json" in config.models[one.model].capabilities
    ask = asking(one, typed=typed, routing=routing, budget=budget, dispatch=dispatch)
    bounds = Bounds(seconds=one.timeout, concurrency=one.concurrency, ttl=one.ttl)
    deciders.add("classifier", Classifier(ask, template, bounds, tell=tell))


def asking(one: ClassifierConfig, *, typed: bool, routing: Routing, budget: Budget, dispatch: Dispatch) -> Ask:
    """How the classifier's model is asked: only where the tenant may use it too, where the answer can save several times its price, and
    where whoever pays has the money. `typed`: whether it can be held to a schema."""
    new_id = Ids()

    async def ask(template: str, question: str, asked: Asked) -> str | None:
        request, trail = _request(one.model, template, question, typed=typed), Trail()
        policy = _policy(one.model, asked)
        caller = Principal(
            tenant=asked.tenant, organisations=asked.organisations, policy=policy, key=asked.key, user=asked.user
        )
        try:
            decision, size = await routing.decide(request, caller), measure(request)
            plan = routing.plan(decision, policy, request, likely=size.likely, most=size.most)
        except (ModelNotAllowed, ContextTooLong):
            return None
        if not _worth(plan, routing, budget, asked):
            return None
        try:
            async with _paid(one, budget, new_id(), caller, plan) as reservation:
                completion = await dispatch.send(plan, request, reservation, trail, lambda _: None)
        except (BudgetExceeded, RateLimited):
            return None
        return completion.text

    return ask


def _policy(model: str, asked: Asked) -> Policy:
    """The tenant's. Its list of what may be asked for does not shut out a model that the route itself leads to."""
    led_to = any(model in names for names in asked.route.tiers.values())
    return msgspec.structs.replace(asked.policy, allowed_models=None) if led_to else asked.policy


def _request(model: str, template: str, question: str, *, typed: bool) -> ChatRequest:
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "system", "content": template}, {"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": WORDS,
    }
    if typed:
        schema = {"name": "labels", "strict": True, "schema": SCHEMA}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return ChatRequest.parse(body)


def _worth(plan: Plan, routing: Routing, budget: Budget, asked: Asked) -> bool:
    """Whether the choice between tiers is worth several times what it costs to ask."""
    price = plan.steps[0].deployment.price
    asking = 0 if price is None else price.charge(Usage(prompt_tokens=plan.prompt_tokens, completion_tokens=WORDS))
    expected = budget.outputs.expected(asked.tenant, asked.route.name)
    likely = measure(asked.request).likely
    return WORTH * asking <= routing.at_stake(asked.request, asked.policy, likely=likely, expected=expected)


def _paid(one: ClassifierConfig, budget: Budget, id: str, caller: Principal, plan: Plan) -> Reservation:
    if one.paid_by == "operator":
        return budget.for_operator(id, feature=FEATURE, ceiling=plan.ceiling)
    wishes = Wishes(user=caller.user, feature=FEATURE)
    names = (step.deployment.name for step in plan.steps)
    return budget.reserve(id, caller, wishes, route=plan.route, ceiling=plan.ceiling, deployments=names)


def upstream_alarm(metrics: PrometheusSink) -> Callable[[str, str], None]:
    """Says loudly that a provider refuses to work, and counts it."""

    def tell(name: str, reason: str) -> None:
        log.error("the provider of %s refuses to work for us: %s; calls fall back where they can", name, reason)
        metrics.upstream_alarm(name, reason)

    return tell


def say_breaker(name: str, before: str, after: str) -> None:
    """Says that a breaker has changed."""
    log.warning("breaker of %s: %s -> %s", name, before, after)
