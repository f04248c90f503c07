"""The price table: known models, dated prices, prices by the time of the day, and what replaces them."""

from __future__ import annotations

from importlib.resources import files
from itertools import pairwise

import msgspec
import pytest

from headgate.budget.prices import PriceTable
from headgate.model.money import Price, Rare, Usage, price_from_usd

NOVEMBER_2026 = 1_795_176_000.0
JANUARY_2027 = 1_799_000_000.0
MIDNIGHT = 1_795_132_800.0


def usd(text: str) -> int:
    return price_from_usd(text)


def found(table: PriceTable, provider: str, model: str) -> Price:
    price = table.find(provider, model)
    assert price is not None
    return price


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
    price = found(table, provider, model)
    expected = tuple(None if text is None else usd(text) for text in dollars)
    assert (price.input, price.output, price.cached_input) == expected


@pytest.mark.parametrize(
    ("provider", "model", "kinds"),
    [
        ("anthropic", "claude-sonnet-4-5", {"cache_write": "3.75", "cache_write_hour": "6"}),
        ("openai", "gpt-realtime", {"audio_input": "32", "audio_cached": "0.4", "audio_output": "64"}),
        ("openai", "gpt-realtime", {"image_input": "5", "image_cached": "0.5", "image_output": None}),
        ("google", "gemini-2.5-flash-image", {"image_output": "30"}),
        ("google", "gemini-embedding-2", {"video_input": "12", "audio_input": "6.5"}),
        ("perplexity", "sonar-deep-research", {"reasoning": "3", "citation": "2"}),
    ],
)
def test_every_kind_of_token_has_its_own_price(
    table: PriceTable, provider: str, model: str, kinds: dict[str, str | None]
) -> None:
    price = found(table, provider, model)
    for kind, text in kinds.items():
        assert getattr(price, kind) == (None if text is None else usd(text))


def test_calls_and_searches_have_prices_too(table: PriceTable) -> None:
    assert found(table, "perplexity", "sonar-pro").call == 14_000_000
    assert found(table, "anthropic", "claude-sonnet-4-5").search == 10_000_000
    research = found(table, "perplexity", "sonar-deep-research")
    assert research.search == 5_000_000
    assert research.ceiling(0, 0) >= 30 * 5_000_000


def test_a_context_window_comes_with_the_price(table: PriceTable) -> None:
    listing = table.listing("openai", "gpt-4o-mini")
    assert listing is not None
    assert (listing.context_window, listing.origin) == (128_000, "table")


@pytest.mark.parametrize(("provider", "model"), [("openai", "gpt-9-imaginary"), ("vllm", "gpt-4o"), ("", "gpt-4o")])
def test_what_is_not_known_has_no_price(table: PriceTable, provider: str, model: str) -> None:
    assert table.find(provider, model) is None


def test_a_dated_price_begins_on_its_day(table: PriceTable) -> None:
    later = PriceTable.load(now=lambda: JANUARY_2027)
    before, after = found(table, "google", "gemini-3.6-flash"), found(later, "google", "gemini-3.6-flash")
    assert (before.input, after.input) == (usd("0.75"), usd("1.5"))


def test_a_price_by_the_time_of_the_day_is_charged_by_it_and_held_at_the_dearest(table: PriceTable) -> None:
    price, used = found(table, "deepseek", "deepseek-reasoner"), Usage(prompt_tokens=1_000_000)
    night, day = usd("0.135"), usd("0.55")
    for second, expected in ((0, night), (1_799, night), (1_800, day), (59_399, day), (59_400, night)):
        assert price.charge(used, MIDNIGHT + second) == expected
    assert price.charge(used) == price.ceiling(1_000_000, 0) == day
    assert price.affords(day - 1, 1_000_000) == 0


def test_overrides_win_and_change_the_digest(table: PriceTable) -> None:
    mine = Price(input=1, output=2)
    other = PriceTable.load(overrides={"openai/gpt-4o-mini": mine, "vllm/llama": mine})
    assert other.find("openai", "gpt-4o-mini") == mine
    assert other.find("vllm", "llama") == mine
    assert other.digest != table.digest
    assert table.digest == PriceTable.load().digest
    assert table.as_of == "2026-08-21"


def test_the_strongest_word_on_a_price_wins_and_the_digest_tells_them_apart() -> None:
    one, two, three = (Price(input=each, output=each) for each in (1, 2, 3))
    table = PriceTable.load(overrides={"openai/gpt-4o": one}, models={"mine": two})
    digests = {table.digest, PriceTable.load(overrides={"openai/gpt-4o": one}).digest}
    assert table.find("openai", "gpt-4o") == one
    assert table.find("openai", "gpt-4o", "mine") == two
    before = table.digest
    table.change("openai", "gpt-4o", three)
    digests.add(table.digest)
    listing = table.listing("openai", "gpt-4o", "mine")
    assert listing is not None
    assert (listing.price, listing.origin, table.changed()) == (three, "changed", ("openai/gpt-4o",))
    table.change("openai", "gpt-4o", None)
    assert table.find("openai", "gpt-4o", "mine") == two
    assert table.digest == before
    assert len(digests) == 3


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
            price = found(table, provider["id"], model["names"][0])
            assert all(low.above < high.above for low, high in pairwise(price.tiers))
            assert price.charge(Usage(prompt_tokens=500_000, rare=Rare(searches=1))) >= 0
            count += 1
    assert count > 1_400
