"""Overrides: the fields of a tenant's policy that differ from the defaults.

Invariant: what is stored converts to a valid Policy. Only differences are stored, so a changed default reaches every tenant
that has not said otherwise.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from headgate.model.errors import InvalidRequest
from headgate.model.tenancy import REGION, CacheTerms, Policy
from headgate.model.zones import zone_of

MOST_HIT_PERCENT = 1_000
HIGHEST_ERROR_RATE = 0.5


def merged(overrides: dict[str, Any], changes: dict[str, Any], defaults: Policy) -> dict[str, Any]:
    """The overrides after `changes`; a field given as None falls back to the default. What `cache` holds is merged in the same way.

    Raises InvalidRequest naming the field.
    """
    inner = changes.get("cache")
    if isinstance(inner, dict):
        changes = {**changes, "cache": _given({**overrides.get("cache", {}), **inner}) or None}
    result = _given({**overrides, **changes})
    _refuse_unknown(result)
    try:
        policy = with_defaults(result, defaults)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"The policy is not valid: {error}.", param="policy") from None
    _check_ranges(policy)
    return result


def with_defaults(overrides: dict[str, Any], defaults: Policy) -> Policy:
    """The policy that applies. Raises msgspec.ValidationError."""
    if not overrides:
        return defaults
    return msgspec.convert({**msgspec.to_builtins(defaults), **overrides}, Policy)


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _refuse_unknown(overrides: dict[str, Any]) -> None:
    unknown = sorted(set(overrides) - set(Policy.__struct_fields__))
    if unknown:
        known = ", ".join(Policy.__struct_fields__)
        raise InvalidRequest(f"There is no field `{unknown[0]}` here, only {known}.", param=unknown[0])
    cache = overrides.get("cache", {})
    for name in cache if isinstance(cache, dict) else ():
        if name not in CacheTerms.__struct_fields__:
            known = ", ".join(CacheTerms.__struct_fields__)
            raise InvalidRequest(f"There is no field `cache.{name}` here, only {known}.", param=f"cache.{name}")


def _check_ranges(policy: Policy) -> None:
    for name in ("rpm", "concurrency"):
        if not 1 <= getattr(policy, name) < 2**31:
            raise InvalidRequest(f"`{name}` must be between 1 and {2**31 - 1}.", param=name)
    if policy.tpm is not None and not 1 <= policy.tpm < 2**53:
        raise InvalidRequest(f"`tpm` must be between 1 and {2**53 - 1}.", param="tpm")
    if not 0 <= policy.hit_percent <= MOST_HIT_PERCENT:
        raise InvalidRequest(f"`hit_percent` must be between 0 and {MOST_HIT_PERCENT}.", param="hit_percent")
    if policy.customer is not None and not (policy.customer.isprintable() and 1 <= len(policy.customer) <= 255):
        raise InvalidRequest("`customer` must be 1 to 255 printable characters.", param="customer")
    regions = policy.residency
    if regions is not None and not (regions and all(re.fullmatch(REGION, one) for one in regions)):
        raise InvalidRequest(
            "`residency` must name at least one region, each such as eu or us-east.", param="residency"
        )
    rate = policy.cache.max_error_rate
    if rate is not None and not 0 <= rate <= HIGHEST_ERROR_RATE:
        raise InvalidRequest(
            f"`cache.max_error_rate` must be between 0 and {HIGHEST_ERROR_RATE}.", param="cache.max_error_rate"
        )
    try:
        zone_of(policy.zone)
    except ValueError as error:
        raise InvalidRequest(f"{error}.", param="zone") from None
