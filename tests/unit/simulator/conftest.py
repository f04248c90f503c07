"""A raw HTTP client for the simulator's tests: it sees every byte, broken ones included."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from headgate.simulator.simulator import Running


class Wire:
    """One connection to a running simulator."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, running: Running) -> Wire:
        return cls(*await asyncio.open_connection("127.0.0.1", running.port))

    def post(self, path: str, body: Any, **headers: str) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        self.writer.write(
            f"POST {path} HTTP/1.1\r\nhost: simulator\r\n{named}content-length: {len(raw)}\r\n\r\n".encode() + raw
        )

    async def head(self) -> tuple[int, dict[str, str]]:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), headers

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """One complete answer: status, headers, body."""
        status, headers = await self.head()
        if "content-length" in headers:
            return status, headers, await self.reader.readexactly(int(headers["content-length"]))
        return status, headers, b"".join(await self.chunks())

    async def chunks(self) -> list[bytes]:
        """All chunks of a chunked body, which must end well."""
        found = []
        while size := int(await self.reader.readline(), 16):
            found.append(await self.reader.readexactly(size))
            await self.reader.readexactly(2)
        assert await self.reader.readexactly(2) == b"\r\n"
        return found

    async def rest(self) -> tuple[bytes, bool]:
        """Everything until the end, and whether the end was a reset."""
        received = b""
        try:
            while more := await self.reader.read(65536):
                received += more
        except ConnectionResetError:
            return received, True
        return received, False

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionResetError:
            return


@pytest.fixture
async def connect() -> Any:
    """Opens connections and closes them at the end."""
    opened: list[Wire] = []

    async def open_one(running: Running) -> Wire:
        opened.append(await Wire.to(running))
        return opened[-1]

    yield open_one
    for wire in opened:
        await wire.close()


@pytest.fixture
def ask() -> Callable[..., dict[str, Any]]:
    """Builds the body of a chat completion."""

    def build(question: str = "How do I reset my password?", **more: Any) -> dict[str, Any]:
        return {"model": "any", "messages": [{"role": "user", "content": question}], **more}

    return build
