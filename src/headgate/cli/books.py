"""Commands that read and write the data directory itself, also while a server runs on it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from headgate.config_file import find_config

if TYPE_CHECKING:
    from headgate.assembly import Books
    from headgate.tenants.tenants import Tenants

Result = TypeVar("Result")


def with_books(config_path: Path | None, data: Path, work: Callable[[Books], Awaitable[Result]]) -> Result:
    """Open the stores, do the work, close them. Raises ConfigError, GatewayError or OSError."""
    from headgate.assembly import open_books  # late: `--help` of a command needs no store

    configured = find_config(config_path, os.environ)

    async def opened() -> Result:
        async with open_books(configured, data) as books:
            return await work(books)

    return asyncio.run(opened())


async def tenant_names(tenants: Tenants) -> dict[str, str]:
    """The name of each tenant by its id."""
    return {each.id: each.name for each in await tenants.list_tenants()}
