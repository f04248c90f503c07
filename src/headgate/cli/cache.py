"""`headgate cache`: what is in stock, taking answers out of it, and why an answer is served for a question or not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headgate.cli.books import with_books
from headgate.cli.options import config_option, data_option, json_option
from headgate.cli.output import print_json, print_pairs, print_table
from headgate.cli.running import called, key_option, url_option
from headgate.config_file import find_config
from headgate.model.chat import Json

if TYPE_CHECKING:
    from headgate.assembly import Books
    from headgate.cache.cache import CacheStore

_COLUMNS = {
    "name": "tenant",
    "id": "id",
    "entries": "entries",
    "bytes": "bytes",
    "mode": "mode",
    "rate": "wrong at most",
}


@click.group()
def cache() -> None:
    """Show what the cache holds, take answers out, and explain what it thinks of two questions.

    The stock that processes share in Redis is looked at directly. Without Redis each process has its own: the server that runs on
    the data directory is asked, with the admin key, or the directory itself while none does.

    \b
    Examples:
      headgate cache stats
      headgate cache invalidate acme --tag prices
      headgate cache explain "Where is my parcel?" "Where's my package?"
    """


@cache.command()
@url_option
@key_option
@config_option
@data_option
@json_option
def stats(url: str | None, admin_key: str | None, config_path: Path | None, data: Path, as_json: bool) -> None:
    """Show how many answers are in stock for whom, and what they weigh."""

    async def work(books: Books, store: CacheStore) -> Json:
        from headgate.server.shown_entries import stock_report  # late: `--help` needs no server

        return stock_report(store, await books.tenants.list_tenants())

    def ask(server: str) -> Json:
        return called(server, admin_key, "GET", "/admin/cache")

    found = _done(config_path, data, url, work, ask)
    if as_json:
        print_json(found)
        return
    rows = [{**row, "mode": row["cache"]["mode"], "rate": row["cache"]["max_error_rate"]} for row in found["tenants"]]
    print_table(rows, _COLUMNS, empty="nothing in stock yet")
    click.echo(f"{found['entries']} entries, {found['bytes']} bytes")


@cache.command()
@click.argument("tenant")
@click.option("--tag", "tags", multiple=True, help="Entries with this tag; of several one is enough.")
@click.option("--user", help="Entries that this end user asked for.")
@click.option("--namespace", help="Entries of this namespace.")
@click.option("--model", help="Entries that this model or route was asked for.")
@click.option("--entry", help="One entry, by the id that `x-headgate-entry` tells.")
@click.option("--all", "everything", is_flag=True, help="All entries of the tenant.")
@url_option
@key_option
@config_option
@data_option
@json_option
def invalidate(
    *,
    tenant: str,
    tags: tuple[str, ...],
    user: str | None,
    namespace: str | None,
    model: str | None,
    entry: str | None,
    everything: bool,
    url: str | None,
    admin_key: str | None,
    config_path: Path | None,
    data: Path,
    as_json: bool,
) -> None:
    """Take answers of TENANT (its id or name) out of stock: those that fit everything that is said.

    \b
    Examples:
      headgate cache invalidate acme --tag prices --tag stock
      headgate cache invalidate acme --user ann
      headgate cache invalidate acme --all
    """
    named = {
        "tags": list(tags),
        "user": user,
        "namespace": namespace,
        "model": model,
        "entry": entry,
        "all": everything,
    }
    # A namespace may have no name; all else that is empty was not said.
    asked = {name: value for name, value in named.items() if value or (name == "namespace" and value is not None)}
    if not asked:
        raise click.UsageError("Say which entries, or --all.", click.get_current_context())

    async def work(books: Books, store: CacheStore) -> Json:
        from headgate.server.invalidation import selection_of  # late: `--help` needs no server

        found = await books.tenants.called(tenant)
        return {"removed": await store.invalidate(selection_of(found.id, asked))}

    def ask(server: str) -> Json:
        return called(server, admin_key, "POST", "/admin/cache/invalidate", body={"tenant": tenant, **asked})

    found = _done(config_path, data, url, work, ask)
    if as_json:
        print_json(found)
    else:
        click.echo(f"{found['removed']} removed")


@cache.command()
@click.argument("one")
@click.argument("other")
@click.option("--route", help="The route whose settings count.")
@config_option
@json_option
def explain(one: str, other: str, route: str | None, config_path: Path | None, as_json: bool) -> None:
    """Would the answer to the question OTHER be served for the question ONE, and why?

    Says what a new gateway with this configuration would do; one that runs may have learnt more, and tells it at
    `POST /admin/cache/explain`.

    \b
    Example:
      headgate cache explain "How much is shipping to France?" "What does shipping to Spain cost?"
    """

    async def work() -> Json:
        from headgate.assembly import explained  # late: `--help` needs no model
        from headgate.server.shown_entries import explanation_row

        return explanation_row(
            one, other, await explained(find_config(config_path, os.environ), one, other, route=route)
        )

    found = asyncio.run(work())
    if as_json:
        print_json(found)
    else:
        plain = {name: value for name, value in found.items() if not isinstance(value, dict | list)}
        print_pairs(plain, {name: name.replace("_", " ") for name in plain})


def _done(
    config_path: Path | None,
    data: Path,
    url: str | None,
    work: Callable[[Books, CacheStore], Awaitable[Json]],
    ask: Callable[[str], Json],
) -> Json:
    """Work on the stock, or ask the server that keeps it to itself."""
    if url is not None:
        return ask(url)

    config = find_config(config_path, os.environ)

    async def opened(books: Books) -> Json | None:
        from headgate.fittings_stores import open_stock  # late: `--help` needs no store

        async with open_stock(config, data) as store:
            return None if store is None else await work(books, store)

    found = with_books(config_path, data, opened)
    if found is not None:
        return found
    host = "127.0.0.1" if config.server.host in ("0.0.0.0", "::") else config.server.host  # noqa: S104 - read, not listened on
    return ask(f"http://{f'[{host}]' if ':' in host else host}:{config.server.port}")
