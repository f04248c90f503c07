"""Answers in stock as JSON: the same rows for the management API and the command line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from headgate.cache.cache import CacheStore, Entry
from headgate.cache.explanation import Explanation
from headgate.cache.learning import Learning, ScopeState
from headgate.cache.tiers import Cache
from headgate.model.chat import Json
from headgate.model.money import to_usd
from headgate.model.tenancy import Tenant

MOST_SCOPES = 100
SHOWN = 300
"""Characters of a question or an answer that are shown."""


def stock_report(store: CacheStore, tenants: Sequence[Tenant]) -> Json:
    """How much is in stock, in all and for each tenant that has any or whose treatment is its own."""
    rows = [_stock(store, one) for one in tenants]
    return {
        "entries": store.size(),
        "bytes": store.weight(),
        "tenants": [row for row in rows if row["entries"] or any(row["cache"].values())],
    }


def _stock(store: CacheStore, tenant: Tenant) -> Json:
    return {
        "id": tenant.id,
        "name": tenant.name,
        "entries": store.size(tenant.id),
        "bytes": store.weight(tenant.id),
        "cache": msgspec.to_builtins(tenant.policy.cache),
    }


def tiers_report(cache: Cache) -> Json:
    """How calls are treated when neither route nor tenant says otherwise, and whether the cache's parts work."""
    policy = cache.policy
    return {
        "exact": {"mode": "on" if policy.exact else "off", "ttl": policy.exact_ttl, "stale": policy.stale},
        "semantic": {
            "mode": policy.semantic,
            "ttl": policy.semantic_ttl,
            "max_error_rate": policy.error_rate,
            "embedder": cache.compares,
        },
        "routes": {name: msgspec.to_builtins(one) for name, one in cache.routes.items()},
        "parts": {name: {"well": part.well, "failures": part.failures} for name, part in cache.health.items()},
    }


def learning_report(learning: Learning, tenant: str | None) -> Json:
    """How many scopes keep their promise and what share of the checked answers was right; of one tenant also what is known of each of
    its scopes."""
    right, checked = learning.accuracy()
    report: Json = {
        "drift": learning.drifts(),
        "checked": checked,
        "accuracy": right / checked if checked else None,
    }
    if tenant is not None:
        report["scopes"] = [scope_row(one) for one in learning.states(tenant)[:MOST_SCOPES]]
    return report


def scope_row(state: ScopeState) -> Json:
    """What was learnt of one kind of a tenant's questions; its digest stands for route, settings and instructions."""
    place = {"namespace": state.scope.namespace.name, "digest": state.scope.digest.hex()[:16]}
    return {**place, **{name: getattr(state, name) for name in state.__struct_fields__ if name != "scope"}}


def entry_row(entry: Entry) -> Json:
    """An entry: what it is and how long it is found, with the beginnings of question and answer. Times are unix seconds."""
    return {
        "id": entry.id,
        "namespace": entry.key.namespace.name,
        "model": entry.model,
        "deployment": entry.deployment,
        "user": entry.user,
        "tags": list(entry.tags),
        "stored": entry.stored,
        "expires": entry.expires,
        "by_meaning_until": None if entry.partition is None else entry.semantic_until,
        "worth_usd": to_usd(entry.worth),
        "question": None if entry.text is None else entry.text[:SHOWN],
        "answer": entry.completion.text[:SHOWN],
    }


def explanation_row(one: str, other: str, found: Explanation) -> Json:
    """What the cache thinks of two questions."""
    explained: Json = msgspec.to_builtins(found)
    return {"one": one, "other": other, **_known(explained)}


def _known(value: Any) -> Any:
    """The same with null for what is not known: JSON has no NaN."""
    if isinstance(value, dict):
        return {name: _known(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_known(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
