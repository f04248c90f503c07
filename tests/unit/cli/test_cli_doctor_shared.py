"""`headgate doctor` with PostgreSQL and Redis: each thing that can be ill is made ill once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from headgate.cli.checks import Check
from headgate.model.money import NANO_PER_USD
from tests.servers.redis import RedisServer
from tests.unit.cli.conftest import Headgate, printed
from tests.unit.cli.shared import Shared


@pytest.fixture
def used(tmp_path: Path, headgate: Headgate, database_url: str) -> Shared:
    """A database with a call in its journal."""
    one = Shared(tmp_path, headgate, storage={"url": database_url})
    one.spend("t_1", NANO_PER_USD // 4)
    return one


def found(one: Shared, *args: str, code: int = 0) -> dict[str, Check]:
    """The findings by name."""
    return {each["name"]: Check(**each) for each in printed(one.run("doctor", "--json", *args, code=code))}


def forged(one: Shared, *statements: str) -> None:
    """Do to the database what its own triggers would never let through."""
    with psycopg.connect(str(one.config.storage.postgres)) as connection:
        connection.execute("SET session_replication_role = replica")
        for statement in statements:
            connection.execute(statement)  # type: ignore[arg-type]


def test_a_journal_in_postgres_is_proven(used: Shared) -> None:
    checks = found(used)
    assert checks["postgresql"].state == "ok"
    assert "prepared for this version" in checks["postgresql"].found
    ledger = checks["ledger"]
    assert ledger.state == "ok"
    assert "each of 1 calls ended once at most" in ledger.found
    assert "5 running sums equal the journal" in ledger.found
    assert not {"redis", "Redis", "spool"} & checks.keys()


def test_a_row_that_was_changed_or_taken_is_found(used: Shared) -> None:
    forged(used, "UPDATE headgate_journal SET amount = amount + 1 WHERE kind = 'settle'")
    ledger = found(used, code=1)["ledger"]
    assert ledger.state == "fail"
    assert "1 are not as they were written and 0 are missing" in ledger.found
    assert ledger.advice.startswith("restore it from a backup")
    forged(used, "DELETE FROM headgate_journal WHERE kind = 'settle'")
    assert "1 are missing" in found(used, code=1)["ledger"].found


def test_a_sum_that_differs_from_the_journal_is_found(used: Shared) -> None:
    forged(used, "UPDATE headgate_spent SET spent = spent + 1 WHERE \"window\" = 'total'")
    ledger = found(used, code=1)["ledger"]
    assert ledger.found == "1 of 5 running sums differ from the journal, which is sound"
    assert "report it" in ledger.advice


def test_steps_that_are_missing_are_told(used: Shared) -> None:
    forged(used, "DELETE FROM headgate_steps WHERE room = 'jobs'")
    told = found(used, code=1)
    assert told["postgresql"].state == "fail"
    assert "(jobs)" in told["postgresql"].found
    assert "headgate migrate" in told["postgresql"].found


def test_a_rebuild_says_that_there_is_nothing_of_it_in_postgres(used: Shared) -> None:
    rebuild = found(used, "--rebuild")["rebuild"]
    assert rebuild.state == "warn"
    assert rebuild.found.startswith("nothing was done")


def test_what_waits_on_disk_for_postgres_is_told(used: Shared) -> None:
    data = Path("headgate-data")
    data.mkdir(exist_ok=True)
    (data / "headgate-spool.db-1.spool").write_text("one\ntwo\n")
    spool = found(used)["spool"]
    assert spool.state == "warn"
    assert spool.found.startswith("2 steps of calls wait in headgate-spool.db-1.spool")


def with_redis(folder: Path, headgate: Headgate, url: str, **more: Any) -> Shared:
    return Shared(folder, headgate, redis={"url": url}, **more)


def test_a_redis_says_what_it_is_and_what_it_is_for(tmp_path: Path, headgate: Headgate, redis_url: str) -> None:
    checks = found(with_redis(tmp_path, headgate, redis_url))
    assert checks["redis"] == Check("redis", "ok", f"at {redis_url}, for rates, answers and flights")
    assert checks["Redis"].state == "ok"
    assert checks["Redis"].found.startswith("8.")
    assert "maxmemory-policy noeviction" in checks["Redis"].found


def test_the_same_redis_for_money_must_not_evict(tmp_path: Path, headgate: Headgate, database_url: str) -> None:
    with RedisServer(maxmemory="20mb", maxmemory_policy="volatile-lru") as server:
        one = with_redis(tmp_path, headgate, server.url, storage={"url": database_url})
        checks = found(one, code=1)
        assert "for budgets, rates" in checks["redis"].found
        assert checks["Redis"].state == "fail"
        assert "volatile-lru, and budgets are counted here" in checks["Redis"].found
        server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        assert found(one)["Redis"].state == "ok"


def test_a_redis_without_vector_sets_is_told(tmp_path: Path, headgate: Headgate, redis7_server: RedisServer) -> None:
    redis = found(with_redis(tmp_path, headgate, redis7_server.url))["redis"]
    assert redis.state == "warn"
    assert "no vector sets" in redis.found


def test_a_cluster_that_one_dead_node_would_stop_is_told(
    tmp_path: Path, headgate: Headgate, redis_cluster: Any, redis_prefix: str
) -> None:
    said = {"url": redis_cluster.url, "cluster": True, "prefix": redis_prefix}
    one = Shared(tmp_path, headgate, redis=said)
    names = [f"Redis 127.0.0.1:{node.port}" for node in redis_cluster.nodes]
    told = one.run("doctor").stdout
    assert all(f"warn  {name}: cluster-require-full-coverage is on -> turn it off" in told for name in names)
    for node in redis_cluster.nodes:
        node.command("CONFIG", "SET", "cluster-require-full-coverage", "no")
    try:
        assert "cluster-require-full-coverage" not in one.run("doctor").stdout
    finally:
        for node in redis_cluster.nodes:
            node.command("CONFIG", "SET", "cluster-require-full-coverage", "yes")


def test_stores_that_do_not_answer_are_findings_without_passwords(tmp_path: Path, headgate: Headgate) -> None:
    path = tmp_path / "shared.yaml"
    path.write_text(
        "storage: {url: 'postgresql://u:deep-secret@127.0.0.1:9/x'}\nredis: {url: 'redis://:deep-secret@127.0.0.1:9'}"
    )
    told = headgate("doctor", "--config", str(path), code=1)
    assert "fail  postgresql: PostgreSQL does not answer" in told.stdout
    assert "fail  redis: Redis does not answer" in told.stdout
    assert told.stderr == ""
    assert "deep-secret" not in told.output
