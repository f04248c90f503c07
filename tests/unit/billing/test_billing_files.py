"""Files: whole rows, each once, whatever was half written."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from headgate.billing.billing import Event, Line
from headgate.billing.files import COLUMNS, RowFile


def line(seq: int, **fields: object) -> Line:
    whole = {"seq": seq, "id": f"c{seq}", "kind": "settle", "attempt": 0, "at": 1_795_176_000_000_000, "tenant": "t_1"}
    return Line(**{**whole, "billed": 2_500_000_000, "model": "gpt", "source": "live", **fields})


def events(exporter: RowFile, *lines: Line) -> list[Event]:
    return [
        Event(
            id=f"hg_{one.seq}", seq=one.seq, tenant="t", billed=0, body=exporter.render(one, f"hg_{one.seq}", None), made=0.0
        )
        for one in lines
    ]  # fmt: skip


def written(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline="")))


@pytest.mark.parametrize("shape", ["csv", "jsonl"])
async def test_what_a_dead_process_wrote_and_did_not_acknowledge_is_written_once(tmp_path: Path, shape) -> None:
    path = tmp_path / f"rows.{shape}"
    exporter = RowFile(path, shape)
    first = (await exporter.deliver(events(exporter, line(1)), 0)).mark
    acknowledged = path.read_bytes()
    await exporter.deliver(events(exporter, line(2), line(3)), first)
    whole = path.read_bytes()
    for cut in range(len(acknowledged), len(whole) + 1):
        path.write_bytes(whole[:cut])
        mark = (await RowFile(path, shape).deliver(events(exporter, line(2), line(3)), first)).mark
        assert path.read_bytes() == whole
        assert mark == len(whole)
    assert path.stat().st_mode & 0o077 == 0


async def test_what_was_left_behind_is_cut_off_even_when_less_is_written_now(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    exporter = RowFile(path, "jsonl")
    first = (await exporter.deliver(events(exporter, line(1)), 0)).mark
    await exporter.deliver(events(exporter, line(2), line(3), line(4)), first)
    mark = (await exporter.deliver(events(exporter, line(2)), first)).mark
    assert [json.loads(text)["id"] for text in path.read_text().splitlines()] == ["hg_1", "hg_2"]
    assert mark == path.stat().st_size


async def test_json_lines_hold_every_column(tmp_path: Path) -> None:
    exporter = RowFile(tmp_path / "rows.jsonl", "jsonl")
    await exporter.deliver(events(exporter, line(1, user='a"\n')), 0)
    (row,) = [json.loads(text) for text in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert tuple(row) == COLUMNS
    assert (row["id"], row["at"], row["billed_usd"], row["user"]) == (
        "hg_1",
        "2026-11-20T12:00:00.000000Z",
        "2.50",
        'a"\n',
    )


async def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    exporter = RowFile(tmp_path / "rows.csv", "csv")
    hostile = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", 'a,"b"\r\nc', "\ttab"]
    await exporter.deliver(events(exporter, *[line(at, user=text) for at, text in enumerate(hostile)]), 0)
    rows = written(tmp_path / "rows.csv")
    assert [row["user"] for row in rows] == [
        "'=1+1",
        "'+cmd|' /C calc'!A0",
        "'-2+3",
        "'@SUM(A1)",
        'a,"b"\r\nc',
        "'\ttab",
    ]


async def test_a_file_that_was_moved_away_begins_anew_with_its_heading(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    exporter = RowFile(path, "csv")
    mark = (await exporter.deliver(events(exporter, line(1)), 0)).mark
    path.rename(tmp_path / "rows-october.csv")
    await exporter.deliver(events(exporter, line(2)), mark)
    assert [row["id"] for row in written(path)] == ["hg_2"]


async def test_a_file_that_somebody_shortened_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    exporter = RowFile(path, "csv")
    mark = (await exporter.deliver(events(exporter, line(1)), 0)).mark
    path.write_bytes(b"x")
    delivery = await exporter.deliver(events(exporter, line(2)), mark)
    assert (delivery.outcomes[0].verdict, delivery.mark, path.read_bytes()) == ("again", mark, b"x")
    assert "move it away" in delivery.outcomes[0].reason


async def test_a_folder_that_is_not_there_is_tried_again(tmp_path: Path) -> None:
    exporter = RowFile(tmp_path / "no" / "rows.csv", "csv")
    assert (await exporter.deliver(events(exporter, line(1)), 0)).outcomes[0].verdict == "again"
