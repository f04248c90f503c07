"""Comments that keep a silent stream alive."""

from __future__ import annotations

import asyncio

from headgate.server.edge import Sender
from headgate.server.pulse import COMMENT, Pulse


class Client:
    """What came over, and whether the client reads."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.came = asyncio.Event()
        self.reads = asyncio.Event()
        self.reads.set()

    async def __call__(self, message) -> None:
        self.parts.append(message["body"])
        self.came.set()
        await self.reads.wait()


def sender(client: Client) -> Sender:
    return Sender({}, client, lambda: "id")


async def test_a_stream_that_is_silent_gets_a_comment_and_then_another() -> None:
    client = Client()
    with Pulse(sender(client), seconds=0.001):
        for _ in range(2):
            client.came.clear()
            await client.came.wait()
    assert set(client.parts) == {COMMENT}
    assert len(asyncio.all_tasks()) <= 2


async def test_one_that_speaks_gets_none() -> None:
    client = Client()
    send = sender(client)
    with Pulse(send, seconds=3_600.0) as pulse:
        for _ in range(20):
            await send.part(b"data: 1\n\n")
            pulse.beat()
    assert set(client.parts) == {b"data: 1\n\n"}


async def test_a_client_that_does_not_read_is_sent_one_and_no_more() -> None:
    client = Client()
    client.reads.clear()
    with Pulse(sender(client), seconds=0.001):
        await client.came.wait()
        for _ in range(200):
            await asyncio.sleep(0)
        assert client.parts == [COMMENT]
