"""Options that several commands share, and the kinds of values they take."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from headgate.config_units import seconds_of
from headgate.model.money import from_usd

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


class Cap(click.ParamType[int | str]):
    """An amount in USD as nano-USD, or the word `none`."""

    name = "USD|none"

    def convert(self, value: int | str, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Read `5`, `0.25` or `none`."""
        if isinstance(value, int) or value.lower() == "none":
            return value if isinstance(value, int) else "none"
        try:
            return from_usd(value.removeprefix("$"))
        except ValueError as error:
            self.fail(f"{error}, nor none", param, ctx)


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
