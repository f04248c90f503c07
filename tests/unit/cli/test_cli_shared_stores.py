"""Commands beside stores that processes share: each reads and writes the place that servers use, and says in one line what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import headgate as package
from headgate.model.money import NANO_PER_USD
from headgate.stores import Stores
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer
from tests.unit.cli.conftest import UNSET, Headgate, printed
from tests.unit.cli.shared import Shared, keep

Made = Callable[..., Shared]


@pytest.fixture
def shared(tmp_path: Path, headgate: Headgate) -> Made:
    """Makes the configuration of a test."""
    return lambda **config: Shared(tmp_path, headgate, **config)


@pytest.fixture(params=["postgres", "redis", "both"])
def stores(request: pytest.FixtureRequest, shared: Made) -> Shared:
    """Each way in which stores are shared."""
    said: dict[str, Any] = {}
    if request.param != "redis":
        said["storage"] = {"url": request.getfixturevalue("database_url")}
    if request.param != "postgres":
        said["redis"] = {"url": request.getfixturevalue("redis_url")}
    return shared(**said)


def test_what_commands_write_they_read_again_wherever_it_lies(stores: Shared) -> None:
    id = printed(stores.run("tenants", "create", "acme", "--hour", "5.00", "--json"))["id"]
    assert printed(stores.run("keys", "create", "acme", "--json"))["tenant"] == id
    assert [row["tenant"] for row in printed(stores.run("keys", "list", "--json"))] == [id]
    assert "acme" in stores.run("tenants", "list").stdout
    stores.run("organisations", "set", "corp")
    assert "corp" in stores.run("organisations", "list").stdout
    stores.run("budgets", "set", "acme", "--day", "7")
    assert "7.00" in stores.run("budgets", "show", "acme").stdout
    stores.run("prices", "show")
    assert stores.run("usage").stdout == "no usage yet\n"
    assert stores.run("billing", "status").stdout == "no sink was told anything yet\n"
    assert stores.run("route", "export").stdout == ""
    assert "nothing in stock yet" in stores.run("cache", "stats").stdout
    asked = ("route", "explain", "Hello?", "--model", "sim-small", "--tenant", "acme", "--json")
    assert printed(stores.run(*asked))["model"] == "sim-small"


def test_what_servers_elsewhere_wrote_into_postgres_is_found(shared: Made, database_url: str) -> None:
    one = shared(storage={"url": database_url})
    id = printed(one.run("tenants", "create", "acme", "--hour", "5.00", "--json"))["id"]
    one.spend(id, NANO_PER_USD // 4)
    one.outcome("call")
    (row,) = printed(one.run("usage", "--json"))["data"]
    assert (row["tenant"], row["requests"]) == (id, 1)
    hour = next(line for line in one.run("budgets", "show", "acme").stdout.splitlines() if " hour " in line)
    assert hour.split()[5:8] == ["0.25", "0.00", "4.75"]
    assert json.loads(one.run("route", "export").stdout)["id"] == "call"


def test_answers_that_processes_share_are_seen_and_taken_out_without_asking_any(shared: Made, redis_url: str) -> None:
    one = shared(redis={"url": redis_url})
    id = printed(one.run("tenants", "create", "acme", "--json"))["id"]
    one.answer(id, "one", "two")
    assert [(row["name"], row["entries"]) for row in printed(one.run("cache", "stats", "--json"))["tenants"]] == [
        ("acme", 2)
    ]
    assert one.run("cache", "invalidate", "acme", "--entry", "one").stdout == "1 removed\n"
    assert one.run("cache", "invalidate", "acme", "--all").stdout == "1 removed\n"
    assert printed(one.run("cache", "stats", "--json"))["entries"] == 0


def test_without_redis_the_first_process_of_a_directory_keeps_its_stock_and_is_asked(
    shared: Made, database_url: str
) -> None:
    one = shared(storage={"url": database_url})
    id = printed(one.run("tenants", "create", "acme", "--json"))["id"]
    data = Path("headgate-data")
    data.mkdir(exist_ok=True)

    def command(*args: str) -> subprocess.CompletedProcess[str]:
        return run("", *args, "--config", str(one.path))

    async def first(stores: Stores) -> None:
        await keep(stores, id, "one")
        assert "HEADGATE_ADMIN_KEY" in command("cache", "stats").stderr

    one.serving(first, data)
    assert printed(one.run("cache", "stats", "--json"))["entries"] == 1


def run(before: str, *args: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, after `before` was done in it."""
    source = str(Path(package.__file__).parents[1])
    lines = f"import sys; sys.path.insert(0, {source!r}); {before}\nfrom headgate.cli.main import main; main()"
    environ = {name: value for name, value in os.environ.items() if name not in UNSET}
    command = [sys.executable, "-c", lines, *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environ)


