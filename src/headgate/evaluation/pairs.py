"""Pairs: would the answer to one question be served for the other?

Each pair has a cache of its own: the first question is stored in it, the second asked of it. Nothing is learnt on the way, so the
order of a file does not matter, and many pairs are on their way at once, which lets the model read them in batches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from headgate.cache.cache import Hit, Selection
from headgate.cache.fingerprint import fingerprint
from headgate.cache.keeping import Asked
from headgate.cache.tiers import Cache
from headgate.cache.treatment import Treatment
from headgate.evaluation.evaluation import Pair, Ruling, stated
from headgate.evaluation.model import completion, plain_request
from headgate.model.tenancy import CacheTerms, Namespace, Wishes

AT_ONCE = 96
"""Pairs on their way: enough for full batches of every length."""


async def rulings(cache: Cache, pairs: Sequence[Pair], done: Callable[[], None]) -> list[Ruling]:
    """What the cache makes of each pair, in their order."""
    treated = cache.treatment("", CacheTerms(), Wishes())
    found: dict[int, Ruling] = {}
    waiting = iter(enumerate(pairs))

    async def work() -> None:
        for number, pair in waiting:
            found[number] = await _ruling(cache, treated, Namespace(f"pair-{number}"), pair)
            done()

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())
    return [found[number] for number in range(len(pairs))]


async def _ruling(cache: Cache, treated: Treatment, namespace: Namespace, pair: Pair) -> Ruling:
    first, second = plain_request(pair.a), plain_request(pair.b)
    tenant = namespace.tenant
    asked = Asked(id=tenant, epoch=cache.epoch(tenant))
    stored = await cache.question(first, treated)
    await cache.store(fingerprint(namespace, first), stored, completion(pair.a), treated, asked)
    question = await cache.question(second, treated)
    outcome = await cache.lookup(fingerprint(namespace, second), question, treated)
    await cache.invalidate(Selection(tenant=tenant))
    if isinstance(outcome, Hit) and outcome.tier == "exact":
        return Ruling(True, 1.0, pair.same, pair.kind)
    confidence, served = stated(outcome), isinstance(outcome, Hit)
    return Ruling(served, confidence or 0.0, pair.same, pair.kind, judged=confidence is not None)
