"""Routing: where should a question go?

`check` says whether the model that was asked for exists and may be used; `decide` looks at the question; `plan` turns the
decision into deployments to try and the most they may cost. All three are pure: the only state is the breakers', which
dispatch feeds and `plan` reads. A model asked for by its own name is never replaced by a decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headgate.model.chat import ChatRequest
from headgate.model.deployment import Deployment
from headgate.model.money import Price
from headgate.model.tenancy import Policy
from headgate.routing.breaker import Breakers
from headgate.routing.catalogue import Catalogue
from headgate.routing.difficulty import graded, task_of
from headgate.routing.extent import extent_of
from headgate.routing.features import features, has_image
from headgate.routing.plan import embedding_plan, least, offered, steps
from headgate.routing.route import TIERS, Decision, Plan, Route, Step, Task, Tier

MOST_REMEMBERED = 10_000

UNTIERED = Decision("chat", "medium", 1.0, "untiered")

__all__ = ["Decision", "Plan", "Route", "Routing", "Step", "Task", "Tier"]


class Routing:
    """Chooses deployments."""

    def __init__(
        self,
        deployments: Mapping[str, Deployment],
        routes: Mapping[str, Route],
        *,
        breakers: Breakers,
        fallbacks: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        """`deployments` and `routes` by public name; `fallbacks` of deployments that are asked for by name.

        Raises ValueError for names that lead nowhere.
        """
        self.breakers = breakers
        self._catalogue = Catalogue(deployments, routes, fallbacks or {})
        self._tiered = frozenset(name for name, route in routes.items() if route.tiered)
        self._remembered: dict[tuple[object, ...], tuple[Deployment, ...]] = {}

    def reprice(self, deployments: Mapping[str, Deployment]) -> None:
        """Let deployments of the same names have other prices. What is planned already keeps those it was planned with."""
        self._catalogue.deployments = dict(deployments)
        self._remembered.clear()

    def check(self, policy: Policy, model: str) -> str:
        """The canonical name of what was asked for. Raises UnknownModel, listing what exists, or ModelNotAllowed."""
        return self._catalogue.canonical(policy, model)

    def models(self, policy: Policy) -> list[str]:
        """The public names that a tenant may ask for: routes, then deployments."""
        return self._catalogue.names(policy)

    def decide(self, request: ChatRequest, policy: Policy, *, frugal: bool = False) -> Decision:
        """What kind of question it is and which tier it deserves; the cheapest, whatever it is like, when `frugal`. Pure.

        When nothing depends on the answer (a deployment asked for by name, a route with one list), only images are looked for.
        """
        image = has_image(request)
        route = self._route(request.model)
        if route is None or route.name not in self._tiered:
            reason = "pinned" if route is None else "untiered"
            return Decision("vision" if image else "chat", UNTIERED.tier, 1.0, reason)
        seen = features(request)
        task = task_of(seen, image=image)
        if frugal:
            return Decision(task, "low", 1.0, "budget_degraded", frugal=True)
        if policy.tier is not None:
            return Decision(task, policy.tier, 1.0, "tenant_tier")
        return graded(seen, task, route.default_tier)

    def tiered(self, model: str) -> bool:
        """Whether a route of this name has tiers, so that a cheaper one may be chosen."""
        return model in self._tiered

    def plan(
        self,
        decision: Decision,
        policy: Policy,
        request: ChatRequest,
        *,
        likely: int,
        most: int,
        priced: bool = False,
        expected: int = 0,
    ) -> Plan:
        """The deployments to try and what they may cost.

        `likely` and `most` are estimates of the prompt in tokens, the second never too small; `expected` is how long answers are
        at most, as a rule; `priced` leaves out deployments without a price. Raises UnknownModel, ModelNotAllowed, InvalidRequest
        naming a capability, ContextTooLong, Unpriced.
        """
        name = self._catalogue.canonical(policy, request.model)
        route = self._route(name)
        candidates = self._candidates(name, route, decision, policy)
        extent = extent_of(request)
        planned = steps(
            candidates, request, priced=priced, likely=likely, most=most, extent=extent, shunned=self.breakers.rank
        )
        return Plan(
            route=name,
            steps=planned,
            ceiling=max(step.ceiling for step in planned),
            reason=decision.reason,
            confidence=decision.confidence,
            prompt_tokens=likely,
            most=most,
            least=least(planned, most=most, choices=request.choices, expected=expected, extent=extent),
            choices=request.choices,
            reference=self._reference(route, decision),
            extent=extent,
        )

    def plan_embeddings(self, policy: Policy, model: str, *, likely: int, most: int, priced: bool = False) -> Plan:
        """As `plan`, for an embeddings call: no output, and no decision, for vectors of two models do not mix.

        Only the deployment asked for, or a route's first, is tried.
        """
        name = self._catalogue.canonical(policy, model)
        route = self._route(name)
        chosen = self._catalogue.pinned(policy, name)[0] if route is None else offered(route, UNTIERED, policy)[0]
        return embedding_plan(name, self._catalogue.deployments[chosen], likely=likely, most=most, priced=priced)

    def _candidates(self, name: str, route: Route | None, decision: Decision, policy: Policy) -> tuple[Deployment, ...]:
        """All deployments that may answer, best first; remembered, for few combinations come again and again."""
        place = name, decision.tier, decision.task, decision.frugal, policy.tier, policy.prefer, policy.allowed_models
        found = self._remembered.get(place)
        if found is None:
            names = self._catalogue.pinned(policy, name) if route is None else offered(route, decision, policy)
            found = tuple(self._catalogue.deployments[one] for one in names)
            if len(self._remembered) < MOST_REMEMBERED:
                self._remembered[place] = found
        return found

    def _reference(self, route: Route | None, decision: Decision) -> Price | None:
        """The price of the best tier's first deployment, for a call whose tier the router chose."""
        if route is None or route.name not in self._tiered or decision.reason == "tenant_tier":
            return None
        best = next((names[0] for tier in reversed(TIERS) if (names := route.tiers.get(tier))), None)
        return None if best is None else self._catalogue.deployments[best].price

    def health(self) -> dict[str, dict[str, Any]]:
        """Each deployment's breaker: its `state`, seconds of `cooling`, and failures in its window."""
        return {name: self.breakers.health(name) for name in self._catalogue.deployments}

    def _route(self, model: str) -> Route | None:
        return self._catalogue.routes.get(model)
