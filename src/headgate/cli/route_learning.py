"""`headgate route train`, `eval` and `export`: learning from a log which questions need the better model, and what that is worth."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from headgate.assembly import routing_outcomes
from headgate.bench import Models, open_models
from headgate.cache.cache import Embedder
from headgate.cli.bars import Bars
from headgate.cli.measuring import NewFile, file_argument
from headgate.cli.options import config_option, data_option, json_option
from headgate.cli.output import print_json, print_pairs
from headgate.config import Config
from headgate.config_file import find_config
from headgate.evaluation.evaluation import Half
from headgate.evaluation.files import BadFile
from headgate.evaluation.plots import NoPlots, plot_orders, require_plots
from headgate.evaluation.routing_report import RoutingReport, report_lines, reported
from headgate.evaluation.routing_rows import Log, read_log
from headgate.evaluation.routing_trial import HoldOut, crossed, flips, given, vectors_of
from headgate.routing.uplift import Uplift, UpliftUnavailable
from headgate.routing.uplift_fit import FOLDS, TooFew, fitted

Found = TypeVar("Found")

cheap_option = click.option(
    "--cheap", metavar="NAME", help="Of lines with scores: the cheap model. Default: the worst."
)
rich_option = click.option("--rich", metavar="NAME", help="Of lines with scores: the rich model. Default: the best.")
half_option = click.option(
    "--half",
    type=click.Choice(["first", "second"]),
    help="Only this half of the lines, by their checksums: train on one, report on the other.",
)


@click.command()
@file_argument
@click.option("--out", type=NewFile(), required=True, metavar="FILE", help="Where the model is written.")
@cheap_option
@rich_option
@half_option
@config_option
@json_option
def train(
    file: Path,
    *,
    out: Path,
    cheap: str | None,
    rich: str | None,
    half: Half | None,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Fit a model of which questions gain by the better model. A route uses it as `uplift: FILE`.

    FILE has JSON lines, plain or gzip: {"prompt", "task", "cheap", "rich"} with what each model's answer was worth, 0 to 1;
    {"prompt", "task", "scores": {model: worth}}; or what `headgate route export` wrote. The questions are read by the configured
    embedder, on this machine. No text goes into the model, only weights and vectors.

    \b
    Example:
      headgate route train graded.jsonl.gz --out uplift.json
    """
    log, bars = _read(file, cheap, rich, half), Bars(show=not as_json)
    model = _done(_trained(log, _configured(config_path), bars))
    model.save(out)
    found = {
        "rows": model.file.rows,
        "cheap": f"{log.cheap} {model.file.cheap:.3f}",
        "rich": f"{log.rich} {model.file.rich:.3f}",
        "floor": round(model.file.floor, 3),
        "bytes": out.stat().st_size,
    }
    if as_json:
        print_json(found)
    else:
        print_pairs(found, {name: name for name in found})


@click.command("eval")
@file_argument
@click.option(
    "--model", "model_path", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Measure this model."
)
@click.option(
    "--hold-out",
    type=click.Choice(["task", "row"]),
    help="Without --model: fit on the rest of the file and measure on what is left out, in turn; whole tasks, or single rows."
    " Default: task where there are four or more.",
)
@cheap_option
@rich_option
@half_option
@click.option(
    "--plot", type=NewFile(), metavar="FILE.png", help="Also draw the cost-quality curves; needs headgate[plot]."
)
@config_option
@json_option
def evaluate(
    file: Path,
    *,
    model_path: Path | None,
    hold_out: HoldOut | None,
    cheap: str | None,
    rich: str | None,
    half: Half | None,
    plot: Path | None,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Measure how well questions are told apart that need the better model. FILE is as for `train`.

    `apgr` is the mean share of the rich model's gain over all shares of rich calls, 0.5 by chance; `cpt50` and `cpt80` the least
    share of rich calls that reaches half and four fifths of it. What the model abstains on goes to the rich model first.

    \b
    Examples:
      headgate route eval graded.jsonl.gz --model uplift.json
      headgate route eval graded.jsonl.gz --hold-out task --json
    """
    try:
        if plot is not None:
            require_plots()
    except NoPlots as error:
        raise click.ClickException(str(error)) from None
    log, bars = _read(file, cheap, rich, half), Bars(show=not as_json)
    report = _done(_measured(log, model_path, hold_out, _configured(config_path), bars))
    if plot is not None:
        plot_orders({name: one.curve for name, one in report.orders.items()}, plot, title=file.name)
    if as_json:
        print_json(msgspec.to_builtins(report))
    else:
        click.echo("\n".join(report_lines(report)))


@click.command()
@config_option
@data_option
def export(config_path: Path | None, data: Path) -> None:
    """Print what came of the calls of routes with tiers, oldest first, as JSON lines. No text is in it; vectors are base64.

    \b
    Example:
      headgate route export | gzip > outcomes.jsonl.gz
    """
    for outcome in asyncio.run(routing_outcomes(find_config(config_path, os.environ), data)):
        sys.stdout.buffer.write(msgspec.json.encode(outcome) + b"\n")


async def _measured(
    log: Log, model: Path | None, hold_out: HoldOut | None, config: Config, bars: Bars
) -> RoutingReport:
    async with open_models(config) as models:
        embeds = _opened(models)
        vectors = await vectors_of(log, embeds, bars)
        if model is None:
            trial = crossed(log, vectors, embeds.identity, hold_out, bars)
        else:
            trial = given(log, vectors, Uplift.load(model, embeds.identity))
        return reported(log, trial.order, await flips(log, trial, embeds, bars))


async def _trained(log: Log, config: Config, bars: Bars) -> Uplift:
    async with open_models(config) as models:
        embeds = _opened(models)
        vectors = await vectors_of(log, embeds, bars)
        return fitted(log.rows, vectors, embeds.identity, bars("fitting", FOLDS))


def _opened(models: Models) -> Embedder:
    if models.compares is None:
        raise click.ClickException("No embedder is configured, so questions cannot be read.")
    return models.compares


def _configured(path: Path | None) -> Config:
    """The configuration, with an embedder also where the cache needs none."""
    return find_config(path, os.environ, {"cache.semantic.mode": "on"})


def _read(file: Path, cheap: str | None, rich: str | None, half: Half | None) -> Log:
    try:
        return read_log(file, cheap=cheap, rich=rich, half=half)
    except BadFile as error:
        raise click.ClickException(str(error)) from None


def _done(work: Coroutine[None, None, Found]) -> Found:
    try:
        return asyncio.run(work)
    except (TooFew, UpliftUnavailable) as error:
        raise click.ClickException(str(error)) from None
