"""Money and tokens: what a call used and what that costs.

Money is an integer of nano-USD everywhere; the cheapest listed token costs 5 of them. Prices are kept as
nano-USD for a million tokens, so a whole call is summed exactly and rounded once.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

import msgspec

NANO_PER_USD = 1_000_000_000
TOKENS_PER_PRICE = 1_000_000
LARGEST = 2**63 - 1
"""What a 64-bit column holds; more than nine billion dollars."""


class Usage(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Tokens of one call, normalised: every other part is a subset of the prompt's or the completion's tokens.

    cached, cache_write, audio_input are of the prompt; reasoning, audio_output of the completion.
    `estimated` is true when the provider reported nothing and the tokens were counted here.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    estimated: bool = False

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens

    def plus(self, other: Usage) -> Usage:
        """The two together; estimated if either was."""
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            audio_input_tokens=self.audio_input_tokens + other.audio_input_tokens,
            audio_output_tokens=self.audio_output_tokens + other.audio_output_tokens,
            estimated=self.estimated or other.estimated,
        )


class Tier(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What all tokens of a call cost when its prompt has more than `above` tokens; as `Price`."""

    above: int
    input: int
    output: int
    cached_input: int | None = None
    cache_write: int | None = None
    audio_input: int | None = None
    audio_output: int | None = None

    def total(self, usage: Usage) -> int:
        """Nano-USD times a million for `usage`. What is cached is taken to be text first, which is never too cheap."""
        cached = min(usage.cached_tokens, usage.prompt_tokens)
        written = min(usage.cache_write_tokens, usage.prompt_tokens - cached)
        audio = min(usage.audio_input_tokens, usage.prompt_tokens - cached - written)
        spoken = min(usage.audio_output_tokens, usage.completion_tokens)
        return (
            (usage.prompt_tokens - cached - written - audio) * self.input
            + cached * (self.input if self.cached_input is None else self.cached_input)
            + written * (self.input if self.cache_write is None else self.cache_write)
            + audio * (self.input if self.audio_input is None else self.audio_input)
            + (usage.completion_tokens - spoken) * self.output
            + spoken * (self.output if self.audio_output is None else self.audio_output)
        )

    def most(self, prompt_tokens: int, completion_tokens: int) -> int:
        """Nano-USD times a million that so many tokens cost when each is of the dearest kind."""
        prompt = max(self.input, self.cached_input or 0, self.cache_write or 0, self.audio_input or 0)
        return prompt_tokens * prompt + completion_tokens * max(self.output, self.audio_output or 0)


class Price(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a deployment's tokens cost, each in nano-USD for a million tokens.

    A missing cache or audio price falls back to the plain price of that side. `tiers` (ascending) replace these prices for
    all tokens of a call with a long prompt; `call` is nano-USD for each call, whatever its size.
    """

    input: int
    output: int
    cached_input: int | None = None
    cache_write: int | None = None
    audio_input: int | None = None
    audio_output: int | None = None
    call: int = 0
    tiers: tuple[Tier, ...] = ()

    def charge(self, usage: Usage) -> int:
        """Nano-USD for `usage`, rounded once, half to even."""
        reached = self._reached(usage.prompt_tokens)
        return self.call + _divide_half_even(reached[-1].total(usage), TOKENS_PER_PRICE)

    def ceiling(self, prompt_tokens: int, completion_tokens: int) -> int:
        """Nano-USD that at most so many tokens can cost, rounded up: what is held before a call.

        The dearest tier that such a prompt can reach counts, also when a smaller one would be dearer.
        """
        reached = self._reached(prompt_tokens)
        most = reached[0].most(prompt_tokens, completion_tokens)
        for tier in reached[1:]:
            most = max(most, tier.most(prompt_tokens, completion_tokens))
        return self.call - (-most // TOKENS_PER_PRICE)

    def _reached(self, prompt_tokens: int) -> tuple[Tier, ...]:
        """The plain prices and every tier that a prompt of this size, or a smaller one, is charged by."""
        plain = Tier(
            above=-1,
            input=self.input,
            output=self.output,
            cached_input=self.cached_input,
            cache_write=self.cache_write,
            audio_input=self.audio_input,
            audio_output=self.audio_output,
        )
        if not self.tiers:
            return (plain,)
        return plain, *(tier for tier in self.tiers if tier.above < prompt_tokens)


def _divide_half_even(total: int, by: int) -> int:
    whole, rest = divmod(total, by)
    twice = 2 * rest
    return whole + (twice > by or (twice == by and whole % 2 == 1))


def from_usd(text: str | int | Decimal) -> int:
    """Nano-USD of a decimal number of dollars such as "1.25".

    Raises ValueError when it is not a finite decimal, has more than nine decimals, is negative or too large.
    """
    try:
        nano = Decimal(text) * NANO_PER_USD
    except (InvalidOperation, TypeError) as error:
        raise ValueError(f"{text!r} is not a decimal number of dollars such as 1.25") from error
    if not nano.is_finite() or nano < 0 or nano > LARGEST:
        raise ValueError(f"{text!r} is not an amount between 0 and {to_usd(LARGEST)}")
    if nano != nano.to_integral_value():
        raise ValueError(f"{text!r} has more than nine decimals; the smallest amount is 0.000000001")
    return int(nano)


def price_from_usd(text: str | int | Decimal) -> int:
    """Nano-USD for a million tokens, of a decimal number of dollars for a million tokens; rounds half to even."""
    return int((Decimal(text) * NANO_PER_USD).to_integral_value(rounding=ROUND_HALF_EVEN))


def to_usd(nano: int) -> str:
    """A decimal string of dollars, with no trailing zeros but at least two decimals: `0.00`, `1.25`, `0.0000275`."""
    if nano == 0:
        return "0.00"
    sign = "-" if nano < 0 else ""
    whole, rest = divmod(abs(nano), NANO_PER_USD)
    decimals = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{decimals}"
