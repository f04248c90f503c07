"""`headgate budgets`: what accounts may spend, have spent and have on hold."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from headgate.budget.allowance import Rule, Unit
from headgate.cli.books import with_books
from headgate.cli.options import AUTHOR, amount_of, caps_of, caps_options, config_option, data_option, json_option
from headgate.cli.output import moment, print_json, print_table
from headgate.model.chat import Json
from headgate.model.tenancy import WINDOWS, Window

if TYPE_CHECKING:
    from headgate.assembly import Books
    from headgate.server.budgets import Budgets

_COLUMNS = {"name": "account", "window": "window", "unit": "unit", "cap": "cap", "extra": "topped up", "spent": "spent"}
_COLUMNS |= {"held": "held", "left": "left", "rule": "rule"}
_CHANGES = {"at": "at", "by": "by", "action": "action", "account": "account", "window": "window", "unit": "unit"}
_CHANGES |= {"amount": "amount", "cap": "cap", "rule": "rule"}

unit_option = click.option(
    "--unit", type=click.Choice(get_args(Unit)), default="usd", show_default=True, help="What is counted."
)


@click.group()
def budgets() -> None:
    """Show and change what may be spent, also while a server runs: it obeys within two seconds.

    An ACCOUNT is a tenant's id or name, or organisation:NAME, user:TENANT/NAME, key:TENANT/ID, feature:TENANT/TAG or
    model:TENANT/NAME. Budgets are for calendar hours, days, weeks and months in the tenant's time zone, and in total.

    \b
    Examples:
      headgate budgets show
      headgate budgets set acme --hour 1.00 --month 200 --total none
      headgate budgets set user:acme/alice --day 0.50 --rule grace --percent 10
      headgate budgets top-up acme month 50
      headgate budgets suspend acme
    """


@budgets.command()
@click.argument("account", required=False)
@click.option("--tenant", help="Only this tenant (its id or name) and the accounts beneath it.")
@config_option
@data_option
@json_option
def show(account: str | None, tenant: str | None, config_path: Path | None, data: Path, as_json: bool) -> None:
    """Show the budgets of ACCOUNT; without one, of every tenant and of every other account that has some.

    Held is what calls under way may still cost.
    """
    _show(_done(config_path, data, lambda known: known.standings(tenant=tenant, account=account)), as_json=as_json)


@budgets.command("set")
@click.argument("account")
@caps_options
@unit_option
@click.option(
    "--rule", type=click.Choice(get_args(Rule)), default="hard", show_default=True,
    help="What happens when a call could exceed the cap: it is refused; nothing but alerts; it is refused beyond --percent; it goes"
    " to a route's cheapest tier; it is billed at --percent.",
)  # fmt: skip
@click.option(
    "--percent", type=int, default=0, help="Of grace: how far the cap may be exceeded; of overage: what is billed."
)
@click.option("--alerts", metavar="PERCENTS", help="When somebody is told, such as 50,80,100; `none` for never.")
@config_option
@data_option
@json_option
def set_(
    *,
    account: str,
    unit: Unit,
    rule: Rule,
    percent: int,
    alerts: str | None,
    config_path: Path | None,
    data: Path,
    as_json: bool,
    **given: str | None,
) -> None:
    """Set budgets of ACCOUNT, in USD or in tokens; `none` removes a cap. Windows that are not said stay as they are.

    \b
    Examples:
      headgate budgets set acme --hour 1.00
      headgate budgets set acme --day none --month 50 --rule soft --alerts 80,100
      headgate budgets set feature:acme/search --day 1000000 --unit tokens
    """
    caps = caps_of(given, unit)
    if not caps:
        windows = ", ".join(f"--{window}" for window in WINDOWS)
        raise click.UsageError(f"Say at least one of {windows}.", click.get_current_context())
    told = _percents(alerts)

    async def work(known: Budgets) -> list[Json]:
        from headgate.server.budgets import Limit  # late: `--help` needs no server

        limits = {
            window: Limit(cap=cap, unit=unit, rule=rule, percent=percent, alerts=told) for window, cap in caps.items()
        }
        return [await known.set(account, limits, by=AUTHOR)]

    _show(_done(config_path, data, work), as_json=as_json)


@budgets.command("top-up")
@click.argument("account")
@click.argument("window", type=click.Choice(WINDOWS))
@click.argument("amount")
@unit_option
@config_option
@data_option
@json_option
def top_up(
    *, account: str, window: Window, amount: str, unit: Unit, config_path: Path | None, data: Path, as_json: bool
) -> None:
    """Add AMOUNT to what ACCOUNT may spend in its present WINDOW; to that of `total` for good.

    \b
    Example:
      headgate budgets top-up acme month 50.00
    """
    added = amount_of(amount, unit, "AMOUNT")
    _change(
        config_path, data, lambda known: known.top_up(account, window, added, unit=unit, by=AUTHOR), as_json=as_json
    )


@budgets.command()
@click.argument("account")
@config_option
@data_option
@json_option
def suspend(account: str, config_path: Path | None, data: Path, as_json: bool) -> None:
    """Refuse every call of ACCOUNT until it is resumed."""
    _change(config_path, data, lambda known: known.suspend(account, by=AUTHOR), as_json=as_json)


@budgets.command()
@click.argument("account")
@config_option
@data_option
@json_option
def resume(account: str, config_path: Path | None, data: Path, as_json: bool) -> None:
    """Let ACCOUNT spend again what its budgets allow."""
    _change(config_path, data, lambda known: known.resume(account, by=AUTHOR), as_json=as_json)


@budgets.command()
@click.argument("account", required=False)
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many.")
@config_option
@data_option
@json_option
def changes(account: str | None, limit: int, config_path: Path | None, data: Path, as_json: bool) -> None:
    """Show who changed which budget when, newest first; of ACCOUNT, or of all."""
    found = _done(config_path, data, lambda known: known.changes(account=account, limit=limit))
    if as_json:
        print_json(found)
    else:
        print_table([{**_plain(each), "at": moment(each["at"])} for each in found], _CHANGES)


def _change(
    config_path: Path | None, data: Path, change: Callable[[Budgets], Awaitable[Json]], *, as_json: bool
) -> None:
    """Change an account's budgets and show how they are then."""

    async def work(known: Budgets) -> list[Json]:
        return [await change(known)]

    _show(_done(config_path, data, work), as_json=as_json)


