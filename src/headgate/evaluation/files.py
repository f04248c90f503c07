"""Files of JSON lines, plain or gzip: pairs and streams, each line checked.

The invariant: what is read is whole, or BadFile says in which line it is not.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal, TypeVar, cast

import msgspec

from headgate.evaluation.evaluation import Answer, Half, Pair, Request
from headgate.evaluation.model import plain_request

T = TypeVar("T")

LONGEST_LINE = 16 * 1024 * 1024
"""Bytes. A file without line breaks is something else than JSON lines."""

_GZIP = b"\x1f\x8b"


class BadFile(Exception):
    """A file cannot be used. The message is one line that says where and why."""


class _PairLine(msgspec.Struct):
    a: str
    b: str
    same: bool | Literal[0, 1]
    kind: str | None = None


class _StreamLine(msgspec.Struct):
    t: float
    tenant: str | int
    text: str
    answer: str | int


def read_pairs(path: Path, half: Half | None = None) -> list[Pair]:
    """The pairs of a file of {a, b, same, kind?}. Raises BadFile."""
    found = _halved(list(_read(path, _PairLine)), half)
    return [Pair(line.a, line.b, bool(line.same), line.kind or "") for line in found]


def read_stream(path: Path, half: Half | None = None) -> list[Request]:
    """The requests of a file of {t, tenant, text, answer}, in its order. Raises BadFile."""
    found = _halved(list(_read(path, _StreamLine)), half)
    return [
        Request(
            at=line.t,
            tenant=str(line.tenant),
            chat=plain_request(line.text),
            answer=Answer(str(line.answer), label=True),
        )
        for line in found
    ]


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Every line that is not empty, with its number from 1. Raises BadFile."""
    number = 0
    try:
        with path.open("rb") as plain:
            zipped = plain.read(2) == _GZIP
            plain.seek(0)
            file = cast("IO[bytes]", gzip.GzipFile(fileobj=plain)) if zipped else plain
            while line := file.readline(LONGEST_LINE + 1):
                number += 1
                if len(line) > LONGEST_LINE:
                    raise BadFile(f"{path}:{number}: longer than {LONGEST_LINE >> 20} MiB; not a file of JSON lines")
                line = line.removeprefix(b"\xef\xbb\xbf").strip()
                if line:
                    yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadFile(f"{path}:{number + 1}: the gzip file is cut off or damaged here ({error})") from None
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror or error}") from None


def _read(path: Path, kind: type[T]) -> Iterator[T]:
    decode = msgspec.json.Decoder(kind).decode
    empty = True
    for number, line in numbered_lines(path):
        empty = False
        try:
            yield decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadFile(f"{path}:{number}: {_said(error)}") from None
    if empty:
        raise BadFile(f"{path}: the file is empty")


def _said(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text"
    return str(error).replace(" - at `$.", " - at `")


def _halved(lines: list[T], half: Half | None) -> list[T]:
    middle = len(lines) // 2
    return lines if half is None else lines[:middle] if half == "first" else lines[middle:]
