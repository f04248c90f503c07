"""`headgate eval`: how sure the semantic cache is, measured on files with labels."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from headgate.bench import bench, open_models
from headgate.cli.bars import Bars
from headgate.cli.measuring import NewFile, file_argument, measuring, seed_option
from headgate.cli.options import config_option, json_option
from headgate.cli.output import print_json
from headgate.config import Config
from headgate.config_file import find_config
from headgate.evaluation.evaluation import Course, Half, Ruling
from headgate.evaluation.files import BadFile, read_pairs, read_stream
from headgate.evaluation.pairs import rulings
from headgate.evaluation.plots import NoPlots, plot_pairs, plot_stream, require_plots
from headgate.evaluation.report import (
    PairsReport,
    StreamReport,
    pairs_lines,
    pairs_report,
    stream_lines,
    stream_report,
)
from headgate.evaluation.stream import Clock, Trial

T = TypeVar("T")

LASTING = "3650d"
"""How long answers to a stream live: its labels know of no age."""


def _measuring_options(command: Callable[..., None]) -> Callable[..., None]:
    """What both kinds of evaluation take."""
    for option in (
        json_option,
        click.option("--plot", type=NewFile(), metavar="FILE.png", help="Also draw the curves; needs headgate[plot]."),
        click.option(
            "--half",
            type=click.Choice(["first", "second"]),
            help="Only this half of the file's lines: tune on one, report on the other.",
        ),
        click.option(
            "--max-error-rate",
            type=click.FloatRange(0, 0.5),
            help="Share of served answers that may be wrong. Default: cache.semantic.max_error_rate.",
        ),
        config_option,
        file_argument,
    ):
        command = option(command)
    return command


@click.group("eval")
def evaluate() -> None:
    """Measure on files with labels how sure the semantic cache is.

    The files are JSON lines, plain or gzip. The questions go through the real cache, with the embedder and the error rate that
    are configured; nothing leaves this machine and nothing is kept. All shares are between 0 and 1, all intervals of 95 %.

    \b
    Examples:
      headgate eval pairs questions.jsonl.gz
      headgate eval stream requests.jsonl --max-error-rate 0.005
    """


@evaluate.command()
@_measuring_options
def pairs(
    file: Path,
    *,
    config_path: Path | None,
    max_error_rate: float | None,
    half: Half | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Ask of pairs of questions whether one answer would be served for both.

    FILE has lines {"a": "...", "b": "...", "same": true, "kind": "..."}; `kind` may be left out. Of each pair `a` is stored in a
    cache of its own, and `b` is asked.

    `auc` is the area under the ROC curve of the confidence; `served_same` and `served_different` are the shares of the same and of
    the different pairs that would be served; `calibration_error` is the expected error of the confidence within ten bins, over the
    pairs that it decided: those that are far apart, or that a guard forbids, have a confidence of 0 and are left out.

    \b
    Examples:
      headgate eval pairs questions.jsonl.gz
      headgate eval pairs questions.jsonl --max-error-rate 0.005 --json | jq .by_kind
      headgate eval pairs questions.jsonl --half second --plot curves.png
    """
    _require(plot)
    config = _configured(config_path, max_error_rate)
    found = _read(read_pairs, file, half)
    progress = Bars(show=not as_json)

    async def measure() -> list[Ruling]:
        async with open_models(config) as models:
            cache = bench(config, models, now=Clock(), learns=False).cache
            async with measuring([cache]):
                return await rulings(cache, found, progress("asking", len(found)))

    measured = asyncio.run(measure())
    report = pairs_report(measured, max_error_rate=config.cache.semantic.max_error_rate)
    if plot is not None:
        plot_pairs(measured, plot, title=f"{file.name}, at most {report.max_error_rate:g} wrong")
    _print(report, pairs_lines(report), as_json=as_json)


@evaluate.command()
@_measuring_options
@click.option("--no-learning", is_flag=True, help="Judge by what ships with Headgate alone: no labels, no checks.")
@seed_option
def stream(
    file: Path,
    *,
    config_path: Path | None,
    max_error_rate: float | None,
    half: Half | None,
    plot: Path | None,
    as_json: bool,
    no_learning: bool,
    seed: str,
) -> None:
    """Ask the requests of a stream one after the other.

    FILE has lines {"t": seconds, "tenant": "...", "text": "...", "answer": label}. Two requests deserve the same answer when tenant
    and label are equal. On a miss the label is what the model answers and what is stored. Time is that of the file, and no answer
    expires in it. Learning is on: labels come from misses that had a candidate, and from checks within the configured share, each
    of which counts as a call of the model (`shadow_calls`).

    `perfect`, `exact` and `hits` are shares of the requests: what a perfect cache, what exact match alone would have served, and what
    was served. `wrong_of_hits` is the share of wrong answers among everything that was served, `semantic_recall` is
    (right hits - exact) / (perfect - exact), `bytes_per_entry` the memory of an entry beside its text and answer.

    \b
    Examples:
      headgate eval stream requests.jsonl.gz
      headgate eval stream requests.jsonl --max-error-rate 0.005 --half second --json
      headgate eval stream requests.jsonl --no-learning --plot curves.png
    """
    _require(plot)
    found = _read(read_stream, file, half)
    config = _configured(config_path, max_error_rate, {"cache.exact.ttl": LASTING, "cache.semantic.ttl": LASTING})
    progress, clock = Bars(show=not as_json), Clock()

    async def measure() -> Course:
        async with open_models(config) as models:
            subject = bench(config, models, now=clock, seed=seed, learns=not no_learning)
            trial, done = Trial(subject, clock), progress("asking", len(found))
            async with measuring([subject.cache]):
                for request in found:
                    await trial.ask(request)
                    done()
                return trial.end()

    measured = asyncio.run(measure())
    report = stream_report(measured, max_error_rate=config.cache.semantic.max_error_rate, learning=not no_learning)
    if plot is not None:
        plot_stream(measured.outcomes, plot, title=f"{file.name}, at most {report.max_error_rate:g} wrong")
    _print(report, stream_lines(report), as_json=as_json)


def _configured(path: Path | None, max_error_rate: float | None, more: Mapping[str, str] | None = None) -> Config:
    """The configuration, with a semantic tier that serves: also where it only watches, what it would serve is asked."""
    settings = {"cache.semantic.mode": "on", **(more or {})}
    if max_error_rate is not None:
        settings["cache.semantic.max_error_rate"] = str(max_error_rate)
    return find_config(path, os.environ, settings)


def _read(reader: Callable[[Path, Half | None], list[T]], file: Path, half: Half | None) -> list[T]:
    try:
        return reader(file, half)
    except BadFile as error:
        raise click.ClickException(str(error)) from None


def _require(plot: Path | None) -> None:
    if plot is not None:
        try:
            require_plots()
        except NoPlots as error:
            raise click.ClickException(str(error)) from None


def _print(report: PairsReport | StreamReport, lines: Iterable[str], *, as_json: bool) -> None:
    if as_json:
        print_json(msgspec.to_builtins(report))
    else:
        click.echo("\n".join(lines))
