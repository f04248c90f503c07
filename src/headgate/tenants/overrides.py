"""Overrides: the fields of a tenant's policy that differ from the defaults.

Invariant: what is stored converts to a valid Policy. Only differences are stored, so a changed default reaches every tenant
that has not said otherwise.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headgate.model.errors import InvalidRequest
from headgate.model.money import LARGEST
from headgate.model.tenancy import Caps, Policy


def merged(overrides: dict[str, Any], changes: dict[str, Any], defaults: Policy) -> dict[str, Any]:
    """The overrides after `changes`; a field given as None falls back to the default, a cap given as None is no cap.

    Raises InvalidRequest naming the field.
    """
    caps = changes.get("caps")
    if caps is not None and not isinstance(caps, dict):
        raise InvalidRequest("`caps` must be an object of amounts by window.", param="caps")
    result = {**overrides, **changes}
    if caps is not None:
        result["caps"] = {**(overrides.get("caps") or {}), **caps}
    result = {name: value for name, value in result.items() if value is not None}
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
    plain = msgspec.to_builtins(defaults)
    caps = {**plain["caps"], **overrides.get("caps", {})}
    return msgspec.convert({**plain, **overrides, "caps": caps}, Policy)


def _refuse_unknown(overrides: dict[str, Any]) -> None:
    for struct, given in ((Policy, overrides), (Caps, overrides.get("caps", {}))):
        unknown = sorted(set(given) - set(struct.__struct_fields__))
        if unknown:
            known = ", ".join(struct.__struct_fields__)
            raise InvalidRequest(f"There is no field `{unknown[0]}` here, only {known}.", param=unknown[0])


def _check_ranges(policy: Policy) -> None:
    for name in ("rpm", "concurrency"):
        if not 1 <= getattr(policy, name) < 2**31:
            raise InvalidRequest(f"`{name}` must be between 1 and {2**31 - 1}.", param=name)
    for name in Caps.__struct_fields__:
        cap = getattr(policy.caps, name)
        if cap is not None and not 0 <= cap <= LARGEST:
            raise InvalidRequest(f"The cap of the {name} is not an amount of money.", param=f"caps.{name}")
