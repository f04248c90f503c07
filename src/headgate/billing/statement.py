"""Statement: what one tenant owes for one month, as CSV, as JSON and as a page to print.

Sums are of whole nano-USD and shown unrounded, so the total is exactly what the journal says. Nothing that a caller can invent
reaches a page or a spreadsheet unescaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape

import msgspec

from headgate.billing.cells import csv_line, safe_cell
from headgate.model.money import to_usd

COLUMNS = (
    "day", "model", "source", "requests", "prompt_tokens", "completion_tokens", "cached_tokens", "cost_usd", "billed_usd", "saved_usd",
)  # fmt: skip
FIGURES = COLUMNS[3:]


class StatementRow(msgspec.Struct, frozen=True, kw_only=True):
    """A day's calls of one model, answered from one source. Money is nano-USD."""

    day: str
    model: str
    source: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost: int
    billed: int
    saved: int


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's month in its own time zone; `since` and `until` are its bounds, `made` when it was written, `open` when that
    was before its end."""

    tenant: str
    name: str
    customer: str | None
    month: str
    zone: str
    since: datetime
    until: datetime
    made: datetime
    open: bool
    rows: tuple[StatementRow, ...]


def csv_statement(statement: Statement) -> bytes:
    """The rows and, last, their total, as RFC 4180 has it."""
    lines = [csv_line(COLUMNS)]
    lines += [csv_line([safe_cell(cell) for cell in _cells(row)]) for row in statement.rows]
    lines.append(csv_line(["total", "", "", *_sums(statement.rows)]))
    return b"".join(lines)


def json_statement(statement: Statement) -> bytes:
    """The same for programs: facts, rows and total; money as decimal USD."""
    rows = [{name: getattr(row, name) for name in COLUMNS[:3]} | _named([row]) for row in statement.rows]
    facts = {name: getattr(statement, name) for name in Statement.__struct_fields__ if name != "rows"}
    return msgspec.json.encode({**facts, "currency": "USD", "data": rows, "total": _named(statement.rows)})


def html_statement(statement: Statement) -> bytes:
    """One page that needs nothing else: totals by day, by model and by source, then every row."""
    rows = statement.rows
    parts = [
        _HEAD.format(title=escape(f"{statement.name} {statement.month}")),
        f"<h1>Statement {escape(statement.month)}</h1>",
        _facts(statement),
        "<h2>Total</h2>",
        _table(("",), [(("total",), rows)]),
    ]
    for name, title in (("model", "By model"), ("source", "By source"), ("day", "By day")):
        groups = sorted({getattr(row, name) for row in rows})
        picked = [((group,), [row for row in rows if getattr(row, name) == group]) for group in groups]
        parts += [f"<h2>{title}</h2>", _table((name,), picked)]
    parts += [
        "<h2>By day, model and source</h2>",
        _table(COLUMNS[:3], [((r.day, r.model, r.source), [r]) for r in rows]),
    ]
    return "\n".join([*parts, "</body></html>\n"]).encode("utf-8", "replace")


def _cells(row: StatementRow) -> list[str | int]:
    return [row.day, row.model, row.source, *_sums([row])]


def _named(rows: Sequence[StatementRow]) -> dict[str, str | int]:
    """The figures of rows together, by their names."""
    figures = dict(zip(FIGURES, _sums(rows), strict=True))
    return {name: text if name.endswith("_usd") else int(text) for name, text in figures.items()}


def _sums(rows: Sequence[StatementRow]) -> list[str]:
    """The figures of rows together, in the order of FIGURES."""
    counts = [str(sum(getattr(row, name) for row in rows)) for name in FIGURES[:4]]
    return counts + [to_usd(sum(getattr(row, name.removesuffix("_usd")) for row in rows)) for name in FIGURES[4:]]


def _facts(statement: Statement) -> str:
    facts = {
        "Tenant": f"{statement.name} ({statement.tenant})",
        "Customer": statement.customer or "-",
        "Period": f"{statement.since.isoformat()} to {statement.until.isoformat()} ({statement.zone})",
        "Written": statement.made.isoformat(timespec="seconds")
        + (", the month is not over yet" if statement.open else ""),
        "Currency": "USD",
    }
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{escape(fact)}</dd>' for name, fact in facts.items())}</dl>"


def _table(names: Sequence[str], groups: Sequence[tuple[tuple[str, ...], Sequence[StatementRow]]]) -> str:
    heads = "".join(f"<th>{escape(name)}</th>" for name in names)
    heads += "".join(f"<th class=n>{name.replace('_usd', ' USD').replace('_', ' ')}</th>" for name in FIGURES)
    lines = []
    for cells, rows in groups:
        shown = "".join(f"<td>{escape(cell) or '-'}</td>" for cell in cells)
        lines.append(f"<tr>{shown}{''.join(f'<td class=n>{figure}</td>' for figure in _sums(rows))}</tr>")
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 2rem; color: #111 }}
table {{ border-collapse: collapse; width: 100%; margin-bottom: 1.5rem }}
th, td {{ text-align: left; padding: .2rem .5rem; border-bottom: 1px solid #ccc }}
.n {{ text-align: right; font-variant-numeric: tabular-nums }}
thead {{ display: table-header-group }} tr {{ break-inside: avoid }}
dl {{ display: grid; grid-template-columns: max-content auto; gap: .2rem 1rem }} dd {{ margin: 0 }}
@media print {{ body {{ margin: 0; font-size: 10px }} }}
</style></head><body>"""
