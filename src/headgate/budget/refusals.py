"""Refusals: what a caller is told when a budget does not let its call in."""

from __future__ import annotations

from datetime import UTC, datetime

from headgate.budget.budget import Scope
from headgate.budget.windows import kind_of, window_end
from headgate.model.errors import BudgetExceeded, GatewayError, TokensLimited
from headgate.model.money import to_usd

HELD_RETRY = 1.0
"""Seconds after which a caller may try again when only calls in flight stand in its way; most calls end within some."""


def is_rate(scope: Scope) -> bool:
    """Whether it is a rate, tokens of a minute, and no budget: it fills again soon, so a caller is told to wait."""
    return kind_of(scope.window) == "minute"


def spent_refusal(scope: Scope, spent: int, wanted: int) -> BudgetExceeded:
    """The budget is spent, or the call is dearer than the whole of it."""
    cap = scope.cap or 0
    if wanted > cap:
        return BudgetExceeded(
            f"{_call(scope, wanted, 'This')}, more than {_named(scope, 'the')} of {_amount(scope, cap)} allows. Ask for fewer "
            "`max_tokens` or raise the budget."
        )
    taken = str(spent) if scope.tokens else to_usd(spent)
    return BudgetExceeded(
        f"{_named(scope)} is spent: {taken} of {_amount(scope, cap)}, and {_call(scope, wanted)}.{_until(scope)}"
    )


def held_refusal(scope: Scope, spent: int, held: int, wanted: int) -> GatewayError:
    """Calls in flight hold what is left."""
    if is_rate(scope):
        return _tokens_limited(scope, spent + held, wanted, HELD_RETRY)
    return BudgetExceeded(
        f"{_named(scope)} is held by calls in flight: {_amount(scope, spent)} spent and {_amount(scope, held)} held of "
        f"{_amount(scope, scope.cap or 0)}, and {_call(scope, wanted)}. Try again when they have ended.",
        held=True,
        retry_after=HELD_RETRY,
    )


def suspended_refusal(scope: Scope) -> BudgetExceeded:
    """An operator has stopped the spending."""
    return BudgetExceeded(f"{_named(scope)} is suspended by the operator.")


def tokens_refusal(scope: Scope, spent: int, wanted: int, now: float) -> TokensLimited:
    """The tokens of this minute are used up."""
    return _tokens_limited(scope, spent, wanted, max(HELD_RETRY, (window_end(scope.window) or now) - now))


def _tokens_limited(scope: Scope, taken: int, wanted: int, wait: float) -> TokensLimited:
    cap = scope.cap or 0
    return TokensLimited(
        f"{taken} of {cap} tokens of this minute are taken, and this call may use {wanted}.",
        retry_after=wait,
        limit=cap,
        reset=wait,
    )


def _call(scope: Scope, wanted: int, this: str = "this") -> str:
    return f"{this} call may {'use' if scope.tokens else 'cost'} {_amount(scope, wanted)}"


def _amount(scope: Scope, amount: int) -> str:
    return f"{amount} tokens" if scope.tokens else f"{to_usd(amount)} USD"


def _named(scope: Scope, the: str = "The") -> str:
    """Whose budget it is, as the caller may know it: ids beneath its own tenant, never another's name."""
    level, _, name = scope.account.partition(":")
    _, _, part = name.partition("/")
    whose = {"tenant": "", "organisation": " of the organisation"}.get(level, f" of {level} {part}")
    kind, of_what = kind_of(scope.window), "token budget" if scope.tokens else "budget"
    return f"{the} {of_what} of this {kind}{whose}" if kind != "total" else f"{the} total {of_what}{whose}"


def _until(scope: Scope) -> str:
    end = window_end(scope.window)
    kind = kind_of(scope.window)
    return "" if end is None else f" The {kind} ends at {datetime.fromtimestamp(end, UTC):%Y-%m-%dT%H:%M:%SZ}."
