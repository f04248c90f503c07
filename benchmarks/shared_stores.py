"""The stores that replicas share, started for a benchmark as the tests start them, and the configuration that names them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer


@contextlib.contextmanager
def redis() -> Iterator[dict[str, Any]]:
    """A Redis 8 that writes its log once a second; the section `redis`."""
    with RedisServer(appendonly=True, appendfsync="everysec", maxmemory_policy="noeviction") as server:
        yield {"url": server.url}


@contextlib.contextmanager
def postgres() -> Iterator[dict[str, Any]]:
    """A PostgreSQL with an empty database, which flushes each commit to the disk; the section `storage`."""
    with PostgresServer(max_connections=200) as server:
        yield {"url": server.database()}


def migrate(config: Mapping[str, Any], folder: Path) -> None:
    """Prepare the database of a configuration, as an operator does."""
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / "migrate.yaml"
    written.write_text(yaml.safe_dump(dict(config)))
    subprocess.run([sys.executable, "-m", "headgate", "migrate", "--config", written], check=True, capture_output=True)
