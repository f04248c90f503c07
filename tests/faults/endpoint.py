"""An endpoint that tenants' bills are told to: it knows every event by its id, and that one id always says the same."""

from __future__ import annotations

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from headgate.model.money import from_usd


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Whoever calls is killed now and then."""


class Endpoint:
    """Takes OpenMeter's events at `/api/v1/events` and a webhook's at `/hook`, while the context is open."""

    def __init__(self) -> None:
        self.taken: dict[str, dict[str, Any]] = {"meter": {}, "hook": {}}
        self.repeats: Counter[str] = Counter()
        self.contradictions: list[str] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if self.path == "/hook":
                    endpoint.take("hook", [body])
                else:
                    endpoint.take("meter", body)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def take(self, sink: str, events: list[dict[str, Any]]) -> None:
        for event in events:
            known = self.taken[sink].setdefault(event["id"], event)
            self.repeats[sink] += known is not event
            if known != event:
                self.contradictions.append(event["id"])

    def sum(self, sink: str) -> int:
        """Nano-USD of all events, each counted once."""
        events = list(self.taken[sink].values())
        if sink == "meter":
            return sum(int(event["data"]["value"]) for event in events)
        return sum(from_usd(event["data"]["billed_usd"]) for event in events)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
