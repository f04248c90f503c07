"""`headgate worker`: answer what was submitted, beside gateways that do so no more."""

from __future__ import annotations

import os
from pathlib import Path

import click

from headgate.cli.options import config_option, data_option
from headgate.cli.serve import host_option, listen, port_option, shared_stores
from headgate.config import Config
from headgate.config_file import find_config


@click.command()
@config_option
@data_option
@host_option
@port_option
def worker(config_path: Path | None, data: Path, host: str | None, port: int | None) -> int:
    """Answer submitted requests, and do what else goes on beside calls, such as telling what tenants owe.

    It shares its PostgreSQL, and its configuration file, with the gateways. Of HTTP it speaks /healthz, /readyz and /metrics only. With
    `inference.workers: elsewhere` the gateways leave all submitted requests to workers.

    \b
    Examples:
      headgate worker --config production.yaml
      headgate worker --config production.yaml --host 0.0.0.0 --port 9000 --data /var/lib/headgate
    """
    configured = find_config(config_path, os.environ)
    if configured.storage.postgres is None:
        raise click.UsageError(
            "a worker shares a PostgreSQL with the gateway; with SQLite `headgate serve` does it all"
        )
    from headgate.server.serve import build_front  # late: a wrong configuration is told without loading the server

    def announce(url: str, admin_key: str | None) -> None:
        click.echo(f"Headgate answers submitted requests; its probes are at {url}")
        click.echo("\n".join(shared_stores(configured)))
        if admin_key is not None:
            click.echo(f"Admin key of the gateways, shown only now: {admin_key}")

    return listen(works(configured), build_front, data=data, host=host, port=port, announce=announce)


def works(configured: Config) -> Config:
    """The configuration of a worker, whatever it has gateways do."""
    here = configured.inference.model_copy(update={"workers": "here"})
    return configured.model_copy(update={"inference": here})
