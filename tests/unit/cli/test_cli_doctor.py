"""`headgate doctor`: each thing that can be ill is made ill once."""

from __future__ import annotations

import asyncio
import shutil
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

from headgate.cache.embedders import SHIPPED
from headgate.cli.checks import Check, embedding_model, port
from headgate.cli.ledger_sums import prove
from headgate.cli.reach import reach
from headgate.config_sections import ProviderConfig
from headgate.simulator.simulator import Simulator
from tests.unit.cli.conftest import Headgate, printed, spend

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


def test_a_used_ledger_is_checked_against_its_journal(headgate: Headgate) -> None:
    headgate("tenants", "create", "acme")
    spend(LEDGER, "t_1", 250_000_000)
    checks = found(headgate)
    assert checks["headgate.db"].found == "sound, in WAL mode"
    assert checks["ledger"].state == "ok"
    assert checks["ledger"].found == "each of 1 calls ended once at most; 4 running sums equal the journal"
    lines = headgate("doctor").stdout.splitlines()
    assert "ok    headgate.db: sound, in WAL mode" in lines


def test_a_running_sum_that_differs_from_the_journal_fails(headgate: Headgate) -> None:
    Path("headgate-data").mkdir()
    spend(LEDGER, "t_1", 250_000_000)
    with closing(sqlite3.connect(LEDGER)) as connection, connection:
        assert prove(connection).holds
        connection.execute("UPDATE spent SET nano = '1' WHERE window = 'total'")
    check = found(headgate, code=1)["ledger"]
    assert (check.state, check.found.partition("; ")[2]) == ("fail", "1 of 4 running sums differ from the journal")
    with closing(sqlite3.connect(LEDGER)) as connection, connection:
        connection.execute("DELETE FROM spent")
    assert found(headgate, code=1)["ledger"].state == "fail"


def test_a_call_that_ended_twice_or_was_never_held_fails(headgate: Headgate) -> None:
    Path("headgate-data").mkdir()
    spend(LEDGER, "t_1", 250_000_000)
    columns = "at, tenant, key, route, model, deployment, source, amount, saved, prompt_tokens, completion_tokens"
    columns += ", cached_tokens, cache_write_tokens, reasoning_tokens, estimated, scopes"
    forged = f"INSERT INTO journal (id, kind, {columns}) SELECT ?, ?, {columns} FROM journal WHERE kind = 'hold'"
    with closing(sqlite3.connect(LEDGER)) as connection, connection:
        connection.execute(forged, ("a", "lost"))
        connection.execute(forged, ("unknown", "settle"))
    found_text = found(headgate, code=1)["ledger"].found
    assert found_text.startswith("of 2 calls 1 ended twice and 1 were never held;")


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