def _done(config_path: Path | None, data: Path, work: Callable[[Budgets], Awaitable[list[Json]]]) -> list[Json]:
    """Open the stores and work on their budgets."""

    async def opened(books: Books) -> list[Json]:
        from headgate.server.budgets import budgets_of  # late: `--help` needs no server

        return await work(budgets_of(books))

    return with_books(config_path, data, opened)


def _percents(text: str | None) -> tuple[int, ...] | None:
    """Read `50,80,100`; `none` is never."""
    if text is None:
        return None
    parts = [] if text.lower() == "none" else text.split(",")
    if not all(part.strip().isdecimal() and part.isascii() for part in parts):
        raise click.BadParameter(
            f"{text!r} is no list of percents such as 50,80,100.", click.get_current_context(), param_hint="'--alerts'"
        )
    return tuple(int(part) for part in parts)


def _show(standings: list[Json], *, as_json: bool) -> None:
    if as_json:
        print_json(standings)
        return
    lines = [
        {"name": each["name"], "window": window, "unit": unit, **_plain(row, unit)}
        for each in standings
        for unit, rows in (("usd", each["windows"]), ("tokens", each["tokens"]))
        for window, row in rows.items()
    ]
    print_table(lines, _COLUMNS)


def _plain(row: Json, unit: str | None = None) -> Json:
    """A row as a line of a table: amounts under names without their unit, the rule with its percent."""
    ending = f"_{unit or row['unit']}"
    rule = row["rule"] if not row["percent"] else f"{row['rule']} {row['percent']} %"
    return {
        **{name.removesuffix(ending): value for name, value in row.items()},
        "rule": "suspended" if row["suspended"] else rule,
    }
