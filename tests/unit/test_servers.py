"""The real servers that tests and benchmarks start: what each one promises to whoever asks for it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
import redis
from psycopg import errors
from redis.cluster import RedisCluster as ClusterClient

from tests.servers.packages import ServerMissing, kept, of_lines, of_stanzas
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisCluster, RedisRefused, RedisServer
from tests.servers.server import ServerFailed, free_port

ROOT = Path(__file__).parents[2]


def test_redis_8_keeps_vectors(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command("VADD", "v", "VALUES", 2, 1.0, 0.0, "east")
        client.execute_command("VADD", "v", "VALUES", 2, 0.0, 1.0, "north")
        assert client.execute_command("VSIM", "v", "VALUES", 2, 0.9, 0.1, "COUNT", 1) == [b"east"]


def test_redis_7_knows_no_vectors(redis7_server: RedisServer) -> None:
    assert "redis_version:7." in redis7_server.command("INFO", "server")
    with pytest.raises(RedisRefused, match="unknown command"):
        redis7_server.command("VADD", "v", "VALUES", 1, 1, "east")


def test_every_test_finds_redis_empty(redis_url: str, redis_server: RedisServer, redis_prefix: str) -> None:
    redis_server.command("SET", f"{redis_prefix}k", "v")
    assert redis_server.command("KEYS", "*") == f"{redis_prefix}k"


def test_a_killed_redis_has_what_its_file_has() -> None:
    with RedisServer(appendonly=True) as kept_on_disk, RedisServer() as forgetful:
        for server in (kept_on_disk, forgetful):
            port, pid = server.port, server.pid
            assert server.command("SET", "k", "v") == "OK"
            server.kill()
            with pytest.raises(OSError, match="refused"):
                server.command("PING")
            server.restart()
            assert (server.port, server.pid != pid) == (port, True)
        assert (kept_on_disk.command("GET", "k"), forgetful.command("GET", "k")) == ("v", "")


def test_a_frozen_redis_answers_when_it_goes_on() -> None:
    with RedisServer() as server, redis.Redis.from_url(server.url, socket_timeout=0.1, retry=None) as client:
        assert client.ping()
        server.stop_the_world()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        server.go_on()
        assert server.command("PING") == "PONG"


def test_settings_are_those_of_redis_conf() -> None:
    with RedisServer(maxmemory="3mb", maxmemory_policy="noeviction") as server:
        assert server.command("CONFIG", "GET", "maxmemory") == f"maxmemory\n{3 << 20}"
        with pytest.raises(RedisRefused, match="OOM"):
            for number in range(100):
                server.command("SET", number, "x" * 100_000)


def test_a_wrong_setting_is_told_with_the_servers_own_words() -> None:
    with pytest.raises(ServerFailed, match="colour"):
        RedisServer(colour="blue")


def test_a_replica_has_its_masters_state() -> None:
    with RedisServer() as master:
        master.command("SET", "k", "v")
        with RedisServer(replicaof=master) as replica:
            assert replica.command("GET", "k") == "v"


def test_a_cluster_has_three_masters_and_refuses_keys_of_two_slots(redis_cluster: RedisCluster) -> None:
    assert redis_cluster.nodes[0].command("CLUSTER", "INFO").count("cluster_size:3") == 1
    with ClusterClient.from_url(redis_cluster.url) as client:
        assert len(client.get_primaries()) == 3
        client.mset_nonatomic({f"k{number}": number for number in range(50)})
    holder = next(node for node in redis_cluster.nodes if _holds(node, "{a}"))
    assert holder.command("MSET", "{a}1", 1, "{a}2", 2) == "OK"
    with pytest.raises(RedisRefused, match="CROSSSLOT"):
        holder.command("MSET", "{a}1", 1, "{b}1", 1)


def test_a_replica_takes_over_from_a_killed_master_of_a_cluster() -> None:
    with RedisCluster(replicas=1, cluster_node_timeout=500) as cluster:
        master, heir = cluster.masters[0], cluster.nodes[3]
        master.kill()
        heir.wait_until(lambda: "role:master" in heir.command("INFO", "replication"), "took over")
        cluster.wait_until_ok()
        master.restart()
        master.wait_until(lambda: "role:slave" in master.command("INFO", "replication"), "follows its heir")


def test_a_database_is_empty_and_its_own(postgres_server: PostgresServer, database_url: str) -> None:
    other = postgres_server.database()
    for url in (database_url, other):
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE t (n int)")
            assert connection.info.server_version // 10_000 == 16
    postgres_server.drop(other)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(other)


def test_a_killed_postgres_has_what_was_committed() -> None:
    with PostgresServer() as server:
        with psycopg.connect(server.url) as connection:
            connection.execute("CREATE TABLE t (n int)")
            connection.execute("INSERT INTO t VALUES (1)")
            connection.commit()
            connection.execute("INSERT INTO t VALUES (2)")
            server.kill()
            with pytest.raises(psycopg.OperationalError):
                connection.commit()
        server.restart()
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT n FROM t").fetchall() == [(1,)]
            assert connection.execute("SHOW fsync").fetchone() == ("on",)


def test_a_frozen_postgres_answers_no_one_it_knows_either() -> None:
    """Each connection is a program of its own there; all of them stop."""
    with PostgresServer() as server, psycopg.connect(server.url, autocommit=True) as connection:
        server.stop_the_world()
        states = {Path(f"/proc/{pid}/stat").read_text().split()[2] for pid in _children(server.pid)}
        assert states == {"T"}
        server.go_on()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_pgbouncer_lends_a_connection_for_a_transaction(pgbouncer: PgBouncer, database_url: str) -> None:
    with psycopg.connect(pgbouncer.through(database_url), prepare_threshold=None) as connection:
        connection.execute("CREATE TABLE t (n int)")
        connection.execute("INSERT INTO t VALUES (%s)", [7])
    with PgBouncer(database_url, size=1) as narrow:
        with psycopg.connect(narrow.url) as first, psycopg.connect(narrow.url) as second:
            assert first.execute("SELECT n FROM t").fetchone() == (7,)
            first.commit()
            assert second.execute("SELECT n FROM t").fetchone() == (7,)


def test_pgbouncer_knows_no_prepared_statements(pgbouncer: PgBouncer) -> None:
    with psycopg.connect(pgbouncer.url, autocommit=True, prepare_threshold=0) as one:
        one.execute("SELECT 1")
        with psycopg.connect(pgbouncer.url, autocommit=True, prepare_threshold=0) as other:
            with pytest.raises(errors.DuplicatePreparedStatement):
                other.execute("SELECT 1")


STARTER = """
import os, signal
from tests.servers.redis import RedisServer
server = RedisServer()
print(server.port, server.folder, flush=True)
os.kill(os.getpid(), signal.{signal})
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_server_ends_with_whoever_started_it(number: signal.Signals) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STARTER.format(signal=number.name)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    port, folder = done.stdout.split()
    deadline = time.monotonic() + 20
    while Path(folder).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(folder).exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)))


