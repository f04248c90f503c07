"""Does Headgate read the usage that providers report, and price it, as genai-prices does?

    python -m benchmarks.usage_bodies [FOLDER] [--out usage_bodies.json]

FOLDER (default ../shared/data) holds `prices/usages.jsonl.gz`: bodies of real answers as JSON lines {body, model, extracted}, made from
pydantic/genai-prices (MIT). It is not part of this project.

`extracted` says what each of genai-prices' extractors reads in a body; most of them belong to other vendors than the one that wrote it. A
reading is one extractor's view of one body. It is compared with the one that Headgate has of the body. Where they differ, a rule must say
why (`_why`), or the difference counts as unexplained. Each priced reading is charged with our table at the reference's own
tokens, so that arithmetic and parsing are judged apart. The exit code is 1 when a difference is unexplained.

Not compared: tokens that are plain text, and tokens that tools read, for no price depends on either.
"""

from __future__ import annotations

import argparse
import gzip
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from headgate.budget.prices import PriceTable
from headgate.model.money import NANO_PER_USD, Rare, Usage
from headgate.providers.usage import normalised

PRICED_AT = datetime.fromisoformat("2026-07-29T12:00:00Z").timestamp()
"""The reference's prices are those of a day before the changes of 2026-07-30."""

HALF_A_NANO = Decimal("5e-10")
_PLAIN = {
    "input_tokens": "prompt_tokens",
    "output_tokens": "completion_tokens",
    "cache_read_tokens": "cached_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "output_reasoning_tokens": "reasoning_tokens",
}
_RARE = {
    "cache_write_1h_tokens": "cache_write_hour",
    "input_audio_tokens": "audio_input",
    "cache_audio_read_tokens": "audio_cached",
    "output_audio_tokens": "audio_output",
    "input_image_tokens": "image_input",
    "cache_image_read_tokens": "image_cached",
    "output_image_tokens": "image_output",
    "input_video_tokens": "video_input",
    "output_video_tokens": "video_output",
    "output_citation_tokens": "citation",
    "web_searches": "searches",
}
Counts = dict[str, int]
Json = dict[str, Any]


class Difference(msgspec.Struct, frozen=True):
    """Where a reading and ours part; `why` is None when no rule explains it."""

    file: str
    extractor: str
    field: str
    theirs: str
    ours: str
    why: str | None


class Reading(msgspec.Struct, frozen=True):
    """What one extractor reads in one body, and what Headgate does; `reported` is the body's usage itself."""

    file: str
    model: str
    reported: Json
    extractor: Json
    theirs: Counts
    ours: Counts

    @property
    def name(self) -> str:
        """The extractor's name."""
        return f"{self.extractor['provider_id']} {self.extractor['api_flavor']}"

    @property
    def fields(self) -> list[str]:
        """What the two do not agree on."""
        return [name for name in (*_PLAIN, *_RARE) if self.theirs.get(name, 0) != self.ours.get(name, 0)]


class Outcome(msgspec.Struct):
    """What was compared, and how it came out."""

    bodies: int = 0
    unread: int = 0
    readings: int = 0
    readings_equal: int = 0
    bodies_equal_in_one: int = 0
    prices: int = 0
    prices_equal: int = 0
    differences: list[Difference] = []

    @property
    def unexplained(self) -> list[Difference]:
        """Differences that nothing explains."""
        return [one for one in self.differences if one.why is None]


def counts_of(usage: Usage) -> Counts:
    """Our usage in the reference's words; zeros are left out."""
    rare = usage.rare or Rare()
    found = {theirs: getattr(usage, ours) for theirs, ours in _PLAIN.items()}
    found |= {theirs: getattr(rare, ours) for theirs, ours in _RARE.items()}
    return {name: count for name, count in found.items() if count}


def usage_of(counts: Counts) -> Usage:
    """The reference's reading as our usage."""
    plain: Json = {ours: counts.get(theirs, 0) for theirs, ours in _PLAIN.items()}
    rare = Rare(**{ours: counts.get(theirs, 0) for theirs, ours in _RARE.items()})
    return Usage(**plain, rare=None if rare == Rare() else rare)


def rows(path: Path) -> Iterator[Json]:
    """The lines of the set."""
    with gzip.open(path) as lines:
        for line in lines:
            yield msgspec.json.decode(line)


def compared(source: Iterator[Json], table: PriceTable) -> Outcome:
    """All bodies, against all readings of them."""
    outcome = Outcome()
    for row in source:
        outcome.bodies += 1
        body = row["body"]
        reported = body.get("usage") or body.get("usageMetadata") or body.get("meta")
        usage = normalised(reported)
        if usage is None:
            outcome.unread += 1
            outcome.differences.append(Difference(body["file"], "all", "usage", "read", "none", None))
            continue
        found_equal = False
        for group in row["extracted"]:
            for extractor in group["extractors"]:
                reading = Reading(
                    body["file"], row.get("model", ""), reported, extractor, group["usage"], counts_of(usage)
                )
                parted = list(_parted(reading))
                outcome.readings += 1
                outcome.readings_equal += not parted
                outcome.differences += parted
                found_equal = found_equal or not parted
                if "input_price" in extractor:
                    _compare_price(outcome, reading, table)
        outcome.bodies_equal_in_one += found_equal
    return outcome


