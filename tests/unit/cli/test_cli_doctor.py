"""`headgate doctor`: each thing that can be ill is made ill once."""

from __future__ import annotations

import asyncio
import random
import shutil
import socket
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from headgate.budget.budget import Entry
from headgate.budget.journal import INSERT, row_of
from headgate.budget.sqlite import SqliteLedger
from headgate.budget.sums import mark_of, write_mark
from headgate.cache.embedders import SHIPPED
from headgate.cli.checks import Check, databases, embedding_model, port
from headgate.cli.reach import reach
from headgate.config_providers import ProviderConfig
from headgate.simulator.simulator import Simulator
from headgate.storage.sqlite import Claim
from tests.unit.cli.conftest import NOON, Headgate, printed, spend

LEDGER = Path("headgate-data/headgate.db")


def found(headgate: Headgate, *args: str, code: int = 0) -> dict[str, Check]:
    """The findings by name."""
    return {each["name"]: Check(**each) for each in printed(headgate("doctor", "--json", *args, code=code))}


def test_a_fresh_machine_is_well(headgate: Headgate) -> None:
    checks = found(headgate)
    assert {name for name, check in checks.items() if check.state == "fail"} == set()
    assert checks["providers"].state == "warn"
    assert "simulated" in checks["providers"].found
    assert checks["embedding model"].state == "ok"
    assert "does not exist yet" in checks["data directory"].found


def used(calls: int = 1) -> None:
    """A ledger with some calls in it."""
    LEDGER.parent.mkdir(exist_ok=True)
    for number in range(calls):
        spend(LEDGER, "t_1", 250_000_000, id=f"call {number}")


def forged(*statements: str) -> None:
    """Do to the ledger what its own triggers would never let through."""
    with closing(sqlite3.connect(LEDGER)) as connection, connection:
        connection.executescript(
            "DROP TRIGGER IF EXISTS journal_is_append_only; DROP TRIGGER IF EXISTS journal_keeps_its_rows"
        )
        for statement in statements:
            connection.execute(statement)


def written(*rows: bytes) -> None:
    """Write rows as the ledger would, whatever they say."""
    with closing(sqlite3.connect(LEDGER)) as connection, connection:
        connection.execute(INSERT, ((b"[%b]" % b",".join(rows)).decode(),))


def test_a_used_ledger_is_checked_against_its_journal(headgate: Headgate) -> None:
    headgate("tenants", "create", "acme")
    used()
    checks = found(headgate)
    assert checks["headgate.db"].found == "sound, in WAL mode"
    assert checks["ledger"] == Check(
        "ledger",
        "ok",
        "all 3 rows are as they were written; each of 1 calls ended once at most and cost only what was held before;"
        " 5 running sums equal the journal",
    )
    lines = headgate("doctor").stdout.splitlines()
    assert "ok    headgate.db: sound, in WAL mode" in lines


def test_a_ledger_that_lies_elsewhere_is_checked_too(headgate: Headgate, tmp_path: Path) -> None:
    Path("headgate.yaml").write_text(f"storage: {{url: 'sqlite:///{tmp_path}/elsewhere/money.db'}}")
    Path("elsewhere").mkdir()
    spend(Path("elsewhere/money.db"), "t_1", 1)
    assert found(headgate)["ledger"].state == "ok"
    assert found(headgate, "--rebuild")["rebuild"].state == "ok"


def test_running_sums_that_differ_are_told_and_rebuilt_from_the_journal(headgate: Headgate) -> None:
    """A checksum that fits does not make a sum right, and sums that are gone are made anew."""
    used(2)
    sound = rows()
    for damage in (
        "UPDATE spent SET spent = '1' WHERE window = 'total'",
        f"UPDATE spent SET spent = '1', checksum = {zlib.crc32(b'total tenant:t_1 1 0 0')} WHERE window = 'total'",
        "DELETE FROM spent",
        "UPDATE folded SET seq = 3",
        "DELETE FROM folded",
    ):
        forged(damage)
        check = found(headgate, code=1)["ledger"]
        assert (check.state, check.advice) == ("fail", "stop the server and run `headgate doctor --rebuild`")
        checks = found(headgate, "--rebuild")
        assert checks["rebuild"].found == "the indexes and 5 running sums were made anew from 6 rows"
        assert checks["ledger"].state == "ok"
        assert rows() == sound
    assert balance() == 500_000_000


def rows() -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(LEDGER)) as connection:
        return connection.execute("SELECT * FROM journal ORDER BY seq").fetchall()


def balance() -> int:
    """What the tenant has spent, as a server that starts now has it."""

    async def read() -> int:
        ledger = SqliteLedger(LEDGER, now=lambda: NOON)
        spent = (await ledger.balance("tenant:t_1", "total")).spent
        await ledger.close()
        return spent

    return asyncio.run(read())


