"""`headgate budgets`: what tenants may spend, have spent and have on hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headgate.cli.books import with_books
from headgate.cli.options import Cap, config_option, data_option, json_option
from headgate.cli.output import print_json, print_table
from headgate.model.chat import Json
from headgate.model.money import from_usd, to_usd
from headgate.model.tenancy import WINDOWS, Tenant

if TYPE_CHECKING:
    from headgate.assembly import Books

_COLUMNS = {"name": "tenant", "window": "window", "cap_usd": "cap USD", "spent_usd": "spent USD", "left": "left USD"}


@click.group()
def budgets() -> None:
    """Show and set what tenants may spend.

    Budgets are for calendar hours, days and months in UTC, and in total. A call that could exceed one is refused before
    it is made.

    \b
    Examples:
      headgate budgets show
      headgate budgets set acme --hour 1.00 --month 200 --total none
    """


@budgets.command()
@click.argument("tenant", required=False)
@config_option
@data_option
@json_option
def show(tenant: str | None, config_path: Path | None, data: Path, as_json: bool) -> None:
    """Show the budgets of TENANT (its id or name), or of all.

    Spent counts settled calls; what a running server holds for calls under way is on its /metrics.
    """

    async def work(books: Books) -> list[Json]:
        chosen = await books.tenants.list_tenants() if tenant is None else [await books.tenants.called(tenant)]
        return [await _standing(books, each) for each in chosen]

    _show(with_books(config_path, data, work), as_json=as_json)


@budgets.command("set")
@click.argument("tenant")
@click.option("--hour", type=Cap(), help="An hour's, in USD.")
@click.option("--day", type=Cap(), help="A day's, in USD.")
@click.option("--month", type=Cap(), help="A month's, in USD.")
@click.option("--total", type=Cap(), help="All there will ever be, in USD.")
@config_option
@data_option
@json_option
def set_(tenant: str, config_path: Path | None, data: Path, as_json: bool, **caps: Any) -> None:
    """Set budgets of TENANT (its id or name); `none` removes one. What is not said stays.

    \b
    Examples:
      headgate budgets set acme --hour 1.00
      headgate budgets set acme --day none --month 50
    """
    given = {window: None if cap == "none" else cap for window, cap in caps.items() if cap is not None}
    if not given:
        raise click.UsageError("Say at least one of --hour, --day, --month, --total.", click.get_current_context())

    async def work(books: Books) -> list[Json]:
        found = await books.tenants.called(tenant)
        return [await _standing(books, await books.tenants.set_caps(found.id, given))]

    _show(with_books(config_path, data, work), as_json=as_json)


async def _standing(books: Books, tenant: Tenant) -> Json:
    """A tenant's caps and balances as the management API shows them, in USD."""
    found = await books.balances(tenant.id)
    caps = {window: getattr(tenant.policy.caps, window) for window in WINDOWS}
    return {
        "tenant": tenant.id,
        "name": tenant.name,
        "windows": {
            window: {"cap_usd": None if cap is None else to_usd(cap), "spent_usd": to_usd(found[window].spent)}
            for window, cap in caps.items()
        },
    }


def _show(standings: list[Json], *, as_json: bool) -> None:
    if as_json:
        print_json(standings)
        return
    lines = [
        {"name": each["name"], "window": window, **amounts, "left": _left(amounts)}
        for each in standings
        for window, amounts in each["windows"].items()
    ]
    print_table(lines, _COLUMNS)


def _left(amounts: Json) -> str | None:
    if amounts["cap_usd"] is None:
        return None
    return to_usd(max(0, from_usd(amounts["cap_usd"]) - from_usd(amounts["spent_usd"])))
