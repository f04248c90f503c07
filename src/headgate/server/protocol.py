"""uvicorn's HTTP protocol with two manners of ours: bounded headers, and errors in OpenAI's shape even where the request is so
broken that no application sees it (two Content-Lengths, garbage, an unfinished line)."""

from __future__ import annotations

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from headgate.model.errors import InvalidRequest

MOST_HEADERS = 100
MOST_HEADER_BYTES = 65_536


class BoundedHttp(HttpToolsProtocol):
    """One connection."""

    def on_message_begin(self) -> None:
        """A request starts: nothing of its headers has been seen."""
        super().on_message_begin()
        self._header_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, unless there are too many."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MOST_HEADER_BYTES or len(self.headers) >= MOST_HEADERS:
            raise httptools.HttpParserError("too many headers")
        super().on_header(name, value)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, and close."""
        error = InvalidRequest(
            f"{msg.rstrip('.')}: the request line, its headers (at most {MOST_HEADERS}, {MOST_HEADER_BYTES} bytes) or its "
            "Content-Length are malformed."
        )
        body = msgspec.json.encode(error.body())
        head = (
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        )
        self.transport.write(head % len(body) + body)
        self.transport.close()