def _parted(reading: Reading) -> Iterator[Difference]:
    for field in reading.fields:
        their, our = reading.theirs.get(field, 0), reading.ours.get(field, 0)
        yield Difference(reading.file, reading.name, field, str(their), str(our), _why(reading, field, their, our))


def _why(reading: Reading, field: str, their: int, our: int) -> str | None:
    """The rule that explains a difference, if there is one."""
    reported, ours = reading.reported, reading.ours
    provider, flavor = reading.extractor["provider_id"], reading.extractor["api_flavor"]
    beside = ours.get("cache_read_tokens", 0) + ours.get("cache_write_tokens", 0)
    total, prompt = reported.get("total_tokens", 0), reported.get("prompt_tokens", 0)
    completion = reported.get("completion_tokens", 0)
    if flavor == "embeddings" and field != "input_tokens":
        return "an extractor for embeddings reads the prompt alone"
    if provider == "cohere" and flavor == "tokens":
        return "it reads what the model saw; Headgate counts what Cohere bills"
    if len(reported.get("iterations") or ()) > 1 and field in ("input_tokens", "output_tokens"):
        return "the totals leave out rounds that are listed as iterations, and billed"
    if field == "output_tokens" and provider == "x-ai" and their == completion + ours.get("output_reasoning_tokens", 0):
        return "it adds the reasoning, as for xAI; this body's total has it inside the completion"
    if field == "output_tokens" and our == total - prompt > completion:
        return "the total holds more than prompt and completion: reasoning, billed as output"
    if field == "input_tokens" and flavor == "responses" and our - their == beside:
        return "it takes Anthropic's input for the whole prompt; what the cache read and wrote is beside that"
    if not their and our in set(_numbers(reported)):
        return "it does not read this part, which the body states"
    return None


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _numbers(inner)
    elif type(value) is int:
        yield value


def _compare_price(outcome: Outcome, reading: Reading, table: PriceTable) -> None:
    """Our table's charge for the reference's own tokens, against the reference's price."""
    extractor = reading.extractor
    outcome.prices += 1
    parts = [Decimal(extractor.get(name, "0")) for name in ("input_price", "output_price")]
    expected = Decimal(extractor["total_price"]) if "total_price" in extractor else sum(parts, Decimal(0))
    price = table.find(extractor["provider_id"], reading.model)
    if price is None:
        why = None if expected else "it is listed without prices: free to the reference, unpriced and so refused here"
        outcome.differences.append(Difference(reading.file, reading.name, "price", f"{expected:f}", "none", why))
        return
    charged = Decimal(price.charge(usage_of(reading.theirs), PRICED_AT)) / NANO_PER_USD
    if abs(charged - expected) <= HALF_A_NANO:
        outcome.prices_equal += 1
    else:
        outcome.differences.append(
            Difference(reading.file, reading.name, "price", f"{expected:f}", f"{charged:f}", None)
        )


def report(outcome: Outcome) -> str:
    """The table for a terminal: agreement, then every reason with how often it was needed, then what has none."""
    lines = [
        f"bodies              {outcome.bodies:>7,}, of which Headgate reads {outcome.bodies - outcome.unread:,}",
        f"  in full agreement {outcome.bodies_equal_in_one:>7,} with at least one extractor",
        f"readings            {outcome.readings:>7,}, equal {outcome.readings_equal:,}",
        f"prices              {outcome.prices:>7,}, equal {outcome.prices_equal:,}",
        "",
        "differences, by reason",
    ]
    reasons = Counter(one.why or "unexplained" for one in outcome.differences)
    lines += [f"  {count:>6,}  {reason}" for reason, count in reasons.most_common()]
    lines += [
        f"  UNEXPLAINED  {one.file}: {one.extractor}: {one.field}: {one.theirs}, here {one.ours}"
        for one in outcome.unexplained
    ]
    return "\n".join(lines)


def document(outcome: Outcome) -> bytes:
    """The same for programs, with every single difference."""
    written = {**msgspec.structs.asdict(outcome), "unexplained": len(outcome.unexplained)}
    return msgspec.json.format(msgspec.json.encode(written), indent=2) + b"\n"


def main() -> int:
    """Compare, print, and say by the exit code whether anything is unexplained."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("folder", nargs="?", type=Path, default=Path("../shared/data"))
    arguments.add_argument("--out", type=Path, help="also write every difference to this file, as JSON")
    asked = arguments.parse_args()
    outcome = compared(rows(asked.folder / "prices/usages.jsonl.gz"), PriceTable.load(now=lambda: PRICED_AT))
    if asked.out:
        asked.out.write_bytes(document(outcome))
    figures = {name: value for name, value in msgspec.structs.asdict(outcome).items() if name != "differences"}
    summary = msgspec.json.encode({**figures, "unexplained": len(outcome.unexplained)}).decode()
    sys.stdout.write(f"{report(outcome)}\n\n{summary}\n")
    return 1 if outcome.unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
