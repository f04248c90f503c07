"""`headgate usage`: what was used and what it cost, from the journal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from headgate.cli.books import tenant_names, with_books
from headgate.cli.options import Moment, config_option, data_option, json_option
from headgate.cli.output import print_json, print_table
from headgate.model.chat import Json
from headgate.model.errors import NotFound

if TYPE_CHECKING:
    from headgate.assembly import Books

_FIGURES = {
    "requests": "requests",
    "prompt_tokens": "prompt",
    "completion_tokens": "completion",
    "cached_tokens": "cached",
    "cost_usd": "cost USD",
    "billed_usd": "billed USD",
    "saved_usd": "saved USD",
}


@click.command()
@click.option("--tenant", help="Only this tenant (its id or name).")
@click.option("--from", "since", type=Moment(), help="From this date or time on (UTC).")
@click.option("--to", "until", type=Moment(), help="Up to, not including, this date or time.")
@click.option(
    "--group-by",
    default="tenant",
    show_default=True,
    metavar="NAMES",
    help="One line for each: tenant, key, user, feature, route, model, deployment, source, day; several with commas.",
)
@config_option
@data_option
@json_option
def usage(
    *,
    tenant: str | None,
    since: float | None,
    until: float | None,
    group_by: str,
    config_path: Path | None,
    data: Path,
    as_json: bool,
) -> None:
    """Show requests, tokens, cost, what tenants owe and what was saved.

    Cost is what the providers are owed, billed what the tenants owe. Saved is what answers from the cache and of shared calls would
    have cost, and how much dearer the model asked for would have been than the one that was routed to; with --json `saved_by` tells
    these apart.

    \b
    Examples:
      headgate usage
      headgate usage --from 2026-11-01 --to 2026-12-01 --group-by tenant,model
      headgate usage --tenant acme --group-by day,source --json
    """
    query = {"group_by": group_by}
    if since is not None:
        query["from"] = repr(since)
    if until is not None:
        query["to"] = repr(until)

    async def report(books: Books) -> tuple[Json, dict[str, str]]:
        from headgate.server.usage import usage_report  # late: `--help` needs no server

        chosen = None if tenant is None else await tenant_id(books, tenant)
        return await usage_report(books.statements, chosen, query), await tenant_names(books.tenants)

    found, names = with_books(config_path, data, report)
    if as_json:
        print_json(found)
        return
    groups = {name.strip(): name.strip() for name in group_by.split(",") if name.strip()}
    rows = [{**row, "tenant": names.get(row.get("tenant", ""), row.get("tenant"))} for row in found["data"]]
    if len(rows) > 1 and groups:
        rows.append({next(iter(groups)): "total", **found["total"]})
    print_table(rows, {**groups, **_FIGURES}, empty="no usage yet")


async def tenant_id(books: Books, wanted: str) -> str:
    """The id of a tenant; one that has been deleted still has rows in the journal, under its id."""
    try:
        return (await books.tenants.called(wanted)).id
    except NotFound:
        if wanted.startswith("t_"):
            return wanted
        raise
