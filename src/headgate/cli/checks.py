"""What `headgate doctor` looks at, one function for each question. None changes anything but a scratch file of its own."""

from __future__ import annotations

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
from headgate.budget.proof import Proof, prove, rebuild
from headgate.cache.shipped import MODEL_MANIFEST, SHIPPED, Altered, verified
from headgate.config import Config
from headgate.model.errors import GatewayError

State = Literal["ok", "warn", "fail"]
LITTLE_SPACE = 1024**3
NO_SPACE = 64 * 1024**2
OLDEST_SQLITE = (3, 37, 0)
"""The first with strict tables."""
RESTORE = "restore it from a backup"
REBUILD = "stop the server and run `headgate doctor --rebuild`"


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


def databases(data: Path, ledger: Path) -> Iterator[Check]:
    """Every SQLite file of the data directory and beside the ledger: its mode, its integrity, and what the ledger proves."""
    for path in sorted({*data.glob("*.db"), *ledger.parent.glob(f"{ledger.stem}*{ledger.suffix}")}):
        try:
            with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
                yield from _database(path.name, connection)
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter when SQLite quotes what is damaged
            yield Check(path.name, "fail", str(error), RESTORE)


def _database(name: str, connection: sqlite3.Connection) -> Iterator[Check]:
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    problems = [row[0] for row in connection.execute("PRAGMA integrity_check(10)")]
    if problems != ["ok"]:
        # What is wrong with an index alone is none of the rows' fault.
        advice = REBUILD if all("index" in problem for problem in problems) else RESTORE
        yield Check(name, "fail", f"damaged: {' '.join(problems[0].split())}", advice)
        return
    if mode != "wal":
        yield Check(name, "warn", f"sound, but its journal mode is {mode}", "keep it on a local disk; WAL needs one")
    else:
        yield Check(name, "ok", "sound, in WAL mode")
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'journal'").fetchone():
        yield proven(prove(connection))


def proven(proof: Proof, rebuild: str = REBUILD) -> Check:
    """What a proof of the ledger says, and what can be done where it fails; `rebuild`, where what is derived from the journal is wrong."""
    if not proof.sound:
        found = (
            f"the journal is damaged: of {proof.rows} rows {proof.damaged} are not as they were written and {proof.missing} are"
            f" missing, the first of them row {proof.first}"
        )
        return Check("ledger", "fail", found, f"{RESTORE}: rows of the journal cannot be made anew")
    if proof.ended_twice or proof.unheld:
        found = f"of {proof.calls} calls {proof.ended_twice} ended twice and {proof.unheld} cost what was never held"
        return Check("ledger", "fail", found, "stop the server, keep the file and report it: this must never happen")
    if not proof.legible:
        return Check("ledger", "fail", "the running sums are damaged, the journal is sound", rebuild)
    if proof.unequal:
        found = f"{proof.unequal} of {proof.sums} running sums differ from the journal, which is sound"
        return Check("ledger", "fail", found, rebuild)
    found = (
        f"all {proof.rows} rows are as they were written; each of {proof.calls} calls ended once at most and cost only what was held"
        f" before; {proof.sums} running sums equal the journal"
    )
    return Check("ledger", "ok", found)


def rebuilt(ledger: Path) -> Check:
    """Make anew what is derived from the journal, and say what came of it."""
    if not ledger.exists():
        return Check("rebuild", "fail", f"there is no ledger at {ledger}", "see --data")
    try:
        proof = rebuild(ledger)
    except (GatewayError, OSError, sqlite3.Error) as error:
        return Check("rebuild", "fail", f"nothing was changed: {error}")
    found = f"the indexes and {proof.sums} running sums were made anew from {proof.rows} rows"
    return Check("rebuild", "ok", found)


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
    yield from prices(config)


def prices(config: Config) -> Iterator[Check]:
    """Does every model have a price, also for what the provider has cached?"""
    table = PriceTable.load(
        overrides={path: price.price() for path, price in config.prices.items()},
        models={name: one.price.price() for name, one in config.models.items() if one.price is not None},
    )
    known = {name: table.find(one.provider, one.model or name, name) for name, one in config.models.items()}
    unpriced = sorted(name for name, price in known.items() if price is None)
    if unpriced:
        free = config.budget.unpriced == "allow"
        advice = "give each a price: " + ("they count as free" if free else "tenants with a budget are refused")
        yield Check("prices", "warn", f"unknown for {', '.join(unpriced)}", advice)
    else:
        yield Check("prices", "ok", f"known for all {len(config.models)} models (table of {table.as_of})")
    full = sorted(name for name, price in known.items() if price is not None and price.cached_input is None)
    if full:
        found = f"none for {', '.join(full)}: what their providers have cached is charged as any other token"
        yield Check("cache prices", "ok", found)


def embedding_model(folder: Path = SHIPPED) -> Check:
    """Are the files of the sentence model the ones that were released?"""
    try:
        manifest = verified(folder, MODEL_MANIFEST)
    except (Altered, OSError, msgspec.DecodeError) as error:
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
