"""What the commands print: aligned tables for people, JSON for programs, both of the same rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

Row = Mapping[str, Any]


def print_json(value: Any) -> None:
    """Print a value as JSON, indented."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(rows: Sequence[Row], columns: Mapping[str, str], *, empty: str = "nothing yet") -> None:
    """Print rows under headings; `columns` maps a row's keys to them. Numbers and amounts stand right, text left."""
    if not rows:
        click.echo(empty)
        return
    texts = [[_cell(row.get(name)) for name in columns] for row in rows]
    headings = list(columns.values())
    widths = [max(len(line[index]) for line in [headings, *texts]) for index in range(len(headings))]
    right = [all(_is_number(line[index]) for line in texts) for index in range(len(headings))]
    for line in [headings, *texts]:
        cells = (
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, right, strict=True)
        )
        click.echo("  ".join(cells).rstrip())


def print_pairs(row: Row, names: Mapping[str, str]) -> None:
    """Print one row as `name  value` lines."""
    width = max(map(len, names.values()))
    for name, shown in names.items():
        click.echo(f"{shown.ljust(width)}  {_cell(row.get(name))}")


def moment(seconds: float | None) -> str | None:
    """Unix seconds as an ISO time in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    # A name may hold anything; a control character must not reach the terminal.
    return "".join(letter if letter.isprintable() else "?" for letter in str(value))


def _is_number(text: str) -> bool:
    return text in ("-", "none") or text.lstrip("-").replace(".", "", 1).isdecimal()
