"""What usage costs at a price, what is held for it, and what an amount affords."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from headgate.budget.pricing import DEAREST, DEAREST_SEARCH, checked_price
from headgate.model.errors import InvalidRequest
from headgate.model.money import (
    FALLBACKS,
    KINDS,
    LARGEST,
    MOST_SEARCHES,
    Extent,
    Period,
    Price,
    Rare,
    Tier,
    Usage,
    price_from_usd,
)

TEXT = Extent(rich=False)


def usd(text: str) -> int:
    return price_from_usd(text)


TIERED = Price(input=usd("5"), output=usd("30"), tiers=(Tier(above=1_000, input=usd("10"), output=usd("45")),), call=7)


def test_a_long_prompt_is_charged_by_its_tier_from_the_first_token() -> None:
    assert TIERED.charge(Usage(prompt_tokens=1_000, completion_tokens=1)) == 7 + 5_000 * 1_000 + 30_000
    assert TIERED.charge(Usage(prompt_tokens=1_001, completion_tokens=1)) == 7 + 10_000 * 1_001 + 45_000


def test_audio_has_its_own_price_and_cached_tokens_are_text_first() -> None:
    price = Price(
        input=usd("1"), output=usd("2"), cached_input=usd("0.1"), audio_input=usd("10"), audio_output=usd("20")
    )
    heard = Rare(audio_input=50, audio_output=4)
    usage = Usage(prompt_tokens=100, cached_tokens=60, completion_tokens=10, rare=heard)
    assert price.charge(usage) == 60 * 100 + 40 * 10_000 + 4 * 20_000 + 6 * 2_000


def test_each_part_is_charged_once_at_its_own_price() -> None:
    price = Price(
        input=usd("1"),
        output=usd("10"),
        cached_input=usd("0.1"),
        cache_write=usd("1.25"),
        cache_write_hour=usd("2"),
        reasoning=usd("4"),
        audio_input=usd("30"),
        audio_cached=usd("3"),
        image_input=usd("5"),
        image_output=usd("40"),
        citation=usd("2"),
        search=5_000_000,
    )
    rare = Rare(
        cache_write_hour=20, audio_input=12, audio_cached=2, image_input=30, image_output=7, citation=3, searches=2
    )
    usage = Usage(
        prompt_tokens=200,
        cached_tokens=50,
        cache_write_tokens=60,
        completion_tokens=100,
        reasoning_tokens=40,
        rare=rare,
    )
    prompt = 48 * 100 + 2 * 3_000 + 40 * 1_250 + 20 * 2_000 + 10 * 30_000 + 30 * 5_000 + (90 - 40) * 1_000
    completion = 40 * 4_000 + 7 * 40_000 + 3 * 2_000 + 50 * 10_000
    assert price.charge(usage) == prompt + completion + 2 * 5_000_000


def test_a_kind_without_a_price_is_charged_at_the_plain_one_and_says_so() -> None:
    price = Price(input=usd("1"), output=usd("2"), audio_input=usd("8"))
    assert {kind: price.charged_as(kind) for kind in ("cached_input", "cache_write_hour", "reasoning", "input")} == {
        "cached_input": "input",
        "cache_write_hour": "input",
        "reasoning": "output",
        "input": "input",
    }
    assert price.charged_as("audio_cached") == "audio_input"
    plain = Usage(prompt_tokens=9, completion_tokens=9)
    parts = Usage(prompt_tokens=9, completion_tokens=9, cached_tokens=5, cache_write_tokens=4, reasoning_tokens=9)
    assert price.charge(parts) == price.charge(plain)


def test_one_rounding_half_to_even() -> None:
    half = Price(input=500_000, output=500_000)
    assert [half.charge(Usage(prompt_tokens=tokens)) for tokens in (1, 2, 3, 5)] == [0, 1, 2, 2]
    assert half.charge(Usage(prompt_tokens=1, completion_tokens=1)) == 1
    assert [half.ceiling(tokens, 0) for tokens in (1, 2, 3)] == [1, 1, 2]


def test_text_is_not_held_at_the_price_of_sound() -> None:
    price = Price(input=usd("1"), output=usd("2"), audio_input=usd("30"), cache_write=usd("1.25"))
    assert price.ceiling(1_000, 0, TEXT) == 1_000 * 1_250
    assert price.ceiling(1_000, 0) == 1_000 * 30_000
    assert price.ceiling(0, 0, Extent(searches=3)) == 0


@pytest.mark.parametrize(
    ("price", "field"),
    [
        (Price(input=-1, output=0), "input"),
        (Price(input=0, output=10**15 + 1), "output"),
        (Price(input=0, output=0, cached_input=-5), "cached_input"),
        (Price(input=0, output=0, call=-1), "call"),
        (Price(input=0, output=0, search=10**13), "search"),
        (Price(input=0, output=0, tiers=(Tier(above=9, input=0, output=0), Tier(above=3, input=0, output=0))), "tiers"),
        (Price(input=0, output=0, tiers=(Tier(above=1, input=0, output=-7),)), "output"),
    ],
)
def test_what_cannot_be_a_price_is_refused_by_name(price: Price, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        checked_price(price)
    assert refused.value.param == field


def test_no_report_however_broken_costs_more_than_a_column_holds() -> None:
    rates = dict.fromkeys(KINDS, DEAREST)
    dearest = checked_price(Price(**rates, call=DEAREST, search=DEAREST_SEARCH, searches=MOST_SEARCHES))
    most = Usage(prompt_tokens=2**31, completion_tokens=2**31, rare=Rare(searches=MOST_SEARCHES))
    assert dearest.charge(most) <= LARGEST


RATE = st.integers(0, 10**12)
RATES = {"input": RATE, "output": RATE} | {kind: st.none() | RATE for kind in FALLBACKS}
TIERS = st.builds(Tier, above=st.integers(0, 2_000), **RATES)
PERIODS = st.builds(Period, begin=st.integers(0, 86_399), end=st.integers(0, 86_399), **RATES)
PRICES = st.builds(
    Price,
    **RATES,
    call=st.integers(0, 10**9),
    search=st.integers(0, 10**9),
    searches=st.integers(0, 3),
    tiers=st.lists(TIERS, max_size=3, unique_by=lambda tier: tier.above).map(
        lambda tiers: tuple(sorted(tiers, key=lambda tier: tier.above))
    ),
    periods=st.lists(PERIODS, max_size=2).map(tuple),
)
TOKENS = st.integers(0, 4_000)
PROMPT_KINDS = ("audio_input", "audio_cached", "image_input", "image_cached", "video_input", "cache_write_hour")
RARES = st.builds(Rare, **{kind: TOKENS for kind in Rare.__struct_fields__ if kind != "searches"})
USAGES = st.builds(
    Usage,
    prompt_tokens=TOKENS,
    completion_tokens=TOKENS,
    cached_tokens=TOKENS,
    cache_write_tokens=TOKENS,
    reasoning_tokens=TOKENS,
    rare=st.none() | RARES,
)
"""Parts need not fit: what exceeds its whole must be cut off."""

TIMES = st.none() | st.floats(0, 4e9)


@given(PRICES, USAGES, st.tuples(TOKENS, TOKENS), st.integers(0, 5), TIMES)
def test_no_usage_within_the_bounds_costs_more_than_the_ceiling(
    price: Price, usage: Usage, more: tuple[int, int], searches: int, at: float | None
) -> None:
    """Whatever is cached, written, spoken or left out, whichever tier it falls into, and at whatever time."""
    prompt, completion = usage.prompt_tokens + more[0], usage.completion_tokens + more[1]
    searched = Usage(
        **{name: getattr(usage, name) for name in usage.__struct_fields__ if name != "rare"},
        rare=(usage.rare or Rare()).plus(Rare(searches=searches)),
    )
    charged = price.charge(searched, at)
    assert 0 <= charged <= price.ceiling(prompt, completion, Extent(searches=searches))


@given(PRICES, USAGES, TIMES)
def test_a_prompt_of_text_costs_no_more_than_is_held_for_text(price: Price, usage: Usage, at: float | None) -> None:
    rare = usage.rare or Rare()
    said = Rare(**{kind: 0 if kind in PROMPT_KINDS else getattr(rare, kind) for kind in rare.__struct_fields__})
    text = Usage(**{name: getattr(usage, name) for name in usage.__struct_fields__ if name != "rare"}, rare=said)
    assert price.charge(text, at) <= price.ceiling(usage.prompt_tokens, usage.completion_tokens, TEXT)


@given(PRICES, st.integers(0, 10**13), TOKENS, st.booleans(), st.integers(0, 5))
def test_what_an_amount_affords_is_the_most_whose_ceiling_it_covers(
    price: Price, amount: int, prompt: int, rich: bool, searches: int
) -> None:
    extent = Extent(rich=rich, searches=searches)
    assume(price.ceiling(prompt, 0, extent) <= amount)
    most = price.affords(amount, prompt, extent)
    assert price.ceiling(prompt, most, extent) <= amount
    assert most == LARGEST or price.ceiling(prompt, most + 1, extent) > amount


@given(PRICES, st.integers(0, 10**13), TOKENS)
def test_an_amount_that_does_not_cover_the_prompt_affords_nothing(price: Price, amount: int, prompt: int) -> None:
    assume(price.ceiling(prompt, 0) > amount)
    assert price.affords(amount, prompt) == 0


@given(PRICES, TOKENS, TOKENS, TOKENS, TOKENS)
def test_more_tokens_never_have_a_lower_ceiling(
    price: Price, prompt: int, completion: int, more_prompt: int, more_completion: int
) -> None:
    assert price.ceiling(prompt, completion) <= price.ceiling(prompt + more_prompt, completion + more_completion)


@given(PRICES, USAGES, TOKENS, TIMES)
def test_more_output_never_costs_less(price: Price, usage: Usage, more: int, at: float | None) -> None:
    """With the parts as they are, for another token can only be a plain one."""
    fitting = Usage(prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens)
    longer = Usage(prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens + more)
    assert price.charge(fitting, at) <= price.charge(longer, at)


@given(PRICES, USAGES, TIMES)
def test_parts_that_exceed_their_whole_are_cut_off(price: Price, usage: Usage, at: float | None) -> None:
    """The same usage with every part cut to its whole beforehand costs the same."""
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    cached = min(usage.cached_tokens, prompt)
    cut = Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        cache_write_tokens=min(usage.cache_write_tokens, prompt - cached),
        reasoning_tokens=min(usage.reasoning_tokens, completion),
        rare=usage.rare,
    )
    assert price.charge(usage, at) == price.charge(cut, at)


@given(USAGES, USAGES)
def test_usages_add_up_part_by_part(one: Usage, other: Usage) -> None:
    both = one.plus(other)
    assert both.total_tokens == one.total_tokens + other.total_tokens
    for kind in Rare.__struct_fields__:
        parts = [getattr(usage.rare or Rare(), kind) for usage in (one, other)]
        assert getattr(both.rare or Rare(), kind) == sum(parts)


def test_every_kind_but_the_two_plain_ones_has_a_fallback() -> None:
    assert {"input", "output", *FALLBACKS} == set(KINDS)
