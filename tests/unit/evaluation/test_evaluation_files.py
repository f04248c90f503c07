"""Files of pairs and of streams: what is read is whole, or the line is named in which it is not."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headgate.evaluation.evaluation import Pair
from headgate.evaluation.files import LONGEST_LINE, BadFile, read_pairs, read_stream

PAIR = b'{"a": "Is it open on Sunday?", "b": "Are you open on Sundays?", "same": true}\n'
REQUEST = b'{"t": 1.5, "tenant": "mill", "text": "When do you close?", "answer": 7}\n'


@pytest.fixture
def written(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "lines.jsonl"
        path.write_bytes(content)
        return path

    return write


def test_pairs_are_read_plain_and_zipped(written: Callable[[bytes], Path]) -> None:
    expected = [Pair("Is it open on Sunday?", "Are you open on Sundays?", True)]
    assert read_pairs(written(PAIR)) == expected
    assert read_pairs(written(gzip.compress(PAIR))) == expected


def test_a_label_may_be_a_number_and_a_kind_may_be_given(written: Callable[[bytes], Path]) -> None:
    line = b'{"a": "x", "b": "y", "same": 0, "kind": "number", "source": "by hand"}'
    assert read_pairs(written(line)) == [Pair("x", "y", False, "number")]


def test_a_byte_order_mark_and_empty_lines_do_not_matter(written: Callable[[bytes], Path]) -> None:
    assert len(read_pairs(written(b"\xef\xbb\xbf" + PAIR + b"\n  \r\n" + PAIR))) == 2


def test_a_stream_keeps_its_order_and_its_labels(written: Callable[[bytes], Path]) -> None:
    lines = REQUEST + b'{"t": 1, "tenant": 3, "text": "", "answer": "seven"}'
    first, second = read_stream(written(lines))
    assert (first.at, first.tenant, first.chat.question, first.answer.text) == (1.5, "mill", "When do you close?", "7")
    assert (second.at, second.tenant, second.answer.text, second.answer.label) == (1.0, "3", "seven", True)


def test_a_half_is_one_of_the_lines(written: Callable[[bytes], Path]) -> None:
    path = written(b"".join(b'{"a": "%d", "b": "", "same": 1}\n' % number for number in range(5)))
    assert [pair.a for pair in read_pairs(path, "first")] == ["0", "1"]
    assert [pair.a for pair in read_pairs(path, "second")] == ["2", "3", "4"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "the file is empty"),
        (PAIR + b'{"a": "x", "b": "y"}', ":2: Object missing required field `same`"),
        (PAIR + b'{"a": 1, "b": "y", "same": 1}', ":2: Expected `str`, got `int` - at `a`"),
        (PAIR + b'{"a": "x", "b": "y", "same": 2}', ":2: Invalid enum value 2 - at `same`"),
        (PAIR + b'{"a": "x", "b": "y", "sa', ":2: Input data was truncated"),
        (b"\x00\x01\x02", ":1: JSON is malformed"),
        (b'{"a": "\xff\xfe", "b": "y", "same": 1}', ":1: not UTF-8 text"),
        (b'["a", "b"]', ":1: Expected `object`, got `array`"),
        (b"\x1f\x8bzipped?", ":1: the gzip file is cut off or damaged here"),
    ],
)
def test_the_line_that_is_wrong_is_named(written: Callable[[bytes], Path], content: bytes, told: str) -> None:
    with pytest.raises(BadFile) as caught:
        read_pairs(written(content))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("t", [b"NaN", b"Infinity", b"1e999", b'"noon"', b"null"])
def test_a_time_that_is_none_is_refused(written: Callable[[bytes], Path], t: bytes) -> None:
    with pytest.raises(BadFile, match=":1: "):
        read_stream(written(b'{"t": ' + t + b', "tenant": "mill", "text": "?", "answer": 1}'))


def test_a_zipped_file_that_was_cut_says_where(written: Callable[[bytes], Path]) -> None:
    whole = gzip.compress(
        b"".join(json.dumps({"a": str(n * n), "b": "", "same": 1}).encode() + b"\n" for n in range(9000))
    )
    with pytest.raises(BadFile, match=r"lines\.jsonl:\d{3,}: the gzip file is cut off"):
        read_pairs(written(whole[: len(whole) // 2]))


def test_something_without_lines_is_not_read_to_its_end(written: Callable[[bytes], Path]) -> None:
    with pytest.raises(BadFile, match=":1: longer than 16 MiB"):
        read_pairs(written(b"x" * (LONGEST_LINE + 2)))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="Is a directory"):
        read_pairs(tmp_path)


@given(content=st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_file_holds_it_is_read_or_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "any"
    for start in (b"", PAIR):
        path.write_bytes(start + content)
        told = ""
        try:
            read_pairs(path)
        except BadFile as error:
            told = str(error)
        assert told.isprintable()
