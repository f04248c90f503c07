"""`headgate prices`: what models cost, and prices of one's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headgate.cli.books import with_books
from headgate.cli.options import AUTHOR, config_option, data_option, json_option
from headgate.cli.output import print_json, print_table
from headgate.model.chat import Json
from headgate.model.money import KINDS, Price, from_usd

if TYPE_CHECKING:
    from headgate.budget.pricing import Pricing

_SHOWN = ("input", "output", "cached_input", "cache_write", "reasoning", "audio_input", "image_input")
_COLUMNS = {"name": "model", "path": "provider/model", "origin": "from"} | {kind: kind for kind in _SHOWN}


@click.group()
def prices() -> None:
    """Show what models cost, and change it, also while a server runs: it charges by it within two seconds.

    Prices come from the table that ships with Headgate, unless `prices:` or a model's `price:` in the configuration says
    something else; what is set here wins over all of them.

    \b
    Examples:
      headgate prices show
      headgate prices set openai/gpt-4o-mini --input 0.12 --output 0.48 --cached-input 0.06
      headgate prices unset openai/gpt-4o-mini
    """


@prices.command()
@click.argument("path", metavar="[PROVIDER/MODEL]", required=False)
@config_option
@data_option
@json_option
def show(path: str | None, config_path: Path | None, data: Path, as_json: bool) -> None:
    """Show what every model costs, or one: USD for a million tokens.

    A price in brackets is a fallback: tokens of that kind have no price of their own and are charged at this one.
    """

    async def look(pricing: Pricing) -> Json:
        from headgate.server.prices import price_report  # late: `--help` needs no server

        return price_report(pricing, *(_parts(path) if path else ()))

    found = _done(config_path, data, look)
    if as_json:
        print_json(found)
        return
    print_table([_line(row) for row in found["data"]], _COLUMNS, empty="no models yet")
    click.echo(f"table of {found['as_of']}, digest {found['digest']}")


def rates_options(command: Callable[..., None]) -> Callable[..., None]:
    """An option for each kind of token; only the first two must be given."""
    for kind in reversed(KINDS):
        option = f"--{kind.replace('_', '-')}"
        needed = kind in ("input", "output")
        command = click.option(option, kind, metavar="USD", required=needed, help=_HELP.get(kind))(command)
    return command


_HELP = {
    "input": "A million prompt tokens.",
    "output": "A million completion tokens.",
    "cached_input": "A million prompt tokens read from the provider's cache; as all other kinds, else a fallback.",
}


@prices.command("set")
@click.argument("path", metavar="PROVIDER/MODEL")
@rates_options
@click.option("--call", metavar="USD", default="0", help="Each call, whatever its size.")
@click.option("--search", metavar="USD", default="0", help="Each search of the web.")
@config_option
@data_option
@json_option
def set_(
    *,
    path: str,
    call: str,
    search: str,
    config_path: Path | None,
    data: Path,
    as_json: bool,
    **given: str | None,
) -> None:
    """Let PROVIDER/MODEL cost this from now on. The price is given in full: what is left out falls back.

    \b
    Examples:
      headgate prices set openai/gpt-4o-mini --input 0.12 --output 0.48 --cached-input 0.06
      headgate prices set vllm/llama-3 --input 0 --output 0
    """
    rates: Json = {kind: _nano(kind, usd) for kind, usd in given.items() if usd is not None}
    price = Price(**rates, call=_nano("call", call), search=_nano("search", search))
    _change(config_path, data, path, lambda pricing, *parts: pricing.set(*parts, price, by=AUTHOR), as_json=as_json)


@prices.command()
@click.argument("path", metavar="PROVIDER/MODEL")
@config_option
@data_option
@json_option
def unset(path: str, config_path: Path | None, data: Path, as_json: bool) -> None:
    """Let PROVIDER/MODEL cost again what configuration and table say."""
    _change(config_path, data, path, lambda pricing, *parts: pricing.unset(*parts, by=AUTHOR), as_json=as_json)


def _change(
    config_path: Path | None, data: Path, path: str, work: Callable[..., Awaitable[None]], *, as_json: bool
) -> None:
    """Change a price and show what the model costs now."""
    provider, model = _parts(path)

    async def changed(pricing: Pricing) -> Json:
        from headgate.server.prices import price_row  # late: `--help` needs no server

        await work(pricing, provider, model)
        return price_row(pricing, provider, model, pricing.called(provider, model))

    row = _done(config_path, data, changed)
    if as_json:
        print_json(row)
    else:
        print_table([_line(row)], _COLUMNS)


def _done(config_path: Path | None, data: Path, work: Callable[[Pricing], Awaitable[Json]]) -> Json:
    return with_books(config_path, data, lambda books: work(books.pricing))


def _parts(path: str) -> tuple[str, str]:
    provider, slash, model = path.partition("/")
    if not (provider and slash and model):
        raise click.UsageError(
            f"'{path}' is no provider and model; write openai/gpt-4o-mini.", click.get_current_context()
        )
    return provider, model


def _nano(name: str, usd: str) -> int:
    try:
        return from_usd(usd.removeprefix("$"))
    except ValueError as error:
        option = f"--{name.replace('_', '-')}"
        raise click.UsageError(f"{option}: {error}", click.get_current_context()) from None


def _line(row: Json) -> Json:
    """A row of the table for people."""
    found = row["prices"] or {}
    shown = {kind: (f"({one['usd']})" if one["fallback"] else one["usd"]) for kind, one in found.items()}
    return {
        "name": row["name"],
        "path": f"{row['provider']}/{row['model']}",
        "origin": row["origin"] or "UNPRICED",
        **shown,
    }