def test_running_sums_that_differ_with_sums_of_their_own_that_fit_are_told_by_number(headgate: Headgate) -> None:
    used()
    with closing(sqlite3.connect(LEDGER)) as connection:
        mark = mark_of(connection)
        (before,) = connection.execute("SELECT checksum FROM spent WHERE window = 'total'").fetchone()
        checksum = zlib.crc32(b"total tenant:t_1 1 0 0")
        connection.execute("UPDATE spent SET spent = '1', checksum = ? WHERE window = 'total'", (checksum,))
        write_mark(connection, msgspec.structs.replace(mark, digest=mark.digest - before + checksum))
        connection.commit()
    check = found(headgate, code=1)["ledger"]
    assert check.found == "1 of 5 running sums differ from the journal, which is sound"


def test_damaged_rows_are_told_and_cannot_be_rebuilt(headgate: Headgate) -> None:
    used(2)
    for damage, count in (
        ("UPDATE journal SET amount = 1 WHERE seq = 2", 1),
        ("DELETE FROM journal WHERE seq >= 5", 3),
    ):
        forged(damage)
        check = found(headgate, code=1)["ledger"]
        assert "the journal is damaged" in check.found
        assert "the first of them row 2" in check.found
        assert check.advice == "restore it from a backup: rows of the journal cannot be made anew"
        before = LEDGER.read_bytes()
        check = found(headgate, "--rebuild", code=1)["rebuild"]
        assert check.state == "fail"
        assert check.found.startswith(
            f"nothing was changed: The ledger is damaged: {count} of its rows, the first of them row 2,"
        )
        assert LEDGER.read_bytes() == before


def test_a_truncated_journal_is_told_though_all_rows_that_are_left_are_sound(headgate: Headgate) -> None:
    used(2)
    forged("DELETE FROM journal WHERE seq > 4")
    check = found(headgate, code=1)["ledger"]
    assert "of 4 rows 0 are not as they were written and 2 are missing, the first of them row 5" in check.found


def test_nothing_is_rebuilt_while_a_server_keeps_the_ledger(headgate: Headgate) -> None:
    used()
    claim = Claim(LEDGER)
    assert "in use by process" in found(headgate, "--rebuild", code=1)["rebuild"].found
    claim.release()
    assert found(headgate, "--rebuild")["rebuild"].state == "ok"


def test_where_there_is_no_ledger_none_is_made(headgate: Headgate) -> None:
    assert found(headgate, "--rebuild", code=1)["rebuild"].state == "fail"
    assert not LEDGER.exists()


def test_a_damaged_index_is_rebuilt(headgate: Headgate) -> None:
    """Rows that an index does not have: as after a crash of the machine, or a bug of whatever copied the file."""
    used(2)
    with closing(sqlite3.connect(LEDGER)) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'settle', 'setle') WHERE name = 'journal_usage'"
        )
    spend(LEDGER, "t_1", 1, id="unseen")
    with closing(sqlite3.connect(LEDGER)) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'setle', 'settle') WHERE name = 'journal_usage'"
        )
    check = found(headgate, code=1)["headgate.db"]
    assert (check.state, check.advice) == ("fail", "stop the server and run `headgate doctor --rebuild`")
    checks = found(headgate, "--rebuild")
    assert (checks["rebuild"].state, checks["headgate.db"].state, checks["ledger"].state) == ("ok", "ok", "ok")


def row(id: str, kind: str, amount: int = 0, attempt: int = 0) -> bytes:
    return row_of(id, kind, NOON, Entry(tenant="t_1", amount=amount), attempt=attempt)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([row("call 0", "lost", 1)], "of 1 calls 1 ended twice and 0"),
        ([row("call 0", "settle", 1, attempt=1)], "of 1 calls 1 ended twice and 0"),
        ([row("unknown", "settle", 1)], "of 2 calls 0 ended twice and 1"),
        ([row("unknown", "charge", 1), row("unknown", "hold", 1)], "of 2 calls 0 ended twice and 1"),
        ([row("unknown", "hold", 5), row("unknown", "lost", 6)], "of 2 calls 0 ended twice and 1"),
        ([row("unknown", "note", 1)], "of 1 calls 0 ended twice and 1"),
    ],
)
def test_a_call_that_ended_twice_or_was_never_held_fails(headgate: Headgate, rows: list[bytes], told: str) -> None:
    used()
    written(*rows)
    check = found(headgate, code=1)["ledger"]
    assert check.found == f"{told} cost what was never held"
    assert "must never happen" in check.advice


