"""`headgate organisations`: what tenants belong to, and what lies in what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from headgate.cli.books import with_books
from headgate.cli.options import config_option, data_option, json_option
from headgate.cli.output import moment, print_json, print_table
from headgate.model.chat import Json

if TYPE_CHECKING:
    from headgate.assembly import Books

_COLUMNS = {"name": "organisation", "parent": "in", "created": "created"}


@click.group()
def organisations() -> None:
    """Group tenants, to give the group budgets that all in it share. Organisations may lie in one another.

    \b
    Examples:
      headgate organisations set north
      headgate organisations set oslo --parent north
      headgate tenants update acme --organisation oslo
      headgate budgets set organisation:north --month 1000
    """


@organisations.command("list")
@config_option
@data_option
@json_option
def list_(config_path: Path | None, data: Path, as_json: bool) -> None:
    """List all organisations."""

    async def work(books: Books) -> list[Json]:
        from headgate.server.tenants import organisation_row  # late: `--help` needs no server

        return [organisation_row(one) for one in await books.tenants.organisations.all()]

    _show(with_books(config_path, data, work), as_json=as_json)


@organisations.command("set")
@click.argument("name")
@click.option("--parent", metavar="NAME", help="The organisation that it lies in. Default: none.")
@config_option
@data_option
@json_option
def set_(name: str, parent: str | None, config_path: Path | None, data: Path, as_json: bool) -> None:
    """Make the organisation NAME, or move it to another parent, or out of its own."""

    async def work(books: Books) -> list[Json]:
        from headgate.server.tenants import organisation_row  # late: `--help` needs no server

        return [organisation_row(await books.tenants.organisations.put(name, parent))]

    _show(with_books(config_path, data, work), as_json=as_json)


@organisations.command()
@click.argument("name")
@config_option
@data_option
@json_option
def delete(name: str, config_path: Path | None, data: Path, as_json: bool) -> None:
    """Delete the organisation NAME, in which nothing lies and which has no budgets."""

    async def work(books: Books) -> None:
        from headgate.server.budgets import budgets_of  # late: `--help` needs no server

        await budgets_of(books).drop_organisation(name)

    with_books(config_path, data, work)
    if as_json:
        print_json({"name": name, "deleted": True})
    else:
        click.echo(f"deleted {name}")


def _show(found: list[Json], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        print_table([{**each, "created": moment(each["created"])} for each in found], _COLUMNS)