@pytest.mark.parametrize(
    ("library", "extra", "config"),
    [
        ("psycopg", "postgres", "storage: {url: 'postgresql://u:deep-secret@127.0.0.1:9/x'}"),
        ("redis.asyncio", "redis", "redis: {url: 'redis://:deep-secret@127.0.0.1:9'}"),
    ],
)
@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("cache", "stats"), ("doctor",)])
def test_a_library_that_is_not_installed_is_named_with_what_brings_it(
    tmp_path: Path, library: str, extra: str, config: str, command: tuple[str, ...]
) -> None:
    path = tmp_path / "headgate.yaml"
    path.write_text(config)
    found = run(f"sys.modules[{library!r}] = None", *command, "--config", str(path), "--data", str(tmp_path / "data"))
    assert found.returncode == 1
    told = found.stdout + found.stderr
    assert f"pip install 'headgate[{extra}]'" in told
    assert "Traceback" not in told
    assert "deep-secret" not in told


def test_a_store_that_is_not_configured_needs_no_library(tmp_path: Path, redis_url: str) -> None:
    path = tmp_path / "headgate.yaml"
    path.write_text(f"redis: {{url: '{redis_url}'}}")
    found = run("sys.modules['psycopg'] = None", "cache", "stats", "--config", str(path), "--data", str(tmp_path))
    assert found.returncode == 0, found.stderr
    path.write_text("{}")
    both = "sys.modules['psycopg'] = sys.modules['redis.asyncio'] = None"
    assert run(both, "cache", "stats", "--config", str(path), "--data", str(tmp_path)).returncode == 0


def refused(one: Shared, *command: str) -> str:
    """The one line that a command ends with."""
    told = one.run(*command, code=1)
    assert told.stdout == ""
    (line,) = told.stderr.splitlines()
    assert line.startswith("error: ")
    assert "deep-secret" not in line
    return str(line)


SERVE = ("serve", "--port", "0")
EVERY = [SERVE, ("tenants", "list"), ("usage",), ("cache", "stats"), ("route", "export"), ("billing", "status")]


@pytest.mark.parametrize("command", EVERY, ids=lambda words: words[0])
def test_a_postgres_that_does_not_answer_is_one_line(
    tmp_path: Path, headgate: Headgate, command: tuple[str, ...]
) -> None:
    path = tmp_path / "shared.yaml"
    path.write_text("storage: {url: 'postgresql://headgate:deep-secret@127.0.0.1:9/headgate'}")
    told = headgate(*command, "--config", str(path), code=1)
    (line,) = told.stderr.splitlines()
    assert line.startswith("error: PostgreSQL does not answer")
    assert line.endswith("Look whether it runs, and at `storage.url`.")
    assert "deep-secret" not in told.output


@pytest.mark.parametrize("command", EVERY, ids=lambda words: words[0])
def test_a_database_that_is_not_prepared_is_one_line(
    tmp_path: Path, headgate: Headgate, database_url: str, command: tuple[str, ...]
) -> None:
    path = tmp_path / "shared.yaml"
    path.write_text(f"storage: {{url: '{database_url}'}}")
    (line,) = headgate(*command, "--config", str(path), code=1).stderr.splitlines()
    assert line.startswith("error: The database is not prepared for this version (")
    assert "`headgate migrate`" in line


def test_who_may_not_enter_a_database_is_told_what_to_correct(
    tmp_path: Path, headgate: Headgate, postgres_server: PostgresServer
) -> None:
    path = tmp_path / "shared.yaml"
    path.write_text(f"storage: {{url: 'postgresql://nobody:deep-secret@127.0.0.1:{postgres_server.port}/none'}}")
    (line,) = headgate("tenants", "list", "--config", str(path), code=1).stderr.splitlines()
    assert "`storage.url`" in line
    assert "deep-secret" not in line


@pytest.mark.parametrize("command", [SERVE, ("cache", "stats"), ("cache", "invalidate", "default", "--all")])
def test_a_redis_that_does_not_answer_is_one_line(shared: Made, command: tuple[str, ...]) -> None:
    line = refused(shared(redis={"url": "redis://:deep-secret@127.0.0.1:9/0"}), *command)
    assert "Redis does not answer" in line
    assert "`redis.url`" in line


def test_a_redis_that_wants_another_password_is_one_line(shared: Made) -> None:
    with RedisServer() as server:
        server.command("CONFIG", "SET", "requirepass", "another")
        one = shared(redis={"url": f"redis://:deep-secret@127.0.0.1:{server.port}/0"})
        assert "it does not accept our password" in refused(one, *SERVE)


def test_a_redis_that_may_forget_budgets_is_one_line(shared: Made, database_url: str) -> None:
    with RedisServer(maxmemory="20mb", maxmemory_policy="allkeys-lru") as server:
        line = refused(shared(storage={"url": database_url}, redis={"url": server.url}), *SERVE)
    assert "maxmemory-policy is allkeys-lru" in line
    assert "redis: {evictable: true}" in line


def test_a_cluster_must_be_called_one(shared: Made, redis_cluster: Any) -> None:
    assert "set `redis.cluster` to true" in refused(shared(redis={"url": redis_cluster.url}), *SERVE)


def test_what_is_no_cluster_must_not_be_called_one(shared: Made, redis_url: str) -> None:
    assert "`redis.cluster`" in refused(shared(redis={"url": redis_url, "cluster": True}), *SERVE)
