"""`headgate statement`: what one tenant owes for a month, as CSV or as a page to print."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headgate.cli.books import with_books
from headgate.cli.options import config_option, data_option, json_option
from headgate.cli.usage import tenant_id

if TYPE_CHECKING:
    from headgate.assembly import Books


@click.command()
@click.argument("tenant")
@click.option("--month", required=True, metavar="YYYY-MM", help="Which month, in the tenant's time zone.")
@click.option("--format", "shape", type=click.Choice(["csv", "html"]), default="csv", show_default=True)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="A file to write. Default: standard output."
)
@config_option
@data_option
@json_option
def statement(
    *, tenant: str, month: str, shape: str, out: Path | None, config_path: Path | None, data: Path, as_json: bool
) -> None:
    """Write what TENANT (its id or name) owes for a month: by day, model and source, with the total.

    \b
    Examples:
      headgate statement acme --month 2026-11
      headgate statement acme --month 2026-11 --format html --out acme-2026-11.html
    """

    async def work(books: Books) -> bytes:
        from headgate.server.statements import statement_page  # late: `--help` needs no server

        id = await tenant_id(books, tenant)
        format = "json" if as_json else shape
        page = await statement_page(books.statements, books.tenants, id, month, format, now=time.time())
        return page.body

    body = with_books(config_path, data, work)
    if out is None:
        click.echo(body, nl=False)
    else:
        out.write_bytes(body)
