"""Spool: postings on this process's own disk for as long as the journal cannot be asked.

Each process writes a file of its own, `<name>-<number>.spool`, which it holds locked while it lives. Whoever opens a spool in the same folder
takes over the files of processes that are gone, and no two processes ever read one file.

Each line begins with the checksum of what follows. A process that is killed while it writes leaves half a line, which nobody was told of.

What lies here only this process knows. A till that is filled anew before it is written has room for what these calls hold: where that can be known,
which is in this process, filling waits; and when a spooled hold is written that has no end yet, its owners are filled once more. So only when the
journal is away and a till forgets in the same minutes, and another process fills it in between, a cap may be exceeded, by what lay here.

Invariant: what `write` returned for is in a file, synced to the disk, until `clear`.
"""

from __future__ import annotations

import fcntl
import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import msgspec

from headgate.budget.postings import Posting, as_json

log = logging.getLogger(__name__)

_posting = msgspec.json.Decoder(Posting)


class Spool:
    """The spool of one process. Everything but `left` blocks."""

    def __init__(self, path: str | Path, *, most: int) -> None:
        """`path`: folder and name, to which number and `.spool` are added; `most`: postings that it takes. Raises OSError."""
        self._path = Path(path)
        self._most = most
        self._file = -1
        self._others: list[tuple[int, Path]] = []
        self._count = 0
        self.found = self._take_over()
        """What processes that are gone have left, in their order, until it is cleared."""
        self._count = len(self.found)

    @property
    def used(self) -> bool:
        """Whether there is anything to be cleared."""
        return bool(self._count or self._others)

    @property
    def left(self) -> int:
        """Postings that it can still take."""
        return max(0, self._most - self._count)

    def write(self, postings: Sequence[Posting]) -> None:
        """Durable: append postings. Raises OSError, and then none of them is there."""
        if self._file < 0:
            self._file = self._create()
        end = os.lseek(self._file, 0, os.SEEK_END)
        lines = b"".join(_line(posting) for posting in postings)
        try:
            while lines:
                lines = lines[os.write(self._file, lines) :]
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, end)
            raise
        self._count += len(postings)

    def clear(self) -> None:
        """All that it held is in the journal. Raises OSError."""
        if self._file >= 0:
            os.ftruncate(self._file, 0)
            os.fsync(self._file)
        while self._others:
            file, path = self._others.pop()
            path.unlink(missing_ok=True)
            os.close(file)
        self.found, self._count = [], 0

    def close(self) -> None:
        """Let go of the files. What was not cleared stays, for whoever comes next."""
        for file, _ in self._others:
            os.close(file)
        self._others = []
        if self._file >= 0:
            if os.fstat(self._file).st_size == 0:
                self._own.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1

    def _take_over(self) -> list[Posting]:
        found: list[Posting] = []
        for path in sorted(self._path.parent.glob(f"{self._path.name}-*.spool")):
            file = _locked(path, os.O_RDWR)
            if file is not None:
                self._others.append((file, path))
                found += _read(path)
        if found:
            log.warning("%d postings of a process that is gone are written into the journal now", len(found))
        return found

    def _create(self) -> int:
        for number in count(1):
            self._own = self._path.with_name(f"{self._path.name}-{number}.spool")
            try:
                file = _locked(self._own, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            except FileExistsError:
                continue
            if file is not None:
                folder = os.open(self._path.parent, os.O_RDONLY)
                os.fsync(folder)  # otherwise a power cut may leave the lines, and no name to find them by
                os.close(folder)
                return file
        raise AssertionError


def _locked(path: Path, flags: int) -> int | None:
    """The file, if no living process has it and it is still the one of this name."""
    file = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
            return file
    except OSError:
        pass
    os.close(file)
    return None


def _line(posting: Posting) -> bytes:
    text = as_json(posting)
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _read(path: Path) -> Iterator[Posting]:
    for line in path.read_bytes().splitlines():
        text = line[9:]
        if line[:9] != b"%08x " % zlib.crc32(text):
            log.error("a line of %s is not as it was written; it is left out", path.name)
            continue
        yield _posting.decode(text)
