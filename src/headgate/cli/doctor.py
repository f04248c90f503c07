"""`headgate doctor`: one line for each thing that must be well, and what to do where it is not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from headgate.cli import checks, checks_shared
from headgate.cli.checks import Check
from headgate.cli.options import config_option, data_option, json_option
from headgate.cli.output import print_json
from headgate.cli.reach import reach
from headgate.config import Config
from headgate.config_file import ConfigError, find_config
from headgate.config_storage import StorageConfig


@click.command()
@click.option("--online", is_flag=True, help="Also ask each provider for its list of models.")
@click.option(
    "--rebuild", is_flag=True, help="First make the ledger's indexes and running sums anew. Stop the server before."
)
@config_option
@data_option
@json_option
def doctor(online: bool, rebuild: bool, config_path: Path | None, data: Path, as_json: bool) -> None:
    """Check that everything needed is well: Python, data directory, databases, ledger, configuration, providers; PostgreSQL and Redis
    where they are configured.

    Of the ledger it proves that every row of the journal is there as it was written, that each call ended once at most and
    cost nothing that was not held before, and that the balances the server starts from are the sums of the journal.

    Changes nothing, and may be run while the server runs. With --rebuild the indexes and the running sums are made anew from
    the journal, which itself is never changed: a damaged row of it can only come from a backup. A ledger in PostgreSQL is proven
    as well, and has nothing to be made anew. Exit code 1 when something fails.

    \b
    Examples:
      headgate doctor
      headgate doctor --online --config production.yaml --data /var/lib/headgate
      headgate doctor --rebuild
    """
    found = list(_offline(config_path, data, rebuild=rebuild))
    if online:
        found += _online(config_path)
    if as_json:
        print_json(msgspec.to_builtins(found))
    else:
        for check in found:
            advice = f" -> {check.advice}" if check.advice else ""
            click.echo(f"{check.state:<4}  {check.name}: {check.found}{advice}")
    if any(check.state == "fail" for check in found):
        click.get_current_context().exit(1)


def _offline(config_path: Path | None, data: Path, *, rebuild: bool) -> Iterator[Check]:
    yield checks.python()
    config = _config(config_path)
    ledger = StorageConfig().path(data)
    if isinstance(config, Check):
        yield config
    else:
        ledger = config.storage.path(data)
        yield Check("configuration", "ok", f"{len(config.models)} models, {len(config.routes)} routes")
        yield from checks.models(config)
        yield checks.port(config.server.host, config.server.port)
    yield from checks.data_directory(data)
    in_files = isinstance(config, Check) or config.storage.postgres is None
    if rebuild:
        yield checks.rebuilt(ledger) if in_files else checks_shared.not_rebuilt()
    yield from checks.databases(data, ledger)
    if not isinstance(config, Check):
        yield from checks_shared.shared(config, data)
    yield checks.embedding_model()


def _online(config_path: Path | None) -> list[Check]:
    config = _config(config_path)
    if isinstance(config, Check):
        return []

    async def all_of_them() -> list[Check]:
        return list(await asyncio.gather(*(reach(name, one) for name, one in config.providers.items())))

    return asyncio.run(all_of_them())


def _config(path: Path | None) -> Config | Check:
    try:
        return find_config(path, os.environ)
    except ConfigError as error:
        return Check("configuration", "fail", str(error), "see `headgate config schema`")
