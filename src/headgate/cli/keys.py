"""`headgate keys`: the secrets that callers authenticate with. A key is printed once, when it is made."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from headgate.cli.books import tenant_names, with_books
from headgate.cli.options import Moment, Seconds, config_option, data_option, json_option
from headgate.cli.output import moment, print_json, print_table
from headgate.model.chat import Json
from headgate.model.tenancy import KeyRecord, KeyRole

if TYPE_CHECKING:
    from headgate.assembly import Books
    from headgate.tenants.tenants import IssuedKey

_COLUMNS = {"id": "id", "tenant": "tenant", "role": "role", "name": "name", "user": "user", "state": "state"}
_COLUMNS |= {"expires": "expires", "created": "created"}


@click.group()
def keys() -> None:
    """Create and revoke API keys. Changes reach a running server within two seconds.

    \b
    Examples:
      headgate keys create acme --name production
      headgate keys rotate key_... --grace 24h
      headgate keys revoke key_...
    """


@keys.command()
@click.argument("tenant")
@click.option("--name", help="What it is for.")
@click.option(
    "--role", type=click.Choice(["caller", "tenant_admin", "admin"]), default="caller", show_default=True,
    help="What it may do.",
)  # fmt: skip
@click.option("--user", help="Who is answerable for calls made with it.")
@click.option("--expires", type=Moment(), help="When it stops working: a date or time (UTC).")
@config_option
@data_option
@json_option
def create(
    *,
    tenant: str,
    name: str | None,
    role: str,
    user: str | None,
    expires: float | None,
    config_path: Path | None,
    data: Path,
    as_json: bool,
) -> None:
    """Make a key for TENANT (its id or name) and print it, for the only time.

    \b
    Examples:
      headgate keys create acme
      export HEADGATE_KEY=$(headgate keys create acme --name ci --expires 2027-01-01)
    """

    async def work(books: Books) -> IssuedKey:
        found = await books.tenants.called(tenant)
        return await books.tenants.create_key(
            found.id, name=name, role=cast("KeyRole", role), user=user, expires=expires
        )

    _issue(with_books(config_path, data, work), as_json=as_json)


@keys.command("list")
@click.option("--tenant", help="Only this tenant's (its id or name).")
@config_option
@data_option
@json_option
def list_(tenant: str | None, config_path: Path | None, data: Path, as_json: bool) -> None:
    """List keys, revoked ones too. The keys themselves are not stored and cannot be shown again."""

    async def work(books: Books) -> tuple[list[KeyRecord], dict[str, str]]:
        chosen = None if tenant is None else (await books.tenants.called(tenant)).id
        return await books.tenants.list_keys(chosen), await tenant_names(books.tenants)

    records, names = with_books(config_path, data, work)
    if as_json:
        print_json([_row(record) for record in records])
    else:
        print_table([_line(record, names) for record in records], _COLUMNS)


@keys.command()
@click.argument("key_id")
@config_option
@data_option
@json_option
def revoke(key_id: str, config_path: Path | None, data: Path, as_json: bool) -> None:
    """Revoke the key whose id is KEY_ID, for good.

    \b
    Example:
      headgate keys revoke key_Zx81...
    """

    async def work(books: Books) -> KeyRecord:
        return await books.tenants.revoke_key(key_id)

    record = with_books(config_path, data, work)
    if as_json:
        print_json(_row(record))
    else:
        click.echo(f"revoked {record.id} of tenant {record.tenant}")


@keys.command()
@click.argument("key_id")
@click.option("--grace", type=Seconds(), default="0s", show_default=True, help="How long the old one still works.")
@config_option
@data_option
@json_option
def rotate(key_id: str, grace: float, config_path: Path | None, data: Path, as_json: bool) -> None:
    """Make a new key in place of KEY_ID and print it, for the only time.

    \b
    Example:
      headgate keys rotate key_Zx81... --grace 24h
    """

    async def work(books: Books) -> IssuedKey:
        return await books.tenants.rotate_key(key_id, grace=grace)

    _issue(with_books(config_path, data, work), as_json=as_json)


def _issue(issued: IssuedKey, *, as_json: bool) -> None:
    """The key alone goes to standard output, so that a script can take it."""
    if as_json:
        print_json({**_row(issued.record), "key": issued.key})
    else:
        click.echo(f"{issued.record.id} of tenant {issued.record.tenant}; shown only now:", err=True)
        click.echo(issued.key)


def _row(record: KeyRecord) -> Json:
    """A key as the management API shows it."""
    names = ("id", "tenant", "name", "role", "user", "created", "expires", "revoked")
    return {name: getattr(record, name) for name in names}


def _line(record: KeyRecord, names: dict[str, str]) -> Json:
    """A key as a line of a table."""
    state = "active"
    if record.revoked is not None:
        state = "revoked"
    elif record.expires is not None and record.expires <= time.time():
        state = "expired"
    times = {"expires": moment(record.expires), "created": moment(record.created)}
    return {**_row(record), "tenant": names.get(record.tenant), "state": state, **times}
