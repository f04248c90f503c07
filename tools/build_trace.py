"""Builds the traffic that `headgate demo` replays: `python tools/build_trace.py [--out FILE]`.

Invariant: the same sources and the same seed give the same bytes. How often a question is asked follows
Zipf's law; new wordings keep appearing, so a cache that knows what it has seen never knows everything.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from trace_sources import Burst, Question, Tenant, read_bursts, read_tenants
from trace_wordings import Draw, greet, reword, same_words

SEED = 20260214
REQUESTS = 2400
SECONDS = 20.0
FAMILY_SHARE = 0.40
SEEN_WORDING = 0.45
SHIPPED = Path(__file__).parent.parent / "src" / "headgate" / "demo" / "trace.jsonl.gz"


class Crowd:
    """The users of one tenant: what they have asked so far and what they ask next."""

    def __init__(self, tenant: Tenant, draw: Draw, bursts: list[Burst]) -> None:
        self._tenant = tenant
        self._draw = draw
        self._asked: defaultdict[str, list[str]] = defaultdict(list)
        self._owner: dict[str, str] = {}
        self._quiet = {burst.intent for burst in bursts if burst.intent.startswith("incident-")}

    def burst(self, burst: Burst) -> list[dict[str, Any]]:
        """Two thirds type the same words, the rest their own; all at one instant."""
        question = self._tenant.intent(burst.intent)
        self._quiet.discard(burst.intent)
        alike = question.wordings[0]
        others = question.wordings[1:]
        rows = []
        for number in range(burst.size):
            text = alike if number == 0 or self._draw.chance(0.66) else self._draw.one(others)
            if text != alike and self._draw.chance(0.3):
                text = self._new_wording(question) or text
            self._remember(question, text)
            rows.append(self._row(burst.at, question, text, "burst", streams=0.3))
        return rows

    def ask(self, at: float) -> dict[str, Any]:
        """One request of an ordinary moment, `at` seconds after the start."""
        if self._draw.chance(self._tenant.hard_share):
            return self._ask_hard(at)
        question = self._pick()
        seen = self._asked[question.label]
        text = None if seen and self._draw.chance(SEEN_WORDING) else self._new_wording(question, plain=not seen)
        if text is None:
            return self._row(at, question, self._draw.ranked(seen, 0.7), "exact_repeat", streams=0.12)
        kind = self._kind(question)
        self._remember(question, text)
        return self._row(at, question, text, kind, streams=0.12)

    def _pick(self) -> Question:
        if self._draw.chance(FAMILY_SHARE):
            family = self._draw.one(self._tenant.families)
            return self._draw.ranked(self._draw.ranked(family, 1.4), 0.2)
        open_intents = [q for q in self._tenant.intents if q.label.split(":")[1] not in self._quiet]
        return self._draw.ranked(open_intents, 0.9)

    def _ask_hard(self, at: float) -> dict[str, Any]:
        question = self._draw.one(self._draw.ranked(self._tenant.hard, 0.3))
        text = question.wordings[0]
        if self._asked[question.label] and self._draw.chance(0.5):
            text = greet(self._draw, text)
        self._remember(question, text)
        return self._row(at, question, text, "hard", streams=0.35)

    def _new_wording(self, question: Question, *, plain: bool = False) -> str | None:
        """Words that nobody of this tenant has used, or None when twenty attempts found none."""
        for attempt in range(20):
            base = self._draw.ranked(question.wordings, 0.6)
            text = base if plain and attempt < 5 else reword(self._draw, base)
            owner = self._owner.get(same_words(text), question.label)
            if owner == question.label and text not in self._asked[question.label]:
                return text
        return None

    def _kind(self, question: Question) -> str:
        """A look-alike is one only after somebody has asked for another side of the same question."""
        family = question.label.partition("/")[0] + "/"
        if question.lookalike and any(other.startswith(family) for other in self._answered - {question.label}):
            return question.lookalike
        return "reworded" if question.label in self._answered else "novel"

    @property
    def _answered(self) -> set[str]:
        return {label for label, texts in self._asked.items() if texts}

    def _remember(self, question: Question, text: str) -> None:
        owner = self._owner.setdefault(same_words(text), question.label)
        if owner != question.label:
            raise ValueError(f"{text!r} is asked for {owner} and for {question.label}")
        if text not in self._asked[question.label]:
            self._asked[question.label].append(text)

    def _row(self, at: float, question: Question, text: str, kind: str, *, streams: float) -> dict[str, Any]:
        name = question.label.split(":")[1].split("#")[0]
        row = {
            "t": round(at, 3),
            "tenant": self._tenant.name,
            "text": text,
            "system": self._tenant.system,
            "answer": question.label,
            "kind": kind,
            "stream": self._draw.chance(streams),
            "model": self._tenant.pinned.get(name, "auto"),
        }
        if self._tenant.max_tokens is not None and kind != "hard":
            row["max_tokens"] = self._tenant.max_tokens
        return row


def build(seed: int = SEED) -> list[dict[str, Any]]:
    """All requests in the order of time."""
    draw = Draw(seed)
    tenants, bursts = read_tenants(), read_bursts()
    crowds = {t.name: Crowd(t, draw, [b for b in bursts if b.tenant == t.name]) for t in tenants}
    ordinary = REQUESTS - sum(burst.size for burst in bursts)
    moments: list[tuple[float, Burst | None]] = [(draw.below(SECONDS), None) for _ in range(ordinary)]
    moments += [(burst.at, burst) for burst in bursts]
    moments.sort(key=lambda moment: moment[0])
    rows: list[dict[str, Any]] = []
    for at, burst in moments:
        if burst is None:
            rows.append(crowds[_tenant_of(draw, tenants)].ask(at))
        else:
            rows += crowds[burst.tenant].burst(burst)
    return sorted(rows, key=lambda row: row["t"])


def _tenant_of(draw: Draw, tenants: list[Tenant]) -> str:
    left = draw.below(sum(tenant.share for tenant in tenants))
    for tenant in tenants:
        left -= tenant.share
        if left < 0:
            return tenant.name
    return tenants[-1].name


def packed(rows: list[dict[str, Any]]) -> bytes:
    """The rows as gzipped JSON lines, without the time of day in the header."""
    lines = "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)
    return gzip.compress(lines.encode(), compresslevel=9, mtime=0)


def main() -> None:
    """Writes the trace to the package, or to the file that is named."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--out", type=Path, default=SHIPPED)
    out: Path = arguments.parse_args().out
    out.write_bytes(packed(build()))


if __name__ == "__main__":
    main()
