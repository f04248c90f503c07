"""`headgate migrate`: prepare the database that several processes share."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headgate.cli.options import config_option, json_option
from headgate.cli.output import print_json
from headgate.config_file import find_config

if TYPE_CHECKING:
    from headgate.storage.postgres import Step


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit code 1 when steps are missing.")
@config_option
@json_option
def migrate(check: bool, config_path: Path | None, as_json: bool) -> None:
    """Prepare the database of `storage.url` for this version. With SQLite there is nothing to do: each file is brought up to date when it
    is opened.

    Run it once before the first start, and before each start of a newer version. Steps only add, so processes of the older version go
    on working while it runs and after it. All steps are taken or none, and two who run it at the same time take turns.

    \b
    Examples:
      headgate migrate --config production.yaml
      headgate migrate --check --config production.yaml
    """
    url = find_config(config_path, os.environ).storage.postgres
    if url is None:
        return tell({}, as_json, otherwise="SQLite: nothing to do, each file is brought up to date when it is opened")
    from headgate.fittings_stores import schemas  # late: `--help` and SQLite need no PostgreSQL

    taken = asyncio.run(migrated(url, schemas(), check=check))
    tell(taken, as_json, otherwise="nothing to do: the database is prepared for this version")


def tell(taken: Mapping[str, int], as_json: bool, *, otherwise: str) -> None:
    """Print how many steps of each room were taken, or, where none was, something else."""
    if as_json:
        return print_json({"taken": dict(taken)})
    for room, steps in taken.items():
        click.echo(f"{room}: {steps} step{'s' if steps > 1 else ''} taken")
    if not taken:
        click.echo(otherwise)


async def migrated(url: str, rooms: Mapping[str, Sequence[Step]], *, check: bool = False) -> dict[str, int]:
    """Take all steps of these rooms that are missing; how many of each. With `check` none is taken: raises Conflict when any is missing.
    Raises Conflict also when the server does not answer."""
    from headgate.fittings_health import first_contact
    from headgate.storage.postgres import Postgres

    postgres = Postgres(url, pool=1)
    try:
        with first_contact("storage.url"):
            if check:
                await postgres.check(rooms)
                return {}
            return await postgres.migrate(rooms)
    finally:
        await postgres.close()
