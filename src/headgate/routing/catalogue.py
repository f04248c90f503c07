"""Catalogue: which public names exist, what they lead to, and who may ask for them.

A name is a route, a deployment's public name, or `provider/model`; a route wins over a deployment of the same name.
An allow-list names what a tenant may ask for: naming a route allows all that the route leads to. A tenant's residency goes further:
of what a name leads to, only the deployments in its regions are left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from headgate.model.deployment import Deployment
from headgate.model.errors import ModelNotAllowed, UnknownModel
from headgate.model.tenancy import Policy
from headgate.routing.route import TIERS, Route

_LISTED = 20


class Catalogue:
    """All public names."""

    def __init__(
        self,
        deployments: Mapping[str, Deployment],
        routes: Mapping[str, Route],
        fallbacks: Mapping[str, tuple[str, ...]],
    ) -> None:
        """Raises ValueError when a route or a fallback names a deployment that does not exist."""
        self.deployments = dict(deployments)
        self.routes = dict(routes)
        self.fallbacks = dict(fallbacks)
        self._by_path = {f"{each.provider}/{each.model}": name for name, each in deployments.items()}
        for route in routes.values():
            self._check_names(f"Route `{route.name}`", {name for names in _lists(route) for name in names})
            if not any(route.tiers.get(tier) for tier in TIERS):
                raise ValueError(f"Route `{route.name}` leads to no deployment.")
        for name, names in fallbacks.items():
            self._check_names(f"The fallbacks of `{name}`", {name, *names})

    def canonical(self, policy: Policy, model: str) -> str:
        """The route's or the deployment's own name. Raises UnknownModel or ModelNotAllowed."""
        name = self.resolve(model)
        if name is None:
            raise UnknownModel(self._unknown(policy, model), param="model")
        if not self._allowed(policy, name):
            raise ModelNotAllowed(f"This key may not use the model `{model}`.", param="model")
        if not self._in_region(policy, name):
            raise abroad(policy, model)
        return name

    def resolve(self, model: str) -> str | None:
        """The route's or the deployment's own name; None when there is neither."""
        if model in self.routes or model in self.deployments:
            return model
        return self._by_path.get(model)

    def names(self, policy: Policy) -> list[str]:
        """The public names that a tenant may ask for: routes, then deployments."""
        every = dict.fromkeys((*self.routes, *self.deployments))
        return [name for name in every if self._allowed(policy, name) and self._in_region(policy, name)]

    def admitted(self, policy: Policy, names: Iterable[str]) -> tuple[Deployment, ...]:
        """The deployments of these names that may see the tenant's data, in their order: whoever plans for it plans with no other."""
        every = (self.deployments[name] for name in names)
        return tuple(one for one in every if policy.admits(one.region))

    def pinned(self, policy: Policy, name: str) -> tuple[str, ...]:
        """A deployment asked for by name, then the fallbacks that the configuration gives it and the tenant may use."""
        rest = (other for other in self.fallbacks.get(name, ()) if other != name and self._allowed(policy, other))
        return (name, *rest)

    def _allowed(self, policy: Policy, name: str) -> bool:
        allowed = policy.allowed_models
        if allowed is None or name in allowed:
            return True
        return name not in self.routes and any(self._by_path.get(path) == name for path in allowed)

    def _in_region(self, policy: Policy, name: str) -> bool:
        """Whether a deployment, or any that a route leads to, may see the tenant's data."""
        if policy.residency is None:
            return True
        route = self.routes.get(name)
        leads = (name,) if route is None else [one for names in _lists(route) for one in names]
        return bool(self.admitted(policy, leads))

    def _unknown(self, policy: Policy, model: str) -> str:
        """What may be asked for is listed; what exists beyond the tenant's allow-list is not its business."""
        names = self.names(policy)
        listed = ", ".join(names[:_LISTED]) or "none"
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        return f"The model `{model[:80]}` does not exist. Available: {listed}{more}."

    def _check_names(self, owner: str, names: set[str]) -> None:
        missing = sorted(names - self.deployments.keys())
        if missing:
            raise ValueError(f"{owner} names deployments that do not exist: {', '.join(missing)}.")


def abroad(policy: Policy, model: str) -> ModelNotAllowed:
    """The error of a call for which no deployment is left that may see the tenant's data."""
    regions = " or ".join(policy.residency or ())
    return ModelNotAllowed(
        f"This tenant's data stays in {regions}, and nothing that `{model[:80]}` leads to works there. Ask for another model; an"
        " operator can give a model a `region` or the tenant another `residency`.",
        param="model",
    )


def _lists(route: Route) -> tuple[tuple[str, ...], ...]:
    """All lists of deployments that a route has."""
    return *route.tiers.values(), *route.tasks.values()
