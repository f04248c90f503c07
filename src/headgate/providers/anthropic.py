"""Anthropic's Messages API, spoken as if it were OpenAI's chat API.

The translation itself is in `anthropic_request` and `anthropic_events`; here is the conversation over HTTP.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncGenerator, Callable
from urllib.parse import urlsplit

from headgate.model.chat import ChatRequest, Event, Json
from headgate.model.clearance import Clearance
from headgate.model.deployment import Deployment
from headgate.model.errors import Unable, UpstreamError
from headgate.providers import anthropic_events
from headgate.providers.anthropic_request import translate
from headgate.providers.egress import Lookup, look_up
from headgate.providers.endpoint import Endpoint, EventReader, Upstream, is_event_stream
from headgate.providers.usage import from_anthropic

VERSION = "2023-06-01"


class Anthropic:
    """A Provider over Anthropic's HTTP API. The base URL may end in `/v1` or leave it out."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        version: str = VERSION,
        tls: ssl.SSLContext | None = None,
        lookup: Lookup = look_up,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`version` is sent as `anthropic-version`. Raises ValueError when the endpoint cannot be used."""
        headers = {"anthropic-version": version}
        if endpoint.api_key is not None:
            headers["x-api-key"] = endpoint.api_key
        path = urlsplit(endpoint.base_url).path.rstrip("/").removesuffix("/v1")
        self._upstream = Upstream(endpoint, headers=headers, path=path, tls=tls, lookup=lookup, clock=clock)

    async def send(
        self, deployment: Deployment, request: ChatRequest, clearance: Clearance, *, timeout: float
    ) -> AsyncGenerator[Event, None]:
        """See Provider."""
        asked = translate(deployment, request, limit=clearance.limit)
        broken = self._upstream.malformed
        with await self._upstream.ask("/v1/messages", asked.body, clearance, timeout=timeout) as answer:
            if request.stream and is_event_stream(answer):
                stream = anthropic_events.Stream(answer_tool=asked.answer_tool, broken=broken)
                reader = EventReader(answer)
                try:
                    while stream.done is None and (batch := await reader.batch()) is not None:
                        for event in batch:
                            delta = stream.take(self._upstream.decoded(event.data))
                            if delta is not None:
                                yield delta
                    done = stream.end()
                except BaseException:
                    clearance.told = stream.told(self._upstream.readable(reader.unread))
                    raise
                answer.finish()
                yield done
            else:
                message = await self._upstream.whole(answer)
                try:
                    whole = anthropic_events.whole(message, answer_tool=asked.answer_tool, broken=broken)
                except UpstreamError:
                    clearance.told = from_anthropic(message.get("usage"))
                    raise
                answer.finish()
                for part in whole:
                    yield part

    async def embed(self, deployment: Deployment, body: Json, clearance: Clearance, *, timeout: float) -> Json:  # noqa: ARG002 - as in Provider
        """Raises Rejected: Anthropic has no embeddings."""
        raise Unable(f"{self._upstream.name} does not offer embeddings.", status=404, param="model")

    async def close(self) -> None:
        """See Provider."""
        await self._upstream.close()
