"""Catalogue: which public names exist, what they lead to, and who may ask for them.

A name is a route, a deployment's public name, or `provider/model`; a route wins over a deployment of the same name.
An allow-list names what a tenant may ask for: naming a route allows all that the route leads to.
"""

from __future__ import annotations

from collections.abc import Mapping

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
            lists = (*route.tiers.values(), *route.tasks.values())
            self._check_names(f"Route `{route.name}`", {name for names in lists for name in names})
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
        return name

    def resolve(self, model: str) -> str | None:
        """The route's or the deployment's own name; None when there is neither."""
        if model in self.routes or model in self.deployments:
            return model
        return self._by_path.get(model)

    def names(self, policy: Policy) -> list[str]:
        """The public names that a tenant may ask for: routes, then deployments."""
        return [name for name in dict.fromkeys((*self.routes, *self.deployments)) if self._allowed(policy, name)]

    def pinned(self, policy: Policy, name: str) -> tuple[str, ...]:
        """A deployment asked for by name, then the fallbacks that the configuration gives it and the tenant may use."""
        rest = (other for other in self.fallbacks.get(name, ()) if other != name and self._allowed(policy, other))
        return (name, *rest)

    def _allowed(self, policy: Policy, name: str) -> bool:
        allowed = policy.allowed_models
        if allowed is None or name in allowed:
            return True
        return name not in self.routes and any(self._by_path.get(path) == name for path in allowed)

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
