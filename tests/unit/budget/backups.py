"""Backups of a journal, made and restored as docs/guides/operating.md says."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path


def back_up(path: Path, backup: Path) -> None:
    """Copy a journal, also while a server writes it."""
    with closing(sqlite3.connect(path)) as journal, closing(sqlite3.connect(backup)) as copy:
        journal.backup(copy)


def restore(backup: Path, path: Path) -> None:
    """Put a backup in a journal's place; without one, nothing is there."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)
    if backup.exists():
        shutil.copy(backup, path)
