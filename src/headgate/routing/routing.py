"""Routing: where should a question go?

`check` says whether the model that was asked for exists and may be used; `decide` looks at the question, and asks the route's deciders;
`plan` turns the decision into deployments to try and the most they may cost. The state is the deciders', what conversations have kept
(sticking.py), and the fleet's, which dispatch feeds and `plan` reads. A model asked for by its own name is never replaced by a decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headgate.model.chat import ChatRequest
from headgate.model.deployment import Deployment
from headgate.model.money import Price, Usage
from headgate.model.tenancy import Policy, Principal
from headgate.routing.catalogue import Catalogue, abroad
from headgate.routing.deciders import Asked, Deciders
from headgate.routing.difficulty import FeatureDecider, task_of
from headgate.routing.explanation import Explanation, candidates_of, words_of
from headgate.routing.exploration import explored
from headgate.routing.extent import extent_of
from headgate.routing.features import asked as question
from headgate.routing.features import features, has_image
from headgate.routing.fleet import Fleet
from headgate.routing.overflow import ANSWER_ROOM, Measure
from headgate.routing.plan import embedding_plan, least, offered, steps
from headgate.routing.route import TIERS, Decision, Plan, Route, Step, Task, Tier
from headgate.routing.sticking import Sticking, stayed

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
        fleet: Fleet,
        fallbacks: Mapping[str, tuple[str, ...]] | None = None,
        deciders: Deciders | None = None,
        sticking: Sticking | None = None,
    ) -> None:
        """`deployments` and `routes` by public name; `fallbacks` of deployments that are asked for by name; `deciders` judge questions,
        by default by their features alone.

        Raises ValueError for names that lead nowhere.
        """
        self.fleet = fleet
        self._deciders = deciders or Deciders({"features": FeatureDecider()})
        self._sticking = sticking or Sticking()
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

    async def decide(
        self,
        request: ChatRequest,
        caller: Principal,
        *,
        id: str = "",
        user: str | None = None,
        frugal: bool = False,
        dry: bool = False,
    ) -> Decision:
        """What kind of question it is and which tier it deserves; the cheapest, whatever it is like, when `frugal`. `dry`: nothing may
        be spent on finding out.

        When nothing depends on the answer (a deployment asked for by name, a route with one list), only images are looked for. `id`
        and `user` are the call's. Never raises.
        """
        policy, image = caller.policy, has_image(request)
        route = self._route(request.model)
        if route is None or route.name not in self._tiered:
            reason = "pinned" if route is None else "untiered"
            decision = Decision("vision" if image else "chat", UNTIERED.tier, 1.0, reason)
            return decision if route is None else self._held(decision, route, request, caller, user)
        seen = features(request)
        task = task_of(seen, image=image)
        if frugal:
            return Decision(task, "low", 1.0, "budget_degraded", frugal=True, seen=seen)
        if policy.tier is not None:
            return Decision(task, policy.tier, 1.0, "tenant_tier", seen=seen)
        asked = Asked(
            id=id,
            tenant=caller.tenant,
            user=user,
            policy=policy,
            route=route,
            request=request,
            seen=seen,
            text=question(request),
            organisations=caller.organisations,
            key=caller.key,
            dry=dry,
        )
        decision = await self._deciders.decide(asked, task)
        if not dry:
            decision = explored(decision, id, route, policy)
        return self._held(decision, route, request, caller, user)

    def _held(
        self, decision: Decision, route: Route, request: ChatRequest, caller: Principal, user: str | None
    ) -> Decision:
        return self._sticking.held(decision, route, request, tenant=caller.tenant, user=user)

    def answered(self, decision: Decision, model: str, deployment: str | None, usage: Usage) -> None:
        """A call for `model` was answered by a deployment that used so much: what its conversation keeps."""
        route, by = self._route(model), self._catalogue.deployments.get(deployment or "")
        if route is not None and by is not None:
            self._sticking.answered(decision, route, by, usage)

    def at_stake(self, request: ChatRequest, policy: Policy, *, likely: int, expected: int) -> int:
        """Nano-USD by which the cost of a request can depend on its tier; deployments without a price say nothing."""
        route, usage = self._route(request.model), Usage(prompt_tokens=likely, completion_tokens=expected)
        lists = () if route is None else (route.tiers.get(tier, ()) for tier in TIERS)
        firsts = [admitted[0].price for names in lists if (admitted := self._catalogue.admitted(policy, names))]
        costs = [price.charge(usage) for price in firsts if price is not None]
        return max(costs, default=0) - min(costs, default=0)

    async def explain(
        self, request: ChatRequest, caller: Principal, *, user: str | None = None, likely: int, most: int, expected: int
    ) -> Explanation:
        """What would be done with a request now. The same for the same state; sizes and errors as of `plan`."""
        name, policy = self._catalogue.canonical(caller.policy, request.model), caller.policy
        decision = await self.decide(request, caller, user=user, dry=True)
        plan = self.plan(decision, policy, request, likely=likely, most=most, expected=expected, drawn=False)
        route = self._route(name)
        words = words_of(route.deciders, decision) if route is not None and decision.reasons else {}
        return Explanation(
            name, decision, words, candidates_of(self._candidates(name, route, decision, policy), plan, self.health())
        )

    def tiers_of(self, model: str) -> Route | None:
        """The route of this name, if it has tiers."""
        return self._route(model) if model in self._tiered else None

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
        drawn: bool = True,
        measure: Measure | None = None,
    ) -> Plan:
        """The deployments to try and what they may cost.

        `likely` and `most` are estimates of the prompt in tokens, the second never too small; `expected` is how long answers are
        at most, as a rule; `priced` leaves out deployments without a price; pools are as configured unless they are `drawn`; a
        prompt that is too long is shortened only where a `measure` of prompts is given. Raises UnknownModel, ModelNotAllowed,
        InvalidRequest naming a capability, ContextTooLong, Unpriced.
        """
        name = self._catalogue.canonical(policy, request.model)
        route = self._route(name)
        candidates = self._candidates(name, route, decision, policy)
        if route is not None and route.pools and drawn:
            pools = [tuple(name for name in pool if name not in policy.prefer) for pool in route.pools]
            order = self.fleet.ordered([one.name for one in candidates], pools)
            candidates = tuple(self._catalogue.deployments[one] for one in order)
        ranks = self.fleet.ranks(one.name for one in candidates)
        if route is not None and decision.kept is not None:
            candidates = stayed(
                candidates, route, decision, policy, ranks=ranks, likely=likely, expected=expected or ANSWER_ROOM
            )
        extent = extent_of(request)
        planned = steps(
            candidates,
            request,
            priced=priced,
            likely=likely,
            most=most,
            extent=extent,
            shunned=ranks.__getitem__,
            route=route,
            measure=measure,
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

        Only the deployment asked for, or a route's first that may see the tenant's data, is tried.
        """
        name = self._catalogue.canonical(policy, model)
        route = self._route(name)
        names = (name,) if route is None else offered(route, UNTIERED, policy)
        admitted = self._catalogue.admitted(policy, names)
        if not admitted:
            raise abroad(policy, name)
        return embedding_plan(name, admitted[0], likely=likely, most=most, priced=priced)

    def _candidates(self, name: str, route: Route | None, decision: Decision, policy: Policy) -> tuple[Deployment, ...]:
        """All deployments that may answer and see the tenant's data, best first; remembered, for few combinations come again and again."""
        terms = policy.tier, policy.prefer, policy.allowed_models, policy.residency
        place = name, decision.tier, decision.task, decision.frugal, *terms
        found = self._remembered.get(place)
        if found is None:
            names = self._catalogue.pinned(policy, name) if route is None else offered(route, decision, policy)
            found = self._catalogue.admitted(policy, names)
            if not found:
                raise abroad(policy, name)
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
        """Each deployment: its breaker's `state`, seconds of `cooling` and failures, how fast it is, and how much it is given."""
        return {name: self.fleet.health(name) for name in self._catalogue.deployments}

    def _route(self, model: str) -> Route | None:
        return self._catalogue.routes.get(model)
