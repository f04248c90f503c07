"""`headgate serve`: run the gateway, and say what a newcomer must know."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headgate.cli.options import config_option, data_option
from headgate.config import Config
from headgate.config_file import find_config
from headgate.config_storage import masked
from headgate.model.tenancy import DEFAULT_TENANT

if TYPE_CHECKING:
    from headgate.server.serve import Announce, Build

host_option = click.option("--host", help="Address to listen on; 0.0.0.0 for all. Default: server.host, 127.0.0.1.")
port_option = click.option(
    "--port", type=click.IntRange(0, 65_535), help="Port to listen on. Default: server.port, 8000."
)


@click.command()
@config_option
@data_option
@host_option
@port_option
def serve(config_path: Path | None, data: Path, host: str | None, port: int | None) -> int:
    """Run the gateway.

    Without a configuration file the providers are those whose OPENAI_API_KEY or ANTHROPIC_API_KEY is set;
    without any, a built-in simulated one answers. Tenants, keys and the ledger lie in the data directory.

    At the first start the admin key is printed once; HEADGATE_ADMIN_KEY sets one of your own.

    \b
    Examples:
      headgate serve
      OPENAI_API_KEY=sk-... headgate serve --port 9000
      headgate serve --config production.yaml --host 0.0.0.0 --data /var/lib/headgate
    """
    configured = find_config(config_path, os.environ)
    from headgate.server.serve import build_app  # late: a wrong configuration is told without loading the server

    def announce(url: str, admin_key: str | None) -> None:
        click.echo("\n".join(greeting(configured, url, admin_key)))

    return listen(configured, build_app, data=data, host=host, port=port, announce=announce)


def listen(
    configured: Config, build: Build, *, data: Path, host: str | None, port: int | None, announce: Announce
) -> int:
    """Run the engine of a configuration and what `build` makes of it until a signal comes; the exit code. Raises ClickException when
    the port is taken."""
    from headgate.server.serve import run

    host = configured.server.host if host is None else host
    port = configured.server.port if port is None else port
    try:
        return run(lambda: with_answers(configured), build, data=data, host=host, port=port, announce=announce)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise click.ClickException(f"port {port} of {host} is in use; choose another with --port") from None
        raise


@asynccontextmanager
async def with_answers(configured: Config) -> AsyncIterator[Config]:
    """The configuration as it is, or with a simulated provider of our own while it names none. Raises OSError."""
    if not configured.simulated:
        yield configured
        return
    from headgate.simulator.simulator import Simulator  # late: who has providers needs none

    async with Simulator().serve() as running:
        yield configured.answered_at(running.url)


def greeting(configured: Config, url: str, admin_key: str | None) -> list[str]:
    """What is printed once the gateway listens at `url`; `admin_key` is None unless it was made just now."""
    lines = []
    if configured.simulated:
        lines.append(
            "No provider is configured: a simulated one answers, as sim-small and sim-large. Set OPENAI_API_KEY or"
            " ANTHROPIC_API_KEY, or write a headgate.yaml, for real models."
        )
    lines += [f"Headgate listens at {url} (base URL for OpenAI clients: {url}/v1)", f"API reference: {url}/docs"]
    lines += shared_stores(configured)
    if admin_key is not None:
        body = json.dumps({"tenant": DEFAULT_TENANT})
        lines += [
            f"Admin key, shown only now: {admin_key}",
            "Make a key for your application with it:",
            f"  curl {url}/admin/keys -H 'Authorization: Bearer {admin_key}' -H 'Content-Type: application/json' -d '{body}'",
        ]
    return lines


def shared_stores(configured: Config) -> list[str]:
    """What lies where, without passwords; nothing to say while all of it lies in files of one process."""
    postgres, redis = configured.storage.postgres, configured.redis
    if postgres is None and redis is None:
        return []
    lasting = "the data directory" if postgres is None else masked(configured.storage.url)
    quick = "each process by itself" if redis is None else masked(redis.url)
    both = postgres is not None and redis is not None
    kept = "Tenants, keys, jobs and the journal" if both else "Tenants, keys, jobs, budgets and the journal"
    counted = "budgets, rates, answers and flights" if both else "rates, answers and flights"
    return [f"{kept}: {lasting}; {counted}: {quick}"]
