"""`headgate tenants`: who may use the gateway, and on which terms."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headgate.cli.books import with_books
from headgate.cli.options import Cap, config_option, data_option, json_option
from headgate.cli.output import moment, print_json, print_pairs, print_table
from headgate.model.chat import Json
from headgate.model.money import to_usd
from headgate.model.tenancy import WINDOWS, Tenant

if TYPE_CHECKING:
    from headgate.assembly import Books

_COLUMNS = {
    "id": "id",
    "name": "name",
    "hour": "USD/hour",
    "day": "USD/day",
    "month": "USD/month",
    "total": "USD total",
}
_COLUMNS |= {"rpm": "rpm", "concurrency": "concurrency"}
_DETAILS = _COLUMNS | {
    "allowed_models": "allowed models",
    "prefer": "preferred models",
    "tier": "tier",
    "abandoned": "abandoned calls",
    "created": "created",
}


@click.group()
def tenants() -> None:
    """Create and change tenants: the customers of your product.

    Each has budgets, rate limits and a cache of its own. Changes reach a running server within two seconds.

    \b
    Examples:
      headgate tenants create acme --hour 5.00 --rpm 60
      headgate tenants update acme --month 500 --allow auto --allow gpt-4o-mini
      headgate tenants list --json
    """


def _terms(command: Callable[..., None]) -> Callable[..., None]:
    """The options that a tenant's terms are given with."""
    each = [
        *(
            click.option(f"--{window}", type=Cap(), help=f"Budget {_PERIODS[window]}, in USD; `none` for none.")
            for window in WINDOWS
        ),
        click.option("--rpm", type=click.IntRange(min=1), help="Requests a minute."),
        click.option("--concurrency", type=click.IntRange(min=1), help="Requests at the same time."),
        click.option("--allow", multiple=True, metavar="MODEL", help="A model or route it may use; `all` for all."),
        click.option(
            "--prefer",
            multiple=True,
            metavar="MODEL",
            help="A model that goes first where a route has it; `none` for none.",
        ),
        click.option(
            "--tier", type=click.Choice(["low", "medium", "high", "auto"]), help="Its tier; auto goes by the question."
        ),
        click.option(
            "--abandoned", type=click.Choice(["finish", "cancel"]), help="What becomes of a call nobody waits for."
        ),
    ]
    for option in reversed(each):
        command = option(command)
    return command


_PERIODS = {"hour": "of an hour", "day": "of a day", "month": "of a month", "total": "in total"}


@tenants.command()
@click.argument("name")
@_terms
@config_option
@data_option
@json_option
def create(name: str, config_path: Path | None, data: Path, as_json: bool, **terms: Any) -> None:
    """Make a tenant called NAME. What is not said comes from `tenant_defaults` of the configuration.

    \b
    Examples:
      headgate tenants create acme
      headgate tenants create globex --hour none --month 200.00 --allow auto
    """

    async def work(books: Books) -> Tenant:
        return await books.tenants.create(name, policy=_policy(terms))

    _show(with_books(config_path, data, work), as_json=as_json)


@tenants.command("list")
@config_option
@data_option
@json_option
def list_(config_path: Path | None, data: Path, as_json: bool) -> None:
    """List all tenants."""

    async def work(books: Books) -> list[Tenant]:
        return await books.tenants.list_tenants()

    found = with_books(config_path, data, work)
    if as_json:
        print_json([_row(one) for one in found])
    else:
        print_table([_line(one) for one in found], _COLUMNS)


@tenants.command()
@click.argument("tenant")
@config_option
@data_option
@json_option
def show(tenant: str, config_path: Path | None, data: Path, as_json: bool) -> None:
    """Show one TENANT, by id or name."""
    _show(_with_tenant(tenant, config_path, data, _unchanged), as_json=as_json)


