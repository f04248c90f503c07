"""`headgate billing`: who was told what tenants owe, what waits, and what was refused."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headgate.cli.books import tenant_names, with_books
from headgate.cli.options import Moment, config_option, data_option, json_option
from headgate.cli.output import moment, print_json, print_table
from headgate.model.chat import Json
from headgate.model.errors import NotFound
from headgate.model.money import to_usd

if TYPE_CHECKING:
    from headgate.assembly import Books

_STATUS = {
    "sink": "sink",
    "delivered": "delivered",
    "delivered_usd": "USD",
    "pending": "pending",
    "pending_usd": "USD",
    "oldest": "since",
    "parked": "parked",
    "parked_usd": "USD",
    "reason": "last failure",
    "stopped": "stopped",
}
_REWIND = {
    "told_up_to": "told up to row",
    "told_at": "of",
    "new_since": "new since",
    "new": "new rows",
    "new_usd": "USD",
    "parked": "to be parked",
}
_PARKED = {"id": "event", "name": "tenant", "billed_usd": "USD", "made": "since", "reason": "reason"}


@click.group()
def billing() -> None:
    """Show who was told what tenants owe, and send again what was refused.

    The server sends; it does so by itself as long as a sink may recognise a repetition. What a sink refuses, and what is too old to
    be sent twice without looking, is parked. When the journal was replaced, by a backup or a power cut, it stops until `rewind`.

    \b
    Examples:
      headgate billing status
      headgate billing parked stripe
      headgate billing retry stripe --all
      headgate billing rewind stripe
    """


@billing.command()
@config_option
@data_option
@json_option
def status(config_path: Path | None, data: Path, as_json: bool) -> None:
    """Show where each sink stands, in events and in what tenants owe."""
    from headgate.billing.shown import shown_standing  # late: `--help` needs none

    async def work(books: Books) -> list[Json]:
        return [shown_standing(one) for one in await books.outbox.standings()]

    found = with_books(config_path, data, work)
    if as_json:
        print_json(found)
        return
    print_table(
        [{**row, "oldest": moment(row["oldest"])} for row in found], _STATUS, empty="no sink was told anything yet"
    )


@billing.command()
@click.argument("sink")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Most events to show.")
@config_option
@data_option
@json_option
def parked(sink: str, limit: int, config_path: Path | None, data: Path, as_json: bool) -> None:
    """Show the events of SINK that are not sent any more, oldest first, and why."""
    from headgate.billing.shown import shown_event  # late: `--help` needs none

    async def work(books: Books) -> list[Json]:
        names = await tenant_names(books.tenants)
        found = await books.outbox.parked(await _known(books, sink), limit)
        return [{**shown_event(event), "name": names.get(event.tenant, event.tenant)} for event in found]

    found = with_books(config_path, data, work)
    if as_json:
        print_json(found)
        return
    print_table([{**row, "made": moment(row["made"])} for row in found], _PARKED, empty="nothing is parked")


@billing.command()
@click.argument("sink")
@click.argument("ids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All parked events of the sink.")
@config_option
@data_option
@json_option
def retry(
    *, sink: str, ids: tuple[str, ...], everything: bool, config_path: Path | None, data: Path, as_json: bool
) -> None:
    """Let a running server send parked events of SINK again: those with these IDS, or --all.

    What was refused is made anew, so that a mended customer counts; its id stays. What is parked because its first try was too
    long ago is sent as it was: look first whether the sink has it, or it is billed twice.
    """
    if bool(ids) == everything:
        raise click.UsageError("Say which events, or --all.", click.get_current_context())

    async def work(books: Books) -> int:
        return await books.outbox.retry(await _known(books, sink), None if everything else ids)

    count = with_books(config_path, data, work)
    if as_json:
        print_json({"retried": count})
        return
    click.echo(f"{count} to be sent again")


@billing.command()
@click.argument("sink")
@click.option(
    "--since", type=Moment(), help="Rows after this moment are new. Default: what was read last is the last old one."
)
@click.option("--yes", is_flag=True, help="Really do it.")
@config_option
@data_option
@json_option
def rewind(*, sink: str, since: float | None, yes: bool, config_path: Path | None, data: Path, as_json: bool) -> None:
    """Let SINK go on after the journal was replaced: by an older backup, or by one that a power cut left without its newest rows.

    It goes back to the last row that it was told of and that is still there; the rows behind it are new, for the server has been
    started since. Ends of calls that had begun before are parked: another end of them may have been told. Without --yes it only
    shows what it would do. Refused while the journal is the one that the sink was told from.
    """
    from headgate.fittings_billing import rewind as rewound  # late: `--help` needs none

    async def work(books: Books) -> Json:
        name = await _known(books, sink)
        fork = await rewound(name, books.tail, books.outbox, since=since, really=yes, now=time.time())
        return {
            "told_up_to": fork.place[0],
            "told_at": fork.at,
            "new_since": fork.first,
            "new": fork.rows,
            "new_usd": to_usd(fork.billed),
            "parked": len(fork.cut_off),
            "done": yes,
        }

    found = with_books(config_path, data, work)
    if as_json:
        print_json(found)
        return
    moments = {name: moment(found[name]) for name in ("told_at", "new_since")}
    print_table([{**found, **moments}], _REWIND, empty="")
    if not yes:
        click.echo("Nothing was changed. If the journal was replaced between these two moments, add --yes.")


async def _known(books: Books, sink: str) -> str:
    """The sink's name. Raises NotFound."""
    known = [one.sink for one in await books.outbox.standings()]
    if sink not in known:
        raise NotFound(f"There is no billing sink {sink!r}; known are {', '.join(known) or 'none yet'}.")
    return sink
