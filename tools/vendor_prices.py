"""Reduce a genai-prices data file (version 2) to src/headgate/budget/price_table.json.

    python tools/vendor_prices.py path/to/data.json 2026-08-21

Get the file from pydantic/genai-prices, `prices/new_data/v2/data.json`; the date is that of the commit. The licence (MIT) is kept
beside the table as price_table.LICENSE.

What is left out: descriptions, usage extractors, models that are not priced by the token. Dated prices are kept by their first day,
prices for a time of the day as periods of the price before them.

Perplexity's research models search as often as they like, unasked, and bill each search: SEARCHES of them are held for a call.
"""

from __future__ import annotations

import json
import sys
from datetime import time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

Row = dict[str, Any]
"""A JSON object, theirs or ours."""

TARGET = Path(__file__).parents[1] / "src/headgate/budget/price_table.json"
SEARCHES = 30
FIELDS = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached_input": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_hour": "cache_write_1h_mtok",
    "reasoning": "output_reasoning_mtok",
    "audio_input": "input_audio_mtok",
    "audio_cached": "cache_audio_read_mtok",
    "audio_output": "output_audio_mtok",
    "image_input": "input_image_mtok",
    "image_cached": "cache_image_read_mtok",
    "image_output": "output_image_mtok",
    "video_input": "input_video_mtok",
    "video_output": "output_video_mtok",
    "citation": "output_citation_mtok",
}
PER_THOUSAND = {"call": "requests_kcount", "search": "web_searches_kcount"}
KNOWN = {*FIELDS.values(), *PER_THOUSAND.values()}


def at_size(value: Row | str | int | Decimal, start: int) -> Decimal:
    """A price for prompts of more than `start` tokens (0: the plain one)."""
    if not isinstance(value, dict):
        return Decimal(value)
    reached = [tier["price"] for tier in value["tiers"] if tier["start"] <= start and start]
    return Decimal(reached[-1] if reached else value["base"])


def rates(prices: Row, start: int) -> dict[str, str]:
    """Our fields of one genai-prices object, as decimal strings."""
    found = {field: f"{at_size(prices[source], start):f}" for field, source in FIELDS.items() if source in prices}
    return {"output": "0", **found}


def reduce_prices(prices: Row) -> Row | None:
    """One dated price, or None when prompts are not priced by the token. Raises KeyError for a kind that is not known."""
    if unknown := prices.keys() - KNOWN:
        raise KeyError(f"kinds of prices that are not known: {', '.join(sorted(unknown))}")
    if "input_mtok" not in prices:
        return None
    starts = sorted({t["start"] for v in prices.values() if isinstance(v, dict) for t in v["tiers"]})
    row: Row = rates(prices, 0)
    for field, source in PER_THOUSAND.items():
        if source in prices:
            row[field] = f"{Decimal(prices[source]) / 1000:f}"
    if starts:
        row["tiers"] = [{"above": start, **rates(prices, start)} for start in starts]
    return row


def dated(prices: Row | list[Row]) -> list[Row]:
    """All dated prices of a model, in order; those for a time of the day are periods of the one before them."""
    if isinstance(prices, dict):
        return [row] if (row := reduce_prices(prices)) else []
    rows: list[Row] = []
    for entry in prices:
        row, constraint = reduce_prices(entry["prices"]), entry.get("constraint", {})
        if row is None:
            continue
        if "start_time" in constraint:
            begin, end = (second_of(constraint[name]) for name in ("start_time", "end_time"))
            rows[-1].setdefault("periods", []).append({"begin": begin, "end": end, **row})
        else:
            rows.append({"since": constraint["start_date"], **row} if constraint else row)
    return rows


def second_of(moment: str) -> int:
    """Seconds after midnight UTC of a time such as 00:30:00Z."""
    at = time.fromisoformat(moment)
    if at.utcoffset() != timedelta(0):
        raise ValueError(f"{moment} is not in UTC")
    return at.hour * 3600 + at.minute * 60 + at.second


def exact_names(match: Row) -> tuple[list[str], list[Row]]:
    """Names that a rule takes literally, and the rest of the rule."""
    if "equals" in match:
        return [match["equals"]], []
    if "or" in match:
        parts = [exact_names(part) for part in match["or"]]
        return [name for names, _ in parts for name in names], [rule for _, rules in parts for rule in rules]
    return [], [match]


def reduce_model(model: Row) -> Row | None:
    """One row of the table, or None for what is not priced by tokens."""
    prices: list[Row] = [{"input": "0", "output": "0"}] if model["id"].endswith(":free") else dated(model["prices"])
    if not prices:
        return None
    names, rules = exact_names(model["match"])
    row: Row = {"names": list(dict.fromkeys([model["id"], *names])), "prices": prices}
    if rules:
        row["rules"] = rules
    if "context_window" in model:
        row["window"] = model["context_window"]
    return row


def reduce_provider(provider: Row) -> Row:
    """A provider with its rows."""
    kept = {"id": provider["id"], "models": [row for model in provider["models"] if (row := reduce_model(model))]}
    if provider["id"] == "perplexity":
        for price in (price for row in kept["models"] for price in row["prices"] if "search" in price):
            price["searches"] = SEARCHES
    if "provider_match" in provider:
        kept["rule"] = provider["provider_match"]
    if "fallback_model_providers" in provider:
        kept["also"] = provider["fallback_model_providers"]
    return kept


def main() -> None:
    source, as_of = Path(sys.argv[1]), sys.argv[2]
    providers = json.loads(source.read_text(), parse_float=Decimal)
    table: Row = {
        "source": "pydantic/genai-prices v2, MIT licence, see price_table.LICENSE",
        "as_of": as_of,
        "providers": [reduce_provider(provider) for provider in providers],
    }
    TARGET.write_text(json.dumps(table, separators=(",", ":"), ensure_ascii=False) + "\n")
    models = sum(len(provider["models"]) for provider in table["providers"])
    print(f"{TARGET}: {models} models of {len(providers)} providers, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