@tenants.command()
@click.argument("tenant")
@click.option("--name", help="A new name.")
@_terms
@config_option
@data_option
@json_option
def update(tenant: str, name: str | None, config_path: Path | None, data: Path, as_json: bool, **terms: Any) -> None:
    """Change the terms of TENANT (its id or name). What is not said stays.

    \b
    Examples:
      headgate tenants update acme --hour 20 --day none
      headgate tenants update acme --allow all
    """
    policy = _policy(terms)
    if not policy and name is None:
        raise click.UsageError("Nothing to change: say at least one option.", click.get_current_context())

    async def work(books: Books, found: Tenant) -> Tenant:
        return await books.tenants.update(found.id, name=name, policy=policy)

    _show(_with_tenant(tenant, config_path, data, work), as_json=as_json)


@tenants.command()
@click.argument("tenant")
@click.option("--yes", is_flag=True, help="Really delete it.")
@config_option
@data_option
@json_option
def delete(tenant: str, yes: bool, config_path: Path | None, data: Path, as_json: bool) -> None:
    """Delete TENANT (its id or name) and its keys. The journal keeps what it used.

    \b
    Example:
      headgate tenants delete acme --yes
    """
    if not yes:
        raise click.UsageError(f"This deletes {tenant} and all its keys; add --yes.", click.get_current_context())

    async def work(books: Books, found: Tenant) -> Tenant:
        await books.tenants.delete(found.id)
        return found

    found = _with_tenant(tenant, config_path, data, work)
    if as_json:
        print_json({"id": found.id, "name": found.name, "deleted": True})
    else:
        click.echo(f"deleted {found.name} ({found.id})")


def _row(tenant: Tenant) -> Json:
    """A tenant as the management API shows it: money in USD, None where there is no cap."""
    policy = tenant.policy
    caps = {window: getattr(policy.caps, window) for window in WINDOWS}
    return {
        "id": tenant.id,
        "name": tenant.name,
        "created": tenant.created,
        "budget": {window: None if cap is None else to_usd(cap) for window, cap in caps.items()},
        "rpm": policy.rpm,
        "concurrency": policy.concurrency,
        "policy": {name: getattr(policy, name) for name in ("allowed_models", "prefer", "tier", "abandoned")},
    }


def _with_tenant(
    wanted: str, config_path: Path | None, data: Path, work: Callable[[Books, Tenant], Awaitable[Tenant]]
) -> Tenant:
    async def found(books: Books) -> Tenant:
        return await work(books, await books.tenants.called(wanted))

    return with_books(config_path, data, found)


async def _unchanged(_: Books, found: Tenant) -> Tenant:
    return found


def _show(tenant: Tenant, *, as_json: bool) -> None:
    if as_json:
        print_json(_row(tenant))
    else:
        print_pairs(_line(tenant), _DETAILS)


def _line(tenant: Tenant) -> Json:
    """A tenant as a line of a table."""
    row = _row(tenant)
    budget: Json = row["budget"]
    caps = {window: "none" if cap is None else cap for window, cap in budget.items()}
    words = {"tier": tenant.policy.tier or "auto", "created": moment(tenant.created)}
    if tenant.policy.allowed_models is None:
        words["allowed_models"] = "all"
    return {**row, **row["policy"], **caps, **words}


def _policy(terms: dict[str, Any]) -> Json:
    """The options that were given, as fields of a policy."""
    policy = {name: terms[name] for name in ("rpm", "concurrency", "tier", "abandoned") if terms[name] is not None}
    caps = {window: terms[window] for window in WINDOWS if terms[window] is not None}
    if caps:
        policy["caps"] = {window: None if cap == "none" else cap for window, cap in caps.items()}
    if terms["allow"]:
        policy["allowed_models"] = None if "all" in terms["allow"] else list(terms["allow"])
    if terms["prefer"]:
        policy["prefer"] = None if "none" in terms["prefer"] else list(terms["prefer"])
    if terms["tier"] == "auto":
        policy["tier"] = None
    return policy
