"""Room: how much may still be held, and why nothing may. What every ledger and every till decides by, in this process or in a store.

Invariant: there is room for something just when no scope refuses it, so that who is told why is told something true.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headgate.budget.budget import Scope
from headgate.budget.refusals import held_refusal, is_rate, spent_refusal, suspended_refusal, tokens_refusal
from headgate.model.errors import GatewayError, TokensLimited
from headgate.model.money import LARGEST

SHARE = 8
"""A call holds at most this part of what is left, as long as that is more than it needs: near a cap holds become small, so
that one caller with a huge `max_tokens` does not keep everybody else out."""


class Counted(Protocol):
    """What is spent and held on one scope."""

    @property
    def spent(self) -> int:
        """Nano-USD or tokens."""
        ...

    @property
    def held(self) -> int:
        """Nano-USD or tokens."""
        ...


def room(scopes: Sequence[Scope], counted: Sequence[Counted], needed: int, tokens: int) -> int | None:
    """Money that may still be held on every scope; None when less than `needed` may, or fewer than so many tokens."""
    most = LARGEST
    for scope, one in zip(scopes, counted, strict=True):
        cap = scope.cap
        if cap is None:
            continue
        free = cap - one.spent - one.held
        if scope.tokens:
            # A call that takes no tokens is not kept waiting by those of others, unless somebody has stopped the spending.
            if tokens > max(free, 0) or cap < 0:
                return None
        elif needed > free:
            return None
        elif free < most:
            most = free
    return most


def share(amount: int, least: int, most: int) -> int:
    """How much of `amount` is held where there is room for `most`."""
    return max(least, min(amount, most // SHARE))


def refusal(scopes: Sequence[Scope], counted: Sequence[Counted], needed: int, tokens: int, now: float) -> GatewayError:
    """Why there is no room. `now` is in unix seconds. Raises ValueError where there is.

    What cannot be waited for is told first: money that is spent, then tokens of this minute, then what is held.
    """
    told: GatewayError | None = None
    for scope, one in zip(scopes, counted, strict=True):
        if room((scope,), (one,), needed, tokens) is not None:
            continue
        cap, wanted = scope.cap or 0, tokens if scope.tokens else needed
        if cap < 0:
            return suspended_refusal(scope)
        if one.spent + wanted <= cap:
            told = told or held_refusal(scope, one.spent, one.held, wanted)
        elif not is_rate(scope):
            return spent_refusal(scope, one.spent, wanted)
        elif not isinstance(told, TokensLimited):
            told = tokens_refusal(scope, one.spent, wanted, now)
    if told is None:
        raise ValueError("none of the scopes refuses")
    return told
