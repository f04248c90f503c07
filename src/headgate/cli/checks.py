"""What `headgate doctor` looks at, one function for each question. None changes anything but a scratch file of its own."""

from __future__ import annotations

import hashlib
import shutil
import socket
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal

import msgspec

from headgate.budget.prices import PriceTable
from headgate.cache.embedders import SHIPPED, Manifest
from headgate.cli.ledger_sums import prove
from headgate.config import Config

State = Literal["ok", "warn", "fail"]
LITTLE_SPACE = 1024**3
NO_SPACE = 64 * 1024**2
OLDEST_SQLITE = (3, 37, 0)
"""The first with strict tables."""


class Check(msgspec.Struct, frozen=True):
    """One finding: `state`, what was found, and, unless all is well, what to do."""

    name: str
    state: State
    found: str
    advice: str = ""


def python() -> Check:
    """The interpreter, and SQLite as it comes with it."""
    found = f"{sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}"
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        return Check("python", "fail", found, "use a Python whose SQLite is 3.37 or newer")
    return Check("python", "ok", found)


def data_directory(data: Path) -> Iterator[Check]:
    """Can it be written, and is there room?"""
    if not data.exists():
        yield Check("data directory", "ok", f"{data} does not exist yet; the first start makes it")
        return
    try:
        with tempfile.TemporaryFile(dir=data) as scratch:
            scratch.write(b"headgate")
    except OSError as error:
        yield Check(
            "data directory", "fail", f"{data}: {error.strerror}", "let the user that runs headgate write to it"
        )
        return
    yield Check("data directory", "ok", f"{data} is writable")
    free = shutil.disk_usage(data).free
    state: State = "fail" if free < NO_SPACE else "warn" if free < LITTLE_SPACE else "ok"
    yield Check(
        "disk space",
        state,
        f"{free / 1024**3:.1f} GiB free",
        "make room: a full disk refuses calls" if state != "ok" else "",
    )


def databases(data: Path) -> Iterator[Check]:
    """Every SQLite file of the data directory: its mode, its integrity, and whether balances are what the journal says."""
    for path in sorted(data.glob("*.db")):
        try:
            with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
                yield from _database(path.name, connection)
        except sqlite3.Error as error:
            yield Check(path.name, "fail", str(error), "restore it from a backup")


def _database(name: str, connection: sqlite3.Connection) -> Iterator[Check]:
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    problems = [row[0] for row in connection.execute("PRAGMA integrity_check(1)")]
    if problems != ["ok"]:
        yield Check(name, "fail", f"damaged: {' '.join(problems[0].split())}", "restore it from a backup")
        return
    if mode != "wal":
        yield Check(name, "warn", f"sound, but its journal mode is {mode}", "keep it on a local disk; WAL needs one")
    else:
        yield Check(name, "ok", "sound, in WAL mode")
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'journal'").fetchone():
        yield _ledger(connection)


def _ledger(connection: sqlite3.Connection) -> Check:
    proof = prove(connection)
    if proof.holds:
        found = f"each of {proof.calls} calls ended once at most; {proof.sums} running sums equal the journal"
        return Check("ledger", "ok", found)
    found = (
        f"of {proof.calls} calls {proof.ended_twice} ended twice and {proof.unheld} were never held;"
        f" {proof.unequal} of {proof.sums} running sums differ from the journal"
    )
    return Check("ledger", "fail", found, "stop the server, keep the file and report it: this must never happen")


def models(config: Config) -> Iterator[Check]:
    """Are providers configured, and does every model have a price?"""
    if config.simulated:
        advice = "set OPENAI_API_KEY or ANTHROPIC_API_KEY, or write headgate.yaml"
        yield Check("providers", "warn", "none; a simulated one answers", advice)
        return
    keyless = sorted(name for name, one in config.providers.items() if one.api_key is None and not one.allow_private)
    if keyless:
        yield Check("providers", "warn", f"{', '.join(keyless)}: no api_key", "set api_key unless it needs none")
    else:
        yield Check("providers", "ok", ", ".join(sorted(config.providers)))
    table = PriceTable.load(overrides={path: price.price() for path, price in config.prices.items()})
    unpriced = sorted(
        name
        for name, one in config.models.items()
        if one.price is None and table.find(one.provider, one.model or name) is None
    )
    if unpriced:
        advice = "give each a price: tenants with a budget are refused"
        yield Check("prices", "warn", f"unknown for {', '.join(unpriced)}", advice)
    else:
        yield Check("prices", "ok", f"known for all {len(config.models)} models (table of {table.as_of})")


def embedding_model(folder: Path = SHIPPED) -> Check:
    """Are the files of the sentence model the ones that were released?"""
    try:
        manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
        for name, expected in manifest.files.items():
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                    return Check("embedding model", "fail", f"{name} is altered", "install headgate again")
    except (OSError, msgspec.DecodeError) as error:
        return Check("embedding model", "fail", str(error), "install headgate again")
    return Check("embedding model", "ok", f"{manifest.name} is as released")


def port(host: str, number: int) -> Check:
    """Is the port free?"""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except OSError as error:
            advice = "if that is not headgate itself, choose another with --port"
            return Check("port", "warn", f"{host}:{number}: {error.strerror}", advice)
    return Check("port", "ok", f"{host}:{number} is free")
