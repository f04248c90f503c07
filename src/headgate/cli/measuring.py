"""What the commands that measure the cache share: their file, where they write to, and what they say when a part of it fails."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click

import headgate.cache.learning
from headgate.cache.tiers import Cache

file_argument = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
seed_option = click.option("--seed", default="", help="Any text; another one draws other hits to be checked.")


class NewFile(click.Path):
    """A file to be written, in a folder that exists."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Tell before anything is measured that it cannot be written."""
        super().convert(value, param, ctx)
        path = Path(value)
        if not path.parent.is_dir():
            self.fail(f"there is no folder {str(path.parent)!r}", param, ctx)
        return path


@asynccontextmanager
async def measuring(caches: Sequence[Cache]) -> AsyncIterator[None]:
    """Let go of the caches in the end, and say it when a part of them did not work: a cache fails open, so the figures would only be
    low. What learning says in the log is for those who run a gateway."""
    learning = logging.getLogger(headgate.cache.learning.__name__)
    said, learning.disabled = learning.disabled, True
    try:
        yield
    finally:
        learning.disabled = said
        failed = Counter[str]()
        for cache in caches:
            await cache.close()
            failed.update({part: int(count) for (part, *_), count in cache.failures().items() if count})
        if failed:
            told = ", ".join(f"{part} {count} times" for part, count in failed.items())
            click.echo(f"warning: parts of the cache failed, so the figures are too low: {told}", err=True)
