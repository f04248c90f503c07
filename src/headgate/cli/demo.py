"""`headgate demo`: watch it work on a bundled trace."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

import click

from headgate.cli.bars import Bars
from headgate.demo import setting
from headgate.demo.children import ChildError
from headgate.demo.demo import Demo, as_json
from headgate.demo.report import lines


@click.command()
@click.option("--json", "json_", is_flag=True, help="Print the report as JSON.")
@click.option(
    "--keep", type=click.Path(path_type=Path, file_okay=False), help="A folder for data and logs, kept afterwards."
)
def demo(json_: bool, keep: Path | None) -> None:
    """Replay 2,400 requests of a support product's four tenants and report what Headgate made of them.

    Starts two simulated providers and a gateway on free ports of this machine. The traffic holds popular questions in many
    wordings, look-alikes that must not match, bursts, a provider outage in the middle, and a tenant whose budget runs out.
    Takes about 40 seconds.

    \b
    Examples:
      headgate demo
      headgate demo --json | jq .spend
      headgate demo --keep ./demo    then look at ./demo/data/calls.jsonl
    """
    folder = keep or Path(tempfile.mkdtemp(prefix="headgate-demo-"))
    try:
        report = asyncio.run(Demo(folder, Bars(show=not json_)).run())
    except ChildError as error:
        raise click.ClickException(str(error)) from None
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    if json_:
        click.echo(as_json(report).decode())
    else:
        click.echo("\n".join(lines(report, cap=setting.BUDGET_USD)))
