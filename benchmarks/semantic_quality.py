"""How often is the semantic cache right? Beside a cache that compares the cosine with a constant, on labelled questions.

    python -m benchmarks.semantic_quality FOLDER [--max-error-rate 0.005] [--json FILE]

FOLDER holds JSON lines, plain or gzip: `qqp_pairs`, `paws_qqp_pairs`, `swap_pairs`, `math_pairs`, `mrpc_pairs` of {a, b, same} and `qqp_stream`
of {t, tenant, text, answer}; where each comes from is said in README.md beside this file. Only the second half of each is read, for the
prior was fitted to the first; of the stream the whole is shown too, as one long run. The baseline has the same model, index and
candidates, and serves what is nearer than a cosine: 0.88, the highest recall that it can have at half a per cent wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from headgate.bench import Models, bench, open_models
from headgate.cache.cache import Candidate
from headgate.cache.labels import Scope
from headgate.cache.memory import MemoryStore
from headgate.cache.verdict import Judgement
from headgate.config import Config
from headgate.evaluation.evaluation import Pair, Request
from headgate.evaluation.files import read_pairs, read_stream
from headgate.evaluation.pairs import rulings
from headgate.evaluation.report import PairsReport, StreamReport, pairs_report, stream_report
from headgate.evaluation.stream import Clock, Trial
from headgate.fittings import cache

PAIRS = ("swap_pairs", "math_pairs", "paws_qqp_pairs", "mrpc_pairs", "qqp_pairs")
THRESHOLD = 0.88
LASTING = "3650d"


class Nearness:
    """A verdict that is a cosine and a constant: what the others do."""

    identity = f"cosine {THRESHOLD}"
    reads = "nothing"

    def fits(self, text: str) -> bool:
        """Any text."""
        return bool(text)

    async def judge(
        self, scope: Scope, question: str, candidates: Sequence[Candidate], error_rate: float, sparing: bool = False
    ) -> Sequence[Judgement]:
        """By similarity alone, whatever the error rate."""
        del scope, question, error_rate, sparing
        return [
            Judgement(serve=one.similarity >= THRESHOLD, confidence=max(0.0, one.similarity), reason="confidence")
            for one in candidates
        ]


class Figures(msgspec.Struct, frozen=True):
    """One verdict on everything: pairs by set, and the stream, `second` its half and `whole`."""

    pairs: dict[str, PairsReport]
    second: StreamReport
    whole: StreamReport


def configured(rate: float) -> Config:
    """As Headgate comes, but for the rate and for answers that outlive the stream."""
    ages = {"exact": {"ttl": LASTING}, "semantic": {"ttl": LASTING, "max_error_rate": rate}}
    return Config.model_validate({**Config.default({}).model_dump(exclude_unset=True), "cache": ages})


async def asked(models: Models, found: Sequence[Pair], config: Config, *, baseline: bool) -> PairsReport:
    """The pairs of one set."""
    subject = bench(config, models, now=Clock(), learns=False).cache
    if baseline:
        subject = cache(config, MemoryStore(now=Clock()), models.compares, Nearness(), now=Clock())
    measured = await rulings(subject, found, lambda: None)
    return pairs_report(measured, max_error_rate=config.cache.semantic.max_error_rate)


async def streamed(models: Models, found: Sequence[Request], config: Config, *, baseline: bool) -> StreamReport:
    """The stream from an empty cache on."""
    clock = Clock()
    subject = bench(config, models, now=clock, learns=not baseline)
    if baseline:
        plain = cache(config, MemoryStore(now=clock), models.compares, Nearness(), now=clock)
        subject = msgspec.structs.replace(subject, cache=plain)
    trial = Trial(subject, clock)
    for request in found:
        await trial.ask(request)
    return stream_report(
        trial.end(), max_error_rate=config.cache.semantic.max_error_rate, learning=subject.learning is not None
    )


async def measured(folder: Path, rate: float) -> dict[str, Figures]:
    """Both verdicts on everything."""
    config, found = configured(rate), {}
    (stream,) = folder.glob("qqp_stream.jsonl*")
    async with open_models(config) as models:
        for name, baseline in ((f"cosine {THRESHOLD}", True), (f"headgate at {rate:g}", False)):
            pairs = {}
            for kind in PAIRS:
                (file,) = folder.glob(f"{kind}.jsonl*")
                pairs[kind] = await asked(models, read_pairs(file, "second"), config, baseline=baseline)
                print(f"{name}: {kind}", file=sys.stderr)
            second = await streamed(models, read_stream(stream, "second"), config, baseline=baseline)
            whole = await streamed(models, read_stream(stream), config, baseline=baseline)
            found[name] = Figures(pairs, second, whole)
    return found


def lines(found: dict[str, Figures]) -> list[str]:
    """The report."""
    out = [f"{'':44}" + "".join(f"{name:>22}" for name in found)]
    for kind in PAIRS:
        for label, field in (("same served", "served_same"), ("different served", "served_different"), ("AUC", "auc")):
            values = [getattr(figures.pairs[kind], field) for figures in found.values()]
            out.append(f"{kind + ', ' + label:44}" + "".join(f"{_share(value):>22}" for value in values))
        errors = [figures.pairs[kind].calibration_error for figures in found.values()]
        out.append(f"{kind + ', calibration error':44}" + "".join(f"{_plain(error):>22}" for error in errors))
    for label in ("second", "whole"):
        reports = [getattr(figures, label) for figures in found.values()]
        for field in ("semantic_recall", "wrong_of_hits"):
            cells = [f"{_share(getattr(one, field))} {_between(getattr(one, field + '_interval'))}" for one in reports]
            out.append(f"{f'stream, {label}: {field}':44}" + "".join(f"{cell:>22}" for cell in cells))
        checks = [f"{one.shadow_calls / one.requests:.2%}" for one in reports]
        out.append(f"{f'stream, {label}: checks, of requests':44}" + "".join(f"{cell:>22}" for cell in checks))
    return out


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _between(bounds: tuple[float, float] | None) -> str:
    return "" if bounds is None else f"({bounds[0]:.1%}-{bounds[1]:.1%})"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The semantic cache beside a fixed threshold.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--max-error-rate", type=float, default=0.005)
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    arguments = parser.parse_args()
    found = asyncio.run(measured(arguments.folder, arguments.max_error_rate))
    print("\n".join(lines(found)))
    if arguments.json is not None:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
