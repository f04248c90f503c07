"""The floor of any Python server: uvicorn and one raw ASGI function that reads the request and sends a fixed answer.

It has no key, cache, ledger or upstream. What a server adds to it is what its features cost. Run it with
`python -m benchmarks.bare_asgi --port N --answer-bytes 700`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

import click
import uvicorn

Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]


def answering(body: bytes) -> Callable[[Event, Receive, Send], Awaitable[None]]:
    """An ASGI application that answers every request with `body` as JSON, once it has read the request's own body."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]

    async def application(_: Event, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return application


@click.command()
@click.option("--port", type=int, required=True, help="Port on 127.0.0.1.")
@click.option("--answer-bytes", type=click.IntRange(min=2), required=True, help="Size of the answer's body.")
def serve(port: int, answer_bytes: int) -> None:
    """Serve the fixed answer until stopped."""
    body = b'"' + b"x" * (answer_bytes - 2) + b'"'
    uvicorn.run(
        answering(body),
        port=port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
    )


if __name__ == "__main__":
    serve()
