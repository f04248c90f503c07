"""OpenAI's wire format: OpenAI itself and every server that speaks like it (vLLM, Groq, Ollama, Azure's v1, a gateway).

The invariant: what Headgate does not know of the request and of the answer passes through untouched.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any, Literal
from urllib.parse import urlsplit

from headgate.model.chat import ChatRequest, Delta, Done, Event, Json, as_part
from headgate.model.clearance import Clearance
from headgate.model.deployment import Deployment
from headgate.model.money import Usage
from headgate.model.tally import as_reported
from headgate.providers.egress import Lookup, look_up
from headgate.providers.endpoint import Endpoint, EventReader, Upstream, is_event_stream
from headgate.providers.sse import SseEvent
from headgate.providers.usage import normalised

LimitField = Literal["max_tokens", "max_completion_tokens"]

_OURS = frozenset({"id", "object", "created", "model", "choices", "usage", "obfuscation"})
"""Fields of an answer that Headgate reads or replaces; all others are the vendor's own."""


class OpenAI:
    """A Provider over OpenAI's HTTP API. The base URL ends in the version, as `https://api.openai.com/v1`."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        limit_field: LimitField | None = None,
        tls: ssl.SSLContext | None = None,
        lookup: Lookup = look_up,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`limit_field` says how to bound the output when the caller does not; by default what this server knows.

        Raises ValueError when the endpoint cannot be used.
        """
        headers = {} if endpoint.api_key is None else {"authorization": f"Bearer {endpoint.api_key}"}
        self._upstream = Upstream(endpoint, headers=headers, tls=tls, lookup=lookup, clock=clock)
        official = urlsplit(endpoint.base_url).hostname == "api.openai.com"
        self._limit_field = limit_field or ("max_completion_tokens" if official else "max_tokens")

    async def send(
        self, deployment: Deployment, request: ChatRequest, clearance: Clearance, *, timeout: float
    ) -> AsyncGenerator[Event, None]:
        """See Provider."""
        body = chat_body(deployment, request, limit=clearance.limit, limit_field=self._limit_field)
        with await self._upstream.ask("/chat/completions", body, clearance, timeout=timeout) as answer:
            if request.stream and is_event_stream(answer):
                stream = StreamReader(self._upstream, request.choices)
                reader = EventReader(answer)
                try:
                    while stream.done is None and (batch := await reader.batch()) is not None:
                        for event in batch:
                            delta = stream.take(event.data)
                            if delta is not None:
                                yield delta
                    done = stream.end()
                except BaseException:
                    clearance.told = stream.told(reader.unread)
                    raise
                answer.finish()
                yield done
            else:
                body = await self._upstream.whole(answer)
                whole = self._parts(body, clearance)
                answer.finish()
                for part in whole:
                    yield part

    def _parts(self, body: Json, clearance: Clearance) -> tuple[Delta, Done]:
        choices = body.get("choices")
        if not choices or not _readable(choices, "message") or not all(choice.get("message") for choice in choices):
            clearance.told = normalised(body.get("usage"))
            raise self._upstream.malformed("sent an answer without choices that can be read")
        indexed = [{"index": index, **as_part(choice)} for index, choice in enumerate(choices)]
        return Delta(indexed, _extra(body)), _done(body.get("model"), body.get("usage"))

    async def embed(self, deployment: Deployment, body: Json, clearance: Clearance, *, timeout: float) -> Json:
        """See Provider."""
        asked = {**body, "model": deployment.model}
        with await self._upstream.ask("/embeddings", asked, clearance, timeout=timeout) as answer:
            whole = await self._upstream.whole(answer)
            if not _are_objects(whole.get("data")):
                clearance.told = normalised(whole.get("usage"))
                raise self._upstream.malformed("sent an answer without embeddings")
            return whole

    async def close(self) -> None:
        """See Provider."""
        await self._upstream.close()


def chat_body(deployment: Deployment, request: ChatRequest, *, limit: int, limit_field: LimitField) -> Json:
    """The caller's body with the deployment's model, the output limit in the field the caller uses, and usage asked for."""
    body = {**request.body, "model": deployment.model}
    if request.max_completion_tokens is not None:
        limit_field = "max_completion_tokens"
    elif request.max_tokens is not None:
        limit_field = "max_tokens"
    for name in ("max_tokens", "max_completion_tokens", "stream", "stream_options"):
        body.pop(name, None)
    body[limit_field] = limit
    if request.stream:
        body["stream"] = True
        options = request.body.get("stream_options")
        body["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    return body


class StreamReader:
    """Reads one stream of chunks."""

    def __init__(self, upstream: Upstream, choices: int) -> None:
        """`choices` is how many answers were asked for."""
        self._upstream = upstream
        self._choices = choices
        self._finished: set[int] = set()
        self._model: Any = None
        self._usage: Any = None
        self.done: Done | None = None

    def take(self, data: bytes) -> Delta | None:
        """The delta in one event; None when it carries none. Raises UpstreamError."""
        if self.done is not None:
            return None
        if data == b"[DONE]":
            self.done = _done(self._model, self._usage)
            return None
        body = self._upstream.decoded(data)
        self._model = body.get("model") or self._model
        self._usage = body.get("usage") or _groq_usage(body) or self._usage
        choices = body.get("choices")
        if not choices:
            return None
        if not _readable(choices, "delta"):
            raise self._upstream.malformed("sent choices that cannot be read")
        for choice in choices:
            if choice.get("finish_reason") is not None:
                self._finished.add(choice.get("index", 0))
        return Delta(choices, _extra(body))

    def told(self, unread: Iterable[SseEvent]) -> Usage | None:
        """What the provider has said that it used, also in events that came and are not read any more."""
        for body in self._upstream.readable(unread):
            self._usage = body.get("usage") or _groq_usage(body) or self._usage
        return normalised(self._usage)

    def end(self) -> Done:
        """What the stream ended with. Raises Malformed when it stopped before every choice was finished."""
        if self.done is not None:
            return self.done
        if len(self._finished) < self._choices:
            raise self._upstream.malformed("ended its stream before the answer was complete")
        return _done(self._model, self._usage)


def _readable(choices: Any, part: Literal["message", "delta"]) -> bool:
    """Whether the choices have the shape that everything after this relies on."""
    if not _are_objects(choices):
        return False
    for choice in choices:
        message = choice.get(part)
        if type(choice.get("index", 0)) is not int or not isinstance(message, dict | None):
            return False
        calls = message.get("tool_calls") if message else None
        if calls and not (_are_objects(calls) and all(_is_call(call) for call in calls)):
            return False
    return True


def _is_call(call: Json) -> bool:
    return type(call.get("index", 0)) is int and isinstance(call.get("function"), dict | None)


def _done(model: Any, usage: Any) -> Done:
    """The answer's end. Usage in another vendor's shape is told in OpenAI's."""
    normal = normalised(usage)
    reported = None if normal is None else usage if "prompt_tokens" in usage else as_reported(normal)
    return Done(model if isinstance(model, str) else "", normal, reported)


def _extra(body: Json) -> Json:
    return {name: value for name, value in body.items() if name not in _OURS}


def _groq_usage(body: Json) -> Any:
    """Groq's streams give the usage beside its request id."""
    own = body.get("x_groq")
    return own.get("usage") if isinstance(own, dict) else None


def _are_objects(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, dict) for value in values)
