"""`headgate replay`: what a log of real traffic would have come to under other settings of the cache."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import click
import msgspec

from headgate.bench import Models, bench, open_models, prices_of
from headgate.cli.bars import Bars
from headgate.cli.measuring import NewFile, file_argument, measuring, seed_option
from headgate.cli.options import config_option, json_option
from headgate.cli.output import print_json, print_table
from headgate.config import Config
from headgate.config_file import find_config
from headgate.evaluation.evaluation import Course, Request
from headgate.evaluation.files import BadFile
from headgate.evaluation.logs import read_log
from headgate.evaluation.page import page
from headgate.evaluation.replay import COLUMNS, BadSetting, WhatIf, alone, combinations, notes, row, scope_of, what_if
from headgate.evaluation.report import StreamReport, stream_report
from headgate.evaluation.stream import Clock, Trial


@click.command()
@file_argument
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PATH=VALUE[,VALUE...]",
    help="A setting to try, with every value to try it with; several are combined. Default: as configured.",
)
@click.option("--html", type=NewFile(), metavar="FILE", help="Also write one HTML page with plots.")
@config_option
@seed_option
@json_option
def replay(
    file: Path,
    *,
    settings: tuple[str, ...],
    html: Path | None,
    config_path: Path | None,
    seed: str,
    as_json: bool,
) -> None:
    """Ask a log of real traffic again, of a cache with other settings, and tell what that comes to.

    FILE is JSON lines, plain or gzip, each with a time (`t`, `at` or `timestamp`), the question (`messages`, `text`, `prompt` or a
    whole `request`) and the `answer` (a label, a text or a response's body); `tenant`, `model`, `usage` and `cost` (USD) as far as they
    are known. No provider is asked: what the log says is what the model answers. Answers expire as configured.

    Where answers are texts, whether a hit was wrong is estimated from what they say. Costs are those of the log, else by the price of
    its model. A tier that only watches is replayed as if it served.

    \b
    Examples:
      headgate replay calls.jsonl --set cache.semantic.max_error_rate=0.005,0.01,0.02
      headgate replay calls.jsonl.gz --set cache.semantic.ttl=1h,24h --set cache.semantic.mode=on,off --html what-if.html
      headgate replay calls.jsonl --json | jq '.runs[] | {settings, saved: .savings.saved_usd}'
    """
    try:
        varied = combinations(settings)
    except BadSetting as error:
        raise click.BadParameter(str(error), param_hint="'--set'") from None
    configs = [_configured(config_path, one) for one in varied]
    try:
        log = read_log(file, prices_of(configs[0]))
    except BadFile as error:
        raise click.ClickException(str(error)) from None
    courses = asyncio.run(_through(configs, log.requests, seed, Bars(show=not as_json)))
    reports = [_reported(config, course) for config, course in zip(configs, courses, strict=True)]
    found = what_if(log, list(zip(varied, reports, courses, strict=True)))
    if html is not None:
        html.write_text(page(found, courses, name=file.name), encoding="utf-8")
    if as_json:
        print_json(msgspec.to_builtins(found))
    else:
        _print(found)


def _configured(path: Path | None, settings: Mapping[str, str]) -> Config:
    """The configuration with these settings. One whose tier only watches is taken to serve, unless that is what is varied."""
    config = find_config(path, os.environ, settings)
    if config.cache.semantic.mode == "shadow" and "cache.semantic.mode" not in settings:
        return find_config(path, os.environ, {**settings, "cache.semantic.mode": "on"})
    return config


async def _through(configs: Sequence[Config], requests: Sequence[Request], seed: str, progress: Bars) -> list[Course]:
    """The requests through a cache of each configuration.

    All caches go side by side: a question is read by the model once, and every one of them has its vector.
    """
    clock, done = Clock(), progress("replaying", len(requests))
    async with AsyncExitStack() as stack:
        benches = [bench(config, models, now=clock, seed=seed) for config, models in await _models(stack, configs)]
        trials = [Trial(one, clock) for one in benches]
        await stack.enter_async_context(measuring([one.cache for one in benches]))
        for request in requests:
            for trial in trials:
                await trial.ask(request)
            done()
        return [trial.end() for trial in trials]


async def _models(stack: AsyncExitStack, configs: Sequence[Config]) -> list[tuple[Config, Models]]:
    """Each configuration with its models; those that name the same ones share them."""
    opened: dict[str, Models] = {}
    found = []
    for config in configs:
        named = config.cache.semantic.model_dump_json(include={"embedder", "first_stage"})
        if config.cache.semantic.mode == "off":
            named = "off"
        if named not in opened:
            opened[named] = await stack.enter_async_context(open_models(config))
        found.append((config, opened[named]))
    return found


def _reported(config: Config, course: Course) -> StreamReport:
    return stream_report(course, max_error_rate=config.cache.semantic.max_error_rate, learning=True, timed=False)


def _print(found: WhatIf) -> None:
    click.echo(scope_of(found))
    for note in notes(found):
        click.echo(note)
    click.echo()
    print_table([row(run) for run in found.runs] + [alone(found)], COLUMNS)
