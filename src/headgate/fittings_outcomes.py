"""Fittings of learning where questions go: the outcome log, and the decider that learns from it. Used by assembly alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from headgate.cache.cache import Embedder
from headgate.config import Config
from headgate.model.one_word import Ask
from headgate.model.tenancy import Policy
from headgate.routing.deciders import Deciders
from headgate.routing.grading import Grader
from headgate.routing.knn import KnnDecider, Neighbours
from headgate.routing.outcomes_behind import OutcomesBehind
from headgate.routing.outcomes_keeping import Outcomes
from headgate.routing.routing import Routing
from headgate.routing.uplift import Uplift, UpliftUnavailable
from headgate.storage.behind import Rows

log = logging.getLogger(__name__)


async def outcomes(
    config: Config,
    rows: Rows,
    *,
    routing: Routing,
    deciders: Deciders,
    embeds: Embedder | None,
    sees: Callable[[Policy], bool],
    ask: Ask | None,
) -> Outcomes | None:
    """What keeps outcomes in these rows, and has `knn` among the deciders learn from them where questions can be read; None where no
    route has tiers. `sees`: whether the embedder may see what a tenant of this policy asks; `ask`: the model that grades answers. Never
    raises for what is wrong with them."""
    if not any(routing.tiered(name) for name in config.routes):
        return None
    kept = await OutcomesBehind.open(rows)
    neighbours = None if embeds is None else Neighbours(embeds.dimensions)
    embed = None if embeds is None else embeds.embed
    said = config.routing.grader
    grader = None if ask is None or said is None else Grader(ask, said.share)
    keeping = Outcomes(kept, routing.tiers_of, embed=embed, neighbours=neighbours, sees=sees, grader=grader)
    # Beside the loop: a full log takes seconds, and nobody asks for it yet.
    await asyncio.to_thread(keeping.recall, kept.past())
    if embeds is not None and neighbours is not None:
        uplifts = await asyncio.to_thread(fitted, config, embeds)
        deciders.add("knn", KnnDecider(embeds.embed, neighbours, fitted=uplifts, sees=sees))
    return keeping


def fitted(config: Config, embeds: Embedder) -> dict[str, Uplift]:
    """The models of uplift that routes name, by route. One that cannot be used is left out, with a line in the log."""
    found = {}
    for name, route in config.routes.items():
        if route.uplift is not None:
            try:
                found[name] = Uplift.load(route.uplift, embeds.identity)
            except UpliftUnavailable as error:
                log.warning("route %s decides without its model of uplift: %s", name, error)
    return found
