"""`headgate route explain`: what the router makes of a question, without asking any model."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headgate.cli.books import with_books
from headgate.cli.options import config_option, data_option, json_option
from headgate.cli.output import print_json, print_pairs, print_table
from headgate.cli.running import called, key_option, url_option
from headgate.config_file import find_config
from headgate.model.chat import ChatRequest, Json
from headgate.model.tenancy import DEFAULT_TENANT, Principal

if TYPE_CHECKING:
    from headgate.assembly import Books

_DECIDED = ("model", "tier", "task", "intent", "complexity", "strategy", "confidence", "reason", "decider")
_CANDIDATES = {
    "place": "tried",
    "deployment": "model",
    "provider": "provider",
    "input_usd": "input $/M",
    "output_usd": "output $/M",
    "state": "state",
}


@click.command()
@click.argument("question")
@click.option("--model", default="auto", show_default=True, help="A route, or a model.")
@click.option("--tenant", help="Who asks, by id or name.")
@click.option("--user", help="For which end user.")
@click.option(
    "--metadata", multiple=True, metavar="KEY=VALUE", help="The request's own metadata, which rules may look at."
)
@url_option
@key_option
@config_option
@data_option
@json_option
def explain(
    *,
    question: str,
    model: str,
    tenant: str | None,
    user: str | None,
    metadata: tuple[str, ...],
    url: str | None,
    admin_key: str | None,
    config_path: Path | None,
    data: Path,
    as_json: bool,
) -> None:
    """Where would QUESTION go, and why?

    Says what a new gateway with this configuration would do. One that runs knows more, such as which models are well and what was
    learnt: it is asked with --url. A dry run: no model is asked.

    \b
    Examples:
      headgate route explain "Why does my import fail with a deadlock?"
      headgate route explain "Where is my parcel?" --tenant acme --url http://127.0.0.1:8000
    """
    said = _pairs(metadata)
    if url is not None:
        body = {"prompt": question, "model": model, "metadata": said, "tenant": tenant, "user": user}
        found = called(url, admin_key, "POST", "/admin/route/explain", body=body)
    else:
        from headgate.server.shown_routes import request_of  # late: `--help` needs no gateway

        asked = request_of(model, question, None, said)
        found = asyncio.run(_explained(asked, _caller(tenant, config_path, data), user, config_path))
    if as_json:
        print_json(found)
        return
    print_pairs(found, {name: name for name in _DECIDED})
    click.echo()
    if found["deciders"]:
        print_table(found["deciders"], {"name": "decider", "says": "says"})
        click.echo()
    rows = [{**row, "state": row["health"]["state"]} for row in found["candidates"]]
    print_table(rows, _CANDIDATES)


def _caller(tenant: str | None, config_path: Path | None, data: Path) -> Principal:
    if tenant is None:
        return Principal(tenant=DEFAULT_TENANT)

    async def look(books: Books) -> Principal:
        found = await books.tenants.called(tenant)
        return Principal(tenant=found.id, policy=found.policy)

    return with_books(config_path, data, look)


async def _explained(asked: Json, caller: Principal, user: str | None, config_path: Path | None) -> Json:
    from headgate.assembly import routed  # late, as above
    from headgate.server.shown_routes import explanation_row

    config = find_config(config_path, os.environ)
    return explanation_row(await routed(config, ChatRequest.parse(asked), caller, user=user))


def _pairs(texts: tuple[str, ...]) -> dict[str, str]:
    """Raises BadParameter for a text that is no KEY=VALUE."""
    pairs = {}
    for text in texts:
        key, found, value = text.partition("=")
        if not key or not found:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="'--metadata'")
        pairs[key] = value
    return pairs
