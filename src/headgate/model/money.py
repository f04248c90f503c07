"""Money and tokens: what a call used and what that costs.

Money is an integer of nano-USD everywhere; the cheapest listed token costs 5 of them. Prices are kept as
nano-USD for a million tokens, so a whole call is summed exactly and rounded once.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from functools import cached_property

import msgspec

NANO_PER_USD = 1_000_000_000
TOKENS_PER_PRICE = 1_000_000
DAY = 86_400
MOST_SEARCHES = 10_000
"""Searches of the web that no call makes, whatever it allows itself or its provider reports."""
LARGEST = 2**63 - 1
"""What a 64-bit column holds; more than nine billion dollars."""


class Rare(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What only few calls use. The tokens are subsets, as those of `Usage` are, and beside one another.

    cache_write_hour           of the tokens written to the cache: those to be kept for an hour, not for minutes
    audio, image, video_input  of the prompt; of these, audio_cached and image_cached came out of the cache
    audio, image, video_output and citation  of the completion
    searches                   of the web, counted one by one
    """

    cache_write_hour: int = 0
    audio_input: int = 0
    audio_cached: int = 0
    audio_output: int = 0
    image_input: int = 0
    image_cached: int = 0
    image_output: int = 0
    video_input: int = 0
    video_output: int = 0
    citation: int = 0
    searches: int = 0

    def plus(self, other: Rare) -> Rare:
        """The two together."""
        return Rare(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


class Usage(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Tokens of one call, normalised: every other part is a subset of the prompt's or the completion's tokens.

    cached, cache_write are of the prompt; reasoning of the completion; `rare` is what few calls use.
    `estimated` is true when the provider reported nothing and the tokens were counted here.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    rare: Rare | None = None

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
            estimated=self.estimated or other.estimated,
            rare=self.rare.plus(other.rare) if self.rare and other.rare else self.rare or other.rare,
        )


class Extent(msgspec.Struct, frozen=True, gc=False):
    """How far a call may go beyond text in and text out.

    rich      the prompt may hold more than text, or be kept in a cache for an hour
    searches  of the web that the call may make
    """

    rich: bool = True
    searches: int = 0


ANYTHING = Extent()


FALLBACKS: dict[str, tuple[str, ...]] = {
    "cached_input": ("input",),
    "cache_write": ("input",),
    "cache_write_hour": ("cache_write", "input"),
    "reasoning": ("output",),
    "audio_input": ("input",),
    "audio_cached": ("audio_input", "cached_input", "input"),
    "audio_output": ("output",),
    "image_input": ("input",),
    "image_cached": ("image_input", "cached_input", "input"),
    "image_output": ("output",),
    "video_input": ("input",),
    "video_output": ("output",),
    "citation": ("output",),
}
"""What a kind of token is charged as when it has no price of its own: the first of these that has one."""


class Rates(msgspec.Struct, frozen=True, kw_only=True, dict=True, omit_defaults=True):
    """What each kind of token costs, in nano-USD for a million. One without a price is charged as FALLBACKS says."""

    input: int
    output: int
    cached_input: int | None = None
    cache_write: int | None = None
    cache_write_hour: int | None = None
    reasoning: int | None = None
    audio_input: int | None = None
    audio_cached: int | None = None
    audio_output: int | None = None
    image_input: int | None = None
    image_cached: int | None = None
    image_output: int | None = None
    video_input: int | None = None
    video_output: int | None = None
    citation: int | None = None

    def charged_as(self, kind: str) -> str:
        """The kind of token whose price is charged for this kind: itself when it has a price."""
        if getattr(self, kind) is not None:
            return kind
        return next(other for other in FALLBACKS[kind] if getattr(self, other) is not None)

    def total(self, usage: Usage) -> int:
        """Nano-USD times a million for `usage`. Parts that exceed what they belong to are cut off."""
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        cached, written, thought = usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens
        if not (cached or written or thought) and usage.rare is None:
            return prompt * self.input + completion * self.output
        cached = min(cached, prompt)
        written = min(written, prompt - cached)
        thought = min(thought, completion)
        total = (
            (prompt - cached - written) * self.input
            + cached * (self.input if self.cached_input is None else self.cached_input)
            + written * (self.input if self.cache_write is None else self.cache_write)
            + (completion - thought) * self.output
            + thought * (self.output if self.reasoning is None else self.reasoning)
        )
        if usage.rare is None:
            return total
        return total + self._beyond(usage.rare, cached, written, prompt - cached - written, completion - thought)

    def _beyond(self, rare: Rare, cached: int, written: int, fresh: int, said: int) -> int:
        """What tokens of rarer kinds cost more, or less, than `total` took them for.

        What is cached is taken to be text unless it is said to be something else, which is never too cheap.
        """
        heard = min(rare.audio_cached, cached)
        seen = min(rare.image_cached, cached - heard)
        beyond = self._more("cache_write_hour", "cache_write", rare.cache_write_hour, written)
        beyond += self._more("audio_cached", "cached_input", heard, cached)
        beyond += self._more("image_cached", "cached_input", seen, cached)
        for kind, tokens in (
            ("audio_input", rare.audio_input - heard),
            ("image_input", rare.image_input - seen),
            ("video_input", rare.video_input),
        ):
            beyond += self._more(kind, "input", tokens, fresh)
            fresh -= max(0, min(tokens, fresh))
        for kind in ("audio_output", "image_output", "video_output", "citation"):
            tokens = getattr(rare, kind)
            beyond += self._more(kind, "output", tokens, said)
            said -= min(tokens, said)
        return beyond

    def _more(self, kind: str, plain: str, tokens: int, most: int) -> int:
        each: int = getattr(self, self.charged_as(kind)) - getattr(self, self.charged_as(plain))
        return max(0, min(tokens, most)) * each

    def most(self, prompt_tokens: int, completion_tokens: int, *, rich: bool) -> int:
        """Nano-USD times a million that so many tokens cost when each is of the dearest kind that there can be.

        `rich` as in Extent.
        """
        text, anything, said = self._dearest
        return prompt_tokens * (anything if rich else text) + completion_tokens * said

    def room(self, amount: int, prompt_tokens: int, *, rich: bool) -> int:
        """Output tokens that are left in `amount`, nano-USD times a million, after a prompt; 0 when it does not cover that."""
        left = amount - self.most(prompt_tokens, 0, rich=rich)
        each = self._dearest[2]
        if left < 0:
            return 0
        return left // each if each else LARGEST

    @cached_property
    def _dearest(self) -> tuple[int, int, int]:
        """The dearest token of a prompt of text, of any prompt, and of a completion."""
        text = ("input", "cached_input", "cache_write")
        rarer = (
            *("cache_write_hour", "audio_input", "audio_cached"),
            *("image_input", "image_cached", "video_input"),
        )
        said = ("output", "reasoning", "audio_output", "image_output", "video_output", "citation")
        return self._dearest_of(text), self._dearest_of((*text, *rarer)), self._dearest_of(said)

    def _dearest_of(self, kinds: tuple[str, ...]) -> int:
        return max(getattr(self, kind) or 0 for kind in kinds)


KINDS = Rates.__struct_fields__
"""All kinds of tokens that can have a price."""


class Tier(Rates, frozen=True, kw_only=True, omit_defaults=True):
    """What all tokens of a call cost when its prompt has more than `above` tokens."""

    above: int


class Period(Rates, frozen=True, kw_only=True, omit_defaults=True):
    """What tokens cost each day from `begin` to before `end`, in seconds after midnight UTC; over midnight when `end` is less."""

    begin: int
    end: int

    def holds(self, at: float) -> bool:
        """Whether the unix time `at` lies in it."""
        second = at % DAY
        if self.begin <= self.end:
            return self.begin <= second < self.end
        return second >= self.begin or second < self.end


class Price(Rates, frozen=True, kw_only=True, omit_defaults=True):
    """What a deployment's calls cost.

    tiers     ascending; replace these rates for all tokens of a call with a long prompt
    periods   replace them at some time of the day
    call      nano-USD for each call, whatever its size
    search    nano-USD for each search of the web
    searches  that each call is believed to make at most unless it says otherwise
    """

    call: int = 0
    search: int = 0
    searches: int = 0
    tiers: tuple[Tier, ...] = ()
    periods: tuple[Period, ...] = ()

    def charge(self, usage: Usage, at: float | None = None) -> int:
        """Nano-USD for `usage`, rounded once, half to even.

        `at`, unix seconds, matters where the price depends on the time of day; without it the dearest time counts.
        """
        total = self._varying(usage, at) if self.tiers or self.periods else self.total(usage)
        whole, rest = divmod(total, TOKENS_PER_PRICE)
        twice = 2 * rest
        if twice > TOKENS_PER_PRICE or (twice == TOKENS_PER_PRICE and whole % 2 == 1):
            whole += 1
        if usage.rare is not None:
            whole += usage.rare.searches * self.search
        return whole + self.call

    def ceiling(self, prompt_tokens: int, completion_tokens: int, extent: Extent = ANYTHING) -> int:
        """Nano-USD that at most so many tokens can cost, rounded up: what is held before a call.

        The dearest tier that such a prompt can reach counts, also when a smaller one would be dearer, and the dearest time of
        day.
        """
        rich = extent.rich
        most = self.most(prompt_tokens, completion_tokens, rich=rich)
        if self.tiers or self.periods:
            for rates in self._reached(prompt_tokens):
                most = max(most, rates.most(prompt_tokens, completion_tokens, rich=rich))
        return self._fixed(extent) - (-most // TOKENS_PER_PRICE)

    def affords(self, amount: int, prompt_tokens: int, extent: Extent = ANYTHING) -> int:
        """Output tokens that a call with at most so many prompt tokens can have for `amount` nano-USD: the most for which
        `ceiling` does not exceed it, 0 when not even the prompt is covered."""
        left = (amount - self._fixed(extent)) * TOKENS_PER_PRICE
        fewest = self.room(left, prompt_tokens, rich=extent.rich)
        if self.tiers or self.periods:
            for rates in self._reached(prompt_tokens):
                fewest = min(fewest, rates.room(left, prompt_tokens, rich=extent.rich))
        return fewest

    def _fixed(self, extent: Extent) -> int:
        return self.call + max(extent.searches, self.searches) * self.search if self.search else self.call

    def _reached(self, prompt_tokens: int) -> tuple[Rates, ...]:
        """The rates beside the plain ones by which a prompt of this size, or a smaller one, may be charged."""
        if not self.tiers:
            return self.periods
        return *self.periods, *(tier for tier in self.tiers if tier.above < prompt_tokens)

    def _varying(self, usage: Usage, at: float | None) -> int:
        reached = [tier for tier in self.tiers if tier.above < usage.prompt_tokens]
        if reached:
            return reached[-1].total(usage)
        if at is None:
            return max(rates.total(usage) for rates in (self, *self.periods))
        current: Rates = next((period for period in self.periods if period.holds(at)), self)
        return current.total(usage)


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