def test_a_closed_server_leaves_nothing() -> None:
    server = RedisServer()
    pid = server.pid
    server.close()
    server.close()
    assert not server.folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(ServerFailed, match="does not run"):
        server.pid  # noqa: B018


def test_a_folder_is_kept_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_TEST_CACHE", str(tmp_path))
    filled = []

    def fill(into: Path) -> None:
        filled.append(into)
        into.mkdir()
        (into / "program").touch()
        if len(filled) == 1:
            raise ServerMissing("cut off")

    with pytest.raises(ServerMissing):
        kept("it", fill)
    assert {path.name for path in tmp_path.iterdir()} == {"it.lock"}
    assert [kept("it", fill) for _ in range(3)] == [tmp_path / "it"] * 3
    assert (tmp_path / "it" / "program").exists()
    assert len(filled) == 2


LINES = """
# deb https://mirror.example/debian bookworm main
deb [signed-by=/usr/share/keyrings/one.gpg arch=amd64] https://mirror.example/debian bookworm main contrib
deb https://mirror.example/debian bookworm-updates main
deb-src https://mirror.example/debian bookworm main
deb https://other.example/tools tools-bookworm main
"""

STANZAS = """Types: deb deb-src
# moved last year
URIs: https://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main non-free
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

Types: deb
URIs: https://mirror.example/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: https://old.example/debian
Suites: bookworm
Components: main
"""


def test_packages_come_from_the_machines_own_sources_of_debian() -> None:
    assert of_lines(LINES, "bookworm", "trixie") == [
        "deb [signed-by=/usr/share/keyrings/one.gpg arch=amd64] https://mirror.example/debian trixie main"
    ]
    (stanza,) = of_stanzas(STANZAS, "bookworm", "trixie")
    assert stanza == (
        "Types: deb\nURIs: https://mirror.example/debian\nSuites: trixie\nComponents: main\n"
        "Signed-By: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n"
    )


def test_a_port_is_none_that_a_client_may_be_given() -> None:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert all(not first <= free_port() <= last for _ in range(100))


def _holds(node: RedisServer, key: str) -> bool:
    try:
        node.command("GET", key)
    except RedisRefused:  # it is another node's
        return False
    return True


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
