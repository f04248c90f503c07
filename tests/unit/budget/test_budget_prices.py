"""Prices: the vendored table, dated and tiered prices, overrides, and the arithmetic that uses them."""

from __future__ import annotations

from importlib.resources import files
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.budget.prices import PriceTable
from headgate.model.money import Price, Tier, Usage, price_from_usd

NOVEMBER_2026 = 1_795_176_000.0
JANUARY_2027 = 1_799_000_000.0


def usd(text: str) -> int:
    return price_from_usd(text)


@pytest.fixture(scope="module")
def table() -> PriceTable:
    return PriceTable.load(now=lambda: NOVEMBER_2026)


@pytest.mark.parametrize(
    ("provider", "model", "dollars"),
    [
        ("openai", "gpt-4o-mini", ("0.15", "0.6", "0.075")),
        ("openai", "gpt-4o-mini-2024-07-18", ("0.15", "0.6", "0.075")),
        ("OpenAI", "GPT-4o-mini", ("0.15", "0.6", "0.075")),
        ("my-openai", "gpt-4o-mini", ("0.15", "0.6", "0.075")),
        ("anthropic", "claude-3-5-sonnet-20241022", ("3", "15", "0.3")),
        ("azure", "gpt-4o", ("2.5", "10", "1.25")),
        ("openai", "text-embedding-3-small", ("0.02", "0", None)),
    ],
)
def test_known_models_have_their_vendors_price(
    table: PriceTable, provider: str, model: str, dollars: tuple[str | None, ...]
) -> None:
    price = table.find(provider, model)
    assert price is not None
    expected = tuple(None if text is None else usd(text) for text in dollars)
    assert (price.input, price.output, price.cached_input) == expected


def test_a_context_window_comes_with_the_price(table: PriceTable) -> None:
    listing = table.listing("openai", "gpt-4o-mini")
    assert listing is not None
    assert listing.context_window == 128_000


@pytest.mark.parametrize(("provider", "model"), [("openai", "gpt-9-imaginary"), ("vllm", "gpt-4o"), ("", "gpt-4o")])
def test_what_is_not_known_has_no_price(table: PriceTable, provider: str, model: str) -> None:
    assert table.find(provider, model) is None


def test_a_dated_price_begins_on_its_day(table: PriceTable) -> None:
    later = PriceTable.load(now=lambda: JANUARY_2027)
    before, after = table.find("google", "gemini-3.6-flash"), later.find("google", "gemini-3.6-flash")
    assert before is not None
    assert after is not None
    assert (before.input, after.input) == (usd("0.75"), usd("1.5"))


def test_overrides_win_and_change_the_digest(table: PriceTable) -> None:
    mine = Price(input=1, output=2)
    other = PriceTable.load(overrides={"openai/gpt-4o-mini": mine, "vllm/llama": mine})
    assert other.find("openai", "gpt-4o-mini") == mine
    assert other.find("vllm", "llama") == mine
    assert other.digest != table.digest
    assert table.digest == PriceTable.load().digest
    assert table.as_of == "2026-08-21"


def test_the_table_ships_with_its_licence_and_stays_small() -> None:
    folder = files("headgate.budget")
    raw = folder.joinpath("price_table.json").read_bytes()
    assert len(raw) < 400_000
    assert "MIT License" in folder.joinpath("price_table.LICENSE").read_text()


def test_every_price_in_the_table_can_be_read_and_its_tiers_ascend(table: PriceTable) -> None:
    raw = msgspec.json.decode(files("headgate.budget").joinpath("price_table.json").read_bytes())
    count = 0
    for provider in raw["providers"]:
        for model in provider["models"]:
            price = table.find(provider["id"], model["names"][0])
            assert price is not None
            assert all(low.above < high.above for low, high in pairwise(price.tiers))
            count += 1
    assert count > 1_400


TIERED = Price(input=usd("5"), output=usd("30"), tiers=(Tier(above=1_000, input=usd("10"), output=usd("45")),), call=7)


def test_a_long_prompt_is_charged_by_its_tier_from_the_first_token() -> None:
    assert TIERED.charge(Usage(prompt_tokens=1_000, completion_tokens=1)) == 7 + 5_000 * 1_000 + 30_000
    assert TIERED.charge(Usage(prompt_tokens=1_001, completion_tokens=1)) == 7 + 10_000 * 1_001 + 45_000


def test_audio_has_its_own_price_and_cached_tokens_are_text_first() -> None:
    price = Price(
        input=usd("1"), output=usd("2"), cached_input=usd("0.1"), audio_input=usd("10"), audio_output=usd("20")
    )
    usage = Usage(
        prompt_tokens=100, cached_tokens=60, audio_input_tokens=50, completion_tokens=10, audio_output_tokens=4
    )
    assert price.charge(usage) == 60 * 100 + 40 * 10_000 + 4 * 20_000 + 6 * 2_000


RATES = st.integers(0, 10**12)
TIERS = st.builds(
    Tier,
    above=st.integers(0, 2_000),
    input=RATES,
    output=RATES,
    cached_input=st.none() | RATES,
    cache_write=st.none() | RATES,
    audio_input=st.none() | RATES,
    audio_output=st.none() | RATES,
)
PRICES = st.builds(
    Price,
    input=RATES,
    output=RATES,
    cached_input=st.none() | RATES,
    cache_write=st.none() | RATES,
    audio_input=st.none() | RATES,
    audio_output=st.none() | RATES,
    call=st.integers(0, 10**9),
    tiers=st.lists(TIERS, max_size=3, unique_by=lambda tier: tier.above).map(
        lambda tiers: tuple(sorted(tiers, key=lambda tier: tier.above))
    ),
)
TOKENS = st.integers(0, 4_000)


@given(PRICES, TOKENS, TOKENS, st.tuples(*[TOKENS] * 6))
def test_no_usage_within_the_bounds_costs_more_than_the_ceiling(
    price: Price, prompt: int, completion: int, parts: tuple[int, ...]
) -> None:
    """Whatever is cached, written, spoken or left out, and whichever tier it falls into."""
    less_prompt, less_completion, cached, written, heard, spoken = parts
    usage = Usage(
        prompt_tokens=max(0, prompt - less_prompt),
        completion_tokens=max(0, completion - less_completion),
        cached_tokens=cached,
        cache_write_tokens=written,
        audio_input_tokens=heard,
        audio_output_tokens=spoken,
    )
    assert price.charge(usage) <= price.ceiling(prompt, completion)
