"""Real servers for the tests that ask for them: each is started once, by the first test that does, and ended at the end.

A test that kills a server, freezes it or changes its settings makes one of its own (tests/servers): these are shared.
"""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisCluster, RedisServer


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Redis 8, with vector sets."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis7_server() -> Iterator[RedisServer]:
    """Redis 7, without vector sets."""
    with RedisServer(7) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    """Three masters of Redis 8."""
    with RedisCluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """PostgreSQL 16."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    """PgBouncer in transaction mode before `postgres_server`."""
    with PgBouncer(postgres_server.url) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """`redis_server`, emptied for this test."""
    redis_server.command("FLUSHALL")
    return redis_server.url


@pytest.fixture
def redis_prefix() -> str:
    """What begins the keys of this test alone, on a server that others have written to."""
    return f"{uuid4().hex[:12]}:"


@pytest.fixture
def database_url(postgres_server: PostgresServer) -> Iterator[str]:
    """An empty database of this test alone."""
    url = postgres_server.database()
    yield url
    postgres_server.drop(url)
