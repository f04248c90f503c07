"""Options that several commands share, and the kinds of values they take."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click

from headgate.config_units import seconds_of
from headgate.model.money import LARGEST, from_usd
from headgate.model.tenancy import WINDOWS, Window

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Configuration file. Default: headgate.yaml if there is one.",
)
data_option = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default="headgate-data",
    envvar="HEADGATE_DATA",
    show_default=True,
    show_envvar=True,
    help="Data directory.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


AUTHOR = "headgate"
"""Who has changed something, as the journal keeps it, when it was done on the command line."""

PERIODS: dict[Window, str] = {
    "hour": "of an hour",
    "day": "of a day",
    "week": "of a week",
    "month": "of a month",
    "total": "in total",
}


def caps_options(command: Callable[..., None]) -> Callable[..., None]:
    """One option for each window: what may be spent in it."""
    for window in reversed(WINDOWS):
        command = click.option(f"--{window}", metavar="AMOUNT", help=f"Budget {PERIODS[window]}; `none` for none.")(
            command
        )
    return command


def amount_of(text: str, unit: str, option: str, *, otherwise: str = "") -> int:
    """Nano-USD of `5` or `0.25`, or tokens of `1000`. Raises BadParameter for this option; `otherwise`: what else it may be."""
    try:
        if unit == "usd":
            return from_usd(text.removeprefix("$"))
        if text.isdecimal() and text.isascii() and int(text) <= LARGEST:
            return int(text)
        raise ValueError(f"{text!r} is not a whole number of tokens")
    except ValueError as error:
        raise click.BadParameter(
            f"{error}{otherwise}.", click.get_current_context(), param_hint=f"'{option}'"
        ) from None


def caps_of(given: dict[str, str | None], unit: str = "usd") -> dict[Window, int | None]:
    """The caps of the windows that were said: nano-USD or tokens, None for `none`. Raises BadParameter."""
    said = {window: text for window in WINDOWS if (text := given[window]) is not None}
    return {
        window: None if text.lower() == "none" else amount_of(text, unit, f"--{window}", otherwise=", nor none")
        for window, text in said.items()
    }


class Moment(click.ParamType[float]):
    """Unix seconds, or an ISO date or time; without a zone it is UTC."""

    name = "date"

    def convert(self, value: float | str, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read `2026-11-20`, `2026-11-20T17:00:00Z` or `1795107600`."""
        if isinstance(value, float):
            return value
        if value.replace(".", "", 1).isdecimal():
            return float(value)
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is neither a date such as 2026-11-20 nor unix seconds", param, ctx)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


class Seconds(click.ParamType[float]):
    """A duration in seconds."""

    name = "duration"

    def convert(self, value: float | str, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read `24h`, `90m`, `5s` or a number of seconds."""
        try:
            return seconds_of(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
