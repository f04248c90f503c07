"""The demo's processes: two simulated providers and a gateway, each started as a user would start it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from urllib.request import Request, urlopen

import msgspec

START_SECONDS = 20.0
STOP_SECONDS = 20.0


class ChildError(Exception):
    """A process did not start; the message holds what it last said."""


class Child:
    """A running process that has said where it listens."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url

    @property
    def alive(self) -> bool:
        """Whether it is still running."""
        return self.process.returncode is None

    async def stop(self, number: int = signal.SIGTERM) -> None:
        """Send a signal and wait for the end; kill what does not end by itself."""
        if not self.alive:
            return
        self.process.send_signal(number)
        try:
            await asyncio.wait_for(self.process.wait(), STOP_SECONDS)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


@asynccontextmanager
async def headgate(*arguments: str, says: bytes, log: Path, environ: Mapping[str, str]) -> AsyncIterator[Child]:
    """Run `headgate ARGUMENTS` until the block is left; `says` is in the line that tells its URL. Raises ChildError."""
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "headgate",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **environ},
        )
    said = cast("asyncio.StreamReader", process.stdout)
    child = Child(process, "")
    try:
        child.url = await asyncio.wait_for(_url(said, says), START_SECONDS)
        drain = asyncio.create_task(_drained(said))
        yield child
        await child.stop()
        await drain
    except (TimeoutError, EOFError):
        raise ChildError(f"`headgate {' '.join(arguments)}` did not start:\n{log.read_text()[-2000:]}") from None
    finally:
        if child.alive:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _url(said: asyncio.StreamReader, says: bytes) -> str:
    while line := await said.readline():
        if says in line:
            return next(word for word in line.decode().split() if word.startswith("http://"))
    raise EOFError


async def _drained(said: asyncio.StreamReader) -> None:
    """Read what else it says, so that it never waits for us."""
    while await said.read(65_536):
        pass


async def control(url: str, body: Any = None, *, key: str = "", method: str | None = None) -> Any:
    """A JSON call outside of the replay: statistics, scripts, tenants. Raises OSError (HTTPError) when refused."""
    return await asyncio.to_thread(_control, url, body, key, method or ("GET" if body is None else "POST"))


def _control(url: str, body: Any, key: str, method: str) -> Any:
    encoded = None if body is None else msgspec.json.encode(body)
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    request = Request(url, data=encoded, headers=headers, method=method)  # noqa: S310 - our own children's URLs
    with urlopen(request, timeout=10) as answer:  # noqa: S310
        text = answer.read()
    return msgspec.json.decode(text) if text else None
