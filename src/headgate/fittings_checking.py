"""Fittings of learning: what checks may cost, who judges, and what all of it is put together from. Used by assembly alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from headgate.budget.estimate import measure
from headgate.budget.reservation import Budget
from headgate.cache.cache import Embedder
from headgate.cache.checks import Checks, Ration
from headgate.cache.judge import ExactJudge, Judge, Judges, MeaningJudge, ModelJudge
from headgate.cache.labels import LabelLog
from headgate.cache.labels_behind import LabelsBehind
from headgate.cache.learning import Learning
from headgate.cache.recent import Recent
from headgate.cache.tiers import Cache
from headgate.checking import Checking, Outcome
from headgate.coalesce.trail import Trail
from headgate.config import Config
from headgate.dispatch import Dispatch
from headgate.model.chat import ChatRequest
from headgate.model.errors import ModelNotAllowed
from headgate.model.ids import Ids
from headgate.model.one_word import Ask
from headgate.model.tenancy import OPERATOR, Policy, Principal
from headgate.routing.routing import Routing
from headgate.storage.behind import Rows

JUDGE_SECONDS = 20.0
WORD = 16
"""Tokens that a judge may answer with: one word, and what some models put around it."""


class Learnt(msgspec.Struct, frozen=True):
    """What earlier runs have learnt and served, and where more of it is kept."""

    learning: Learning
    recent: Recent
    labels: LabelLog


async def learnt(config: Config, rows: Rows) -> Learnt:
    """All that lies in these rows. Never raises for what is wrong with them."""
    labels, recent = await LabelsBehind.open(rows), Recent()
    learning = Learning(error_rate=config.cache.semantic.max_error_rate)
    past, answers = labels.past()
    # Beside the loop: a full log takes a quarter of a second, and nobody asks for it yet.
    await asyncio.to_thread(learning.recall, past)
    recent.recall(answers)
    return Learnt(learning, recent, labels)


def checking(
    config: Config,
    learnt: Learnt,
    *,
    reader: Embedder | None,
    cache: Cache,
    routing: Routing,
    budget: Budget,
    dispatch: Dispatch,
    tell: Callable[[Outcome], None],
) -> Checking:
    """What watches a gateway made of these; `reader` is the built-in model, where it is loaded, and `tell` counts checks."""
    asked = config.cache.semantic.checks
    checks = Checks(Ration(share=asked.share, money=asked.budget))
    by_letter = [ExactJudge()]
    by_meaning: list[Judge] = [] if reader is None or asked.judge == "exact" else [MeaningJudge(reader)]
    by_model: list[Judge] = []
    if asked.judge not in ("exact", "embedding"):
        by_model = [model_judge(asked.judge, routing=routing, budget=budget, dispatch=dispatch, paid=checks.paid)]
    return Checking(
        learning=learnt.learning,
        checks=checks,
        judge=Judges([*by_letter, *by_meaning, *by_model]),
        quick=Judges([*by_letter, *by_meaning]),
        cache=cache,
        routing=routing,
        budget=budget,
        dispatch=dispatch,
        labels=learnt.labels,
        recent=learnt.recent,
        tell=tell,
        now=time.time,
        new_id=Ids(),
        refuse_unpriced=config.budget.unpriced == "refuse",
    )


def model_judge(
    model: str, *, routing: Routing, budget: Budget, dispatch: Dispatch, paid: Callable[[int], None]
) -> ModelJudge:
    """A model under its public name that compares answers; `paid` is told what each question has cost, nano-USD."""
    return ModelJudge(asking(model, "cache-judge", routing=routing, budget=budget, dispatch=dispatch, paid=paid))


def asking(
    model: str,
    feature: str,
    *,
    routing: Routing,
    budget: Budget,
    dispatch: Dispatch,
    paid: Callable[[int], None] = lambda _: None,
) -> Ask:
    """Asks a model under its public name for one word, at the operator's expense; only where the tenant whose answers they are may
    use it too. `feature` is what its calls are in the journal."""
    new_id = Ids()

    async def ask(prompt: str, policy: Policy) -> str | None:
        turn = {"role": "user", "content": prompt}
        request = ChatRequest.parse({"model": model, "messages": [turn], "temperature": 0, "max_tokens": WORD})
        try:
            routing.check(policy, model)
        except ModelNotAllowed:
            return None
        size, trail = measure(request), Trail()
        decision = await routing.decide(request, Principal(tenant=OPERATOR, policy=policy))
        plan = routing.plan(decision, policy, request, likely=size.likely, most=size.most)
        bracket = budget.for_operator(new_id(), feature=feature, ceiling=plan.ceiling)
        try:
            async with asyncio.timeout(JUDGE_SECONDS), bracket as reservation:
                completion = await dispatch.send(plan, request, reservation, trail, lambda _: None)
        finally:
            paid(trail.cost)
        return completion.text

    return ask


def grading(config: Config, routing: Routing, budget: Budget, dispatch: Dispatch) -> Ask | None:
    """Asks the model that grades answers; None where none is named."""
    said = config.routing.grader
    if said is None:
        return None
    return asking(said.model, "router-judge", routing=routing, budget=budget, dispatch=dispatch)
