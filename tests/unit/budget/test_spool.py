"""The spool: synced to the disk, taken over by whoever comes next, and by one process only."""

from __future__ import annotations

from pathlib import Path

import pytest

from headgate.budget.allowance import Allowance
from headgate.budget.budget import Entry, Scope
from headgate.budget.postings import Posting
from headgate.budget.spool import Spool


def posting(id: str) -> Posting:
    allowance = Allowance(account="user:acme/ann", window="day", cap=7, rule="grace", percent=5)
    scope = Scope("user:acme/ann", "day:2026-11-20", 7, allowance, "big", tokens=True)
    entry = Entry(tenant="acme", user="anné", amount=2**63 - 1)
    return Posting(
        act="hold", id=id, at=1.5, scopes=(scope,), bill=(entry,), amount=9, epochs={"t/acme": 3}, capped=True
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "headgate-spool"


def test_what_was_written_is_found_by_who_comes_next_in_its_order(path: Path) -> None:
    first = Spool(path, most=10)
    first.write([posting("a"), posting("b")])
    first.write([posting("c")])
    first.close()
    second = Spool(path, most=10)
    assert second.found == [posting("a"), posting("b"), posting("c")]
    assert second.left == 7
    second.close()


def test_odd_texts_are_written_as_the_journal_has_them(path: Path) -> None:
    first = Spool(path, most=10)
    first.write([Posting(act="note", id="a", at=1.5, bill=(Entry(tenant="acme", user="\ud800\0"),))])
    first.close()
    second = Spool(path, most=10)
    assert second.found[0].bill[0].user == "?\ufffd"
    second.close()


def test_what_was_cleared_is_gone_with_its_file(path: Path) -> None:
    first = Spool(path, most=10)
    first.write([posting("a")])
    first.close()
    second = Spool(path, most=10)
    second.write([posting("b")])
    second.clear()
    assert not second.used
    assert second.left == 10
    second.close()
    assert list(path.parent.iterdir()) == []


def test_a_living_process_keeps_its_file(path: Path) -> None:
    living = Spool(path, most=10)
    living.write([posting("a")])
    other = Spool(path, most=10)
    assert other.found == []
    other.write([posting("b")])
    living.write([posting("c")])
    living.close()
    assert [one.id for one in Spool(path, most=10).found] == ["a", "c"]
    other.close()


def test_two_that_come_next_do_not_both_take_it_over(path: Path) -> None:
    first = Spool(path, most=10)
    first.write([posting("a")])
    first.close()
    one, other = Spool(path, most=10), Spool(path, most=10)
    assert [one.id for one in one.found + other.found] == ["a"]
    one.close()
    other.close()


@pytest.mark.parametrize("cut", [2, 5, 9, 40])
def test_half_a_line_at_the_end_is_left_out(path: Path, cut: int) -> None:
    first = Spool(path, most=10)
    first.write([posting("a"), posting("b")])
    first.close()
    (file,) = path.parent.iterdir()
    file.write_bytes(file.read_bytes()[:-cut])
    second = Spool(path, most=10)
    assert [one.id for one in second.found] == ["a"]
    second.close()


def test_a_line_that_is_not_as_it_was_written_is_left_out(path: Path) -> None:
    first = Spool(path, most=10)
    first.write([posting("a"), posting("b"), posting("c")])
    first.close()
    (file,) = path.parent.iterdir()
    file.write_bytes(file.read_bytes().replace(b'"b"', b'"x"'))
    second = Spool(path, most=10)
    assert [one.id for one in second.found] == ["a", "c"]
    second.close()


def test_a_spool_that_cannot_be_written_says_so_and_keeps_nothing(path: Path) -> None:
    spool = Spool(path.parent / "missing" / "spool", most=10)
    with pytest.raises(OSError, match="missing"):
        spool.write([posting("a")])
    assert spool.left == 10
    spool.close()
