"""`headgate tenants`: who may use the gateway, and on which terms."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from headgate.cli.books import with_books
from headgate.cli.options import AUTHOR, amount_of, caps_of, caps_options, config_option, data_option, json_option
from headgate.cli.output import moment, print_json, print_pairs, print_table
from headgate.model.chat import Json

if TYPE_CHECKING:
    from headgate.assembly import Books
    from headgate.model.tenancy import Tenant
    from headgate.server.budgets import Budgets

Result = TypeVar("Result")

_COLUMNS = {
    "id": "id",
    "name": "name",
    "hour": "USD/hour",
    "day": "USD/day",
    "week": "USD/week",
    "month": "USD/month",
    "total": "USD total",
}
_COLUMNS |= {"rpm": "rpm", "concurrency": "concurrency", "organisation": "organisation"}
_DETAILS = _COLUMNS | {
    "allowed_models": "allowed models",
    "prefer": "preferred models",
    "tier": "tier",
    "abandoned": "abandoned calls",
    "coalesce": "shares in flight",
    "shares": "shared, paid by",
    "tpm": "tokens/minute",
    "zone": "time zone",
    "hit_percent": "% paid for a hit",
    "customer": "billed as",
    "residency": "data stays in",
    "cache_mode": "cache by meaning",
    "max_error_rate": "wrong at most",
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
    each: list[Callable[[Callable[..., None]], Callable[..., None]]] = [
        caps_options,
        click.option("--rpm", type=click.IntRange(min=1), help="Requests a minute."),
        click.option("--tpm", metavar="TOKENS", help="Tokens a minute; `none` takes it back."),
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
        click.option(
            "--coalesce",
            type=click.Choice(["off", "exact", "semantic"]),
            help="Which of its calls share one in flight: none, identical ones, or those that mean the same.",
        ),
        click.option(
            "--shares",
            type=click.Choice(["leader", "split", "each"]),
            help="Who pays for a shared call: who asked first, all in equal parts, or each all of it.",
        ),
        click.option("--organisation", metavar="NAME", help="Whose budgets it shares; `none` for none."),
        click.option("--zone", help="Time zone of its windows, such as Europe/Berlin; new ones begin with it."),
        click.option("--hit-percent", type=click.IntRange(0, 1_000), help="What it pays for a hit, in % of a call."),
        click.option("--customer", metavar="NAME", help="Its name at whoever bills it; `none` for its id."),
        click.option(
            "--residency",
            multiple=True,
            metavar="REGION",
            help="A region whose models may see its data; `none` goes by the configuration's default.",
        ),
        click.option(
            "--cache-mode",
            type=click.Choice(["on", "shadow", "off", "none"]),
            help="Whether answers are found by meaning, or only watched; `none` goes by the route.",
        ),
        click.option(
            "--max-error-rate",
            metavar="SHARE",
            help="Share of its answers from the cache that may be wrong; `none` goes by the route.",
        ),
    ]
    for option in reversed(each):
        command = option(command)
    return command


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
    asked = _asked(terms)

    async def work(books: Books, budgets: Budgets) -> Json:
        from headgate.server.tenants import create_tenant, tenant_row  # late: `--help` needs no server

        return tenant_row(await create_tenant(books.tenants, budgets, name, **asked), budgets)

    _show(_done(config_path, data, work), as_json=as_json)


@tenants.command("list")
@config_option
@data_option
@json_option
def list_(config_path: Path | None, data: Path, as_json: bool) -> None:
    """List all tenants."""

    async def work(books: Books, budgets: Budgets) -> list[Json]:
        from headgate.server.tenants import tenant_row  # late: `--help` needs no server

        return [tenant_row(one, budgets) for one in await books.tenants.list_tenants()]

    found = _done(config_path, data, work)
    if as_json:
        print_json(found)
    else:
        print_table([_line(one) for one in found], _COLUMNS)


@tenants.command()
@click.argument("tenant")
@config_option
@data_option
@json_option
def show(tenant: str, config_path: Path | None, data: Path, as_json: bool) -> None:
    """Show one TENANT, by id or name."""

    async def work(books: Books, budgets: Budgets) -> Json:
        from headgate.server.tenants import tenant_row  # late: `--help` needs no server

        return tenant_row(await books.tenants.called(tenant), budgets)

    _show(_done(config_path, data, work), as_json=as_json)


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
    asked = _asked(terms)
    if not asked["policy"] and not asked["limits"] and name is None:
        raise click.UsageError("Nothing to change: say at least one option.", click.get_current_context())

    async def work(books: Books, budgets: Budgets) -> Json:
        from headgate.server.tenants import tenant_row, update_tenant  # late: `--help` needs no server

        return tenant_row(await update_tenant(books.tenants, budgets, tenant, name=name, **asked), budgets)

    _show(_done(config_path, data, work), as_json=as_json)


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

    async def work(books: Books) -> Tenant:
        found = await books.tenants.called(tenant)
        await books.tenants.delete(found.id)
        return found

    found = with_books(config_path, data, work)
    if as_json:
        print_json({"id": found.id, "name": found.name, "deleted": True})
    else:
        click.echo(f"deleted {found.name} ({found.id})")


def _done(config_path: Path | None, data: Path, work: Callable[[Books, Budgets], Awaitable[Result]]) -> Result:
    """Open the stores and work on tenants and their budgets."""

    async def opened(books: Books) -> Result:
        from headgate.server.budgets import budgets_of  # late: `--help` needs no server

        return await work(books, budgets_of(books))

    return with_books(config_path, data, opened)


def _show(row: Json, *, as_json: bool) -> None:
    if as_json:
        print_json(row)
    else:
        print_pairs(_line(row), _DETAILS)


def _line(row: Json) -> Json:
    """A tenant as a line of a table."""
    policy = row["policy"]
    caps = {window: "none" if cap is None else cap for window, cap in row["budget"].items()}
    words = {"tier": policy["tier"] or "auto", "created": moment(row["created"])}
    cache = policy["cache"]
    words |= {"cache_mode": cache["mode"] or "as the route", "max_error_rate": cache["max_error_rate"]}
    for name, none in (("allowed_models", "all"), ("residency", "any region")):
        words[name] = none if policy[name] is None else policy[name]
    return {**row, **policy, **caps, **words}


def _asked(terms: dict[str, Any]) -> dict[str, Any]:
    """The options that were given: fields of a policy, and caps."""
    from headgate.server.budgets import Limit  # late: `--help` needs no server

    limits = {window: Limit(cap=cap) for window, cap in caps_of(terms).items()}
    return {"policy": _policy(terms), "limits": limits, "by": AUTHOR}


def _policy(terms: dict[str, Any]) -> Json:
    """The options that were given, as fields of a policy; None takes one back."""
    plain = ("rpm", "concurrency", "abandoned", "coalesce", "shares", "zone", "hit_percent")
    policy = {name: terms[name] for name in plain if terms[name] is not None}
    for name, none in (("tier", "auto"), ("organisation", "none"), ("customer", "none")):
        if terms[name] is not None:
            policy[name] = None if terms[name] == none else terms[name]
    if terms["tpm"] is not None:
        policy["tpm"] = None if terms["tpm"] == "none" else amount_of(terms["tpm"], "tokens", "--tpm")
    if terms["cache_mode"] is not None:
        policy.setdefault("cache", {})["mode"] = None if terms["cache_mode"] == "none" else terms["cache_mode"]
    if terms["max_error_rate"] is not None:
        policy.setdefault("cache", {})["max_error_rate"] = _share(terms["max_error_rate"])
    for option, field, none in (
        ("allow", "allowed_models", "all"),
        ("prefer", "prefer", "none"),
        ("residency", "residency", "none"),
    ):
        if terms[option]:
            policy[field] = None if none in terms[option] else list(terms[option])
    return policy


def _share(text: str) -> float | None:
    """A share of 1, None for `none`. Raises BadParameter."""
    if text == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is neither a number nor none", click.get_current_context(), param_hint="'--max-error-rate'"
        ) from None
