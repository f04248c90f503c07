"""Endpoint: what a provider's configuration says, and the calls every JSON-over-HTTP provider makes with it.

The invariant: whatever goes wrong comes out as an UpstreamError that names the provider and holds no credential.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from headgate.model.chat import Json
from headgate.model.clearance import Clearance
from headgate.model.errors import Malformed, UpstreamError
from headgate.providers.egress import Lookup, look_up, origin_of
from headgate.providers.failures import classify, complaint, inside_stream
from headgate.providers.http import Answer, Http, Timeouts
from headgate.providers.quotas import quota
from headgate.providers.sse import SseEvent, SseParser

MAX_ERROR_BODY = 65_536
SHORTEST_SECRET = 8
"""Shorter header values are words like `beta`, not secrets, and would be cut out of innocent messages."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One configured provider.

    name           what messages and the configuration call it
    base_url       http or https, without credentials; see docs of the provider for its path
    api_key        None for servers that need none
    headers        sent with every request
    allow_private  whether it may be on a private network or this machine
    timeouts       seconds
    """

    name: str
    base_url: str
    api_key: str | None = None
    headers: Mapping[str, str] = {}
    allow_private: bool = False
    timeouts: Timeouts = Timeouts()

    def __repr__(self) -> str:
        """Without the key and the headers, which may be secrets."""
        return f"Endpoint(name={self.name!r}, base_url={self.base_url!r})"


class Upstream:
    """An endpoint and its connections: sends JSON, gives checked answers."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        headers: Mapping[str, str],
        path: str | None = None,
        tls: ssl.SSLContext | None = None,
        lookup: Lookup = look_up,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`headers` are the provider's own; `path` replaces the base URL's; `clock` is Unix time for dates in headers.

        Raises ValueError when the endpoint's base URL or a header cannot be used.
        """
        try:
            origin = origin_of(endpoint.base_url, allow_private=endpoint.allow_private)
            self._http = Http(
                origin if path is None else msgspec.structs.replace(origin, path=path),
                name=endpoint.name,
                headers={**headers, **endpoint.headers},
                allow_private=endpoint.allow_private,
                timeouts=endpoint.timeouts,
                tls=tls,
                lookup=lookup,
            )
        except ValueError as error:
            raise ValueError(f"Provider {endpoint.name!r}: {error}") from None
        self.name = endpoint.name
        self._clock = clock
        values = [endpoint.api_key or "", *endpoint.headers.values()]
        self._secrets = tuple(value for value in values if len(value) >= SHORTEST_SECRET)

    async def ask(self, path: str, body: Json, clearance: Clearance, *, timeout: float) -> Answer:
        """Send `body`; the answer's status is 2xx. What its head says of limits is written into `clearance`, also when it is a refusal.
        Raises UpstreamError."""
        answer = await self._http.post(path, msgspec.json.encode(body), timeout=timeout)
        clearance.quota = quota(answer.header, self._clock())
        if 200 <= answer.status < 300:
            return answer
        try:
            raise await self._refusal(answer)
        finally:
            answer.close()

    async def _refusal(self, answer: Answer) -> UpstreamError:
        try:
            said = complaint(msgspec.json.decode(await answer.whole(MAX_ERROR_BODY)))
        except (msgspec.DecodeError, UnicodeDecodeError, UpstreamError):
            said = complaint(None)
        return classify(self.name, answer.status, said, header=answer.header, now=self._clock(), secrets=self._secrets)

    async def whole(self, answer: Answer) -> Json:
        """The whole answer as a JSON object. Raises UpstreamError, also when the object is an error."""
        return self.decoded(await answer.whole())

    def decoded(self, text: bytes) -> Json:
        """One JSON object of an answer. Raises Malformed when it is none, and the error that it holds if it holds one."""
        try:
            body: Any = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise self.malformed("sent JSON that cannot be read") from None
        if not isinstance(body, dict):
            raise self.malformed("sent JSON that is not an object")
        if body.get("error"):
            raise inside_stream(self.name, body, secrets=self._secrets)
        return body

    def readable(self, events: Iterable[SseEvent]) -> Iterator[Json]:
        """Those events of a stream that hold a JSON object, and no error."""
        for event in events:
            with contextlib.suppress(UpstreamError):
                yield self.decoded(event.data)

    def malformed(self, what: str) -> Malformed:
        """The error for an answer that breaks the protocol; `what` the provider did."""
        return Malformed(f"{self.name} {what}.")

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()


class EventReader:
    """The server-sent events of one answer."""

    def __init__(self, answer: Answer) -> None:
        """Reads `answer` to its end; closing it stays with the caller."""
        self._answer = answer
        self._parser = SseParser()
        self.unread: Iterator[SseEvent] = iter(())
        """Events that have come and that nobody has taken from their batch."""

    async def batch(self) -> Iterator[SseEvent] | None:
        """The next events, at least one; None at the end. Raises UpstreamError."""
        while chunk := await self._answer.read():
            events = self._parser.feed(chunk)
            if events:
                self.unread = iter(events)
                return self.unread
        return None


def is_event_stream(answer: Answer) -> bool:
    """Whether the answer streams. Some servers give a whole answer although a stream was asked for."""
    kind = (answer.header("content-type") or "text/event-stream").partition(";")[0].strip().lower()
    return kind != "application/json"
