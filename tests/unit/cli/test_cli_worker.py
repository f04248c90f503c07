"""`headgate worker`: when it may run, and what it does with the gateways' configuration."""

from __future__ import annotations

from pathlib import Path

from headgate.cli.worker import works
from headgate.config_file import parse_config
from tests.unit.cli.conftest import Headgate

SHARED = "{storage: {url: 'postgresql://headgate@localhost/headgate'}, inference: {workers: elsewhere, at_work: 5}}"


def test_with_sqlite_there_is_no_worker_beside_a_gateway(headgate: Headgate) -> None:
    told = headgate("worker", code=2).stderr
    assert told.startswith("error: a worker shares a PostgreSQL with the gateway")


def test_a_worker_works_whatever_it_has_gateways_do() -> None:
    config = parse_config(SHARED, env={})
    assert (works(config).inference.workers, works(config).inference.at_work) == ("here", 5)
    assert works(config).answered_at("http://127.0.0.1:9").inference.workers == "here"
    assert config.inference.workers == "elsewhere"


def test_a_gateway_without_workers_and_without_a_shared_store_is_refused(headgate: Headgate, tmp_path: Path) -> None:
    path = tmp_path / "alone.yaml"
    path.write_text("inference: {workers: elsewhere}")
    assert "inference.workers" in headgate("serve", "--config", str(path), code=2).stderr