@pytest.mark.parametrize(
    "rows",
    [
        [row("refused when it was to be sent", "settle")],
        [row("a", "hold", 5), row("a", "extend", 3, attempt=8), row("a", "lost", 8)],
        [row("dearer than was held", "hold", 5), row("dearer than was held", "settle", 9)],
        [row("open", "hold", 5)],
    ],
)
def test_what_may_happen_is_well(headgate: Headgate, rows: list[bytes]) -> None:
    used()
    written(*rows)
    assert found(headgate)["ledger"].state == "ok"


def test_a_flipped_bit_anywhere_in_the_file_is_noticed_or_changes_nothing(headgate: Headgate) -> None:
    """Seeded. Either a check fails, or all rows and all sums read as they did."""
    used(3)
    told = balance()
    sound = contents(LEDGER)
    intact = LEDGER.read_bytes()
    chance = random.Random(20_261_120)
    noticed = 0
    for _ in range(300):
        flipped = bytearray(intact)
        flipped[chance.randrange(len(intact))] ^= 1 << chance.randrange(8)
        LEDGER.write_bytes(flipped)
        if any(check.state != "ok" for check in databases(LEDGER.parent, LEDGER)):
            noticed += 1
        else:
            assert contents(LEDGER) == sound
    assert noticed > 30
    LEDGER.write_bytes(intact)
    assert balance() == told


def contents(path: Path) -> list[list[tuple[object, ...]]]:
    with closing(sqlite3.connect(path)) as connection:
        return [connection.execute(f"SELECT * FROM {table}").fetchall() for table in ("journal", "spent", "folded")]


def test_a_damaged_database_fails_with_advice(headgate: Headgate) -> None:
    Path("headgate-data").mkdir()
    LEDGER.write_bytes(b"SQLite format 3\x00" + b"\x07" * 8000)
    check = found(headgate, code=1)["headgate.db"]
    assert (check.state, check.advice) == ("fail", "restore it from a backup")


def test_a_wrong_configuration_is_one_failed_line_and_the_rest_is_checked(headgate: Headgate) -> None:
    Path("headgate.yaml").write_text("servr: {}")
    checks = found(headgate, code=1)
    assert checks["configuration"].found == "headgate.yaml:1: servr: unknown key; did you mean server?"
    assert checks["embedding model"].state == "ok"


def test_models_without_a_price_are_named(headgate: Headgate) -> None:
    text = "providers: {openai: {kind: openai, api_key: x}}\nmodels: {gpt-4o: {provider: openai}, home-made: {provider: openai}}"
    Path("headgate.yaml").write_text(text)
    assert found(headgate)["prices"].found == "unknown for home-made"
    Path("headgate.yaml").write_text(text + "\nprices: {openai/home-made: {input: 1, output: 2}}")
    assert found(headgate)["prices"].state == "ok"


def test_a_taken_port_is_a_warning() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        assert port("127.0.0.1", number).state == "warn"
    assert port("127.0.0.1", number).state == "ok"


def test_an_altered_model_file_fails(tmp_path: Path) -> None:
    folder = tmp_path / "minilm"
    shutil.copytree(SHIPPED, folder)
    with (folder / "vocab.txt").open("a") as file:
        file.write("x")
    assert embedding_model(folder) == Check("embedding model", "fail", "vocab.txt is altered", "install headgate again")
    (folder / "manifest.json").unlink()
    assert embedding_model(folder).state == "fail"


def provider(url: str, kind: str = "openai") -> ProviderConfig:
    return ProviderConfig.model_validate({"kind": kind, "base_url": f"{url}/v1", "api_key": "k", "allow_private": True})


async def test_a_provider_that_answers_is_reachable() -> None:
    async with Simulator().serve() as running:
        for kind in ("openai", "anthropic"):
            check = await reach("p", provider(running.url, kind))
            assert (check.name, check.state, check.found) == ("provider p", "ok", "reachable, and accepts the key")


async def test_a_provider_that_is_not_there_fails_with_advice() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        number = gone.getsockname()[1]
    check = await reach("p", provider(f"http://127.0.0.1:{number}"))
    assert (check.state, check.advice) == ("fail", f"check base_url (http://127.0.0.1:{number}/v1) and the network")


async def answered(answer: bytes) -> Check:
    """What is said of a provider that answers so."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        return await reach("p", provider(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))


async def test_what_a_provider_answers_is_told_apart() -> None:
    assert (await answered(b"HTTP/1.1 401 Unauthorized\r\n\r\n")).found == "refuses the api_key (401)"
    assert (await answered(b"HTTP/1.1 503 Sorry\r\n\r\n")).state == "warn"
    assert (await answered(b"HTTP/1.1 404 Not Found\r\n\r\n")).found == "reachable"
    assert (await answered(b"hello\r\n")).found == "the answer is not HTTP"
