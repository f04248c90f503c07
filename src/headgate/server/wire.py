"""The wire: a Reply as OpenAI's JSON or SSE, and the `x-headgate-*` headers that tell how it was come by."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import msgspec

from headgate.limits.limits import RateState
from headgate.model.chat import Completion
from headgate.model.errors import GatewayError
from headgate.model.money import to_usd
from headgate.reply import Reply
from headgate.routing.route import Decision
from headgate.server.edge import Header, rate_headers

encode = msgspec.json.encode
DONE = b"data: [DONE]\n\n"


def reply_headers(reply: Reply, tokens: RateState | None, *, final: bool) -> list[Header]:
    """How the answer was found. `final`: the answer is whole, so what it cost is known too; `tokens`: how the caller's stand."""
    trail, rate = reply.trail, reply.permit.rate
    headers: list[Header] = [
        (b"x-request-id", reply.id.encode()),
        (b"x-headgate-source", reply.source.encode()),
        (b"x-headgate-cache", trail.cache.encode()),
        (b"x-headgate-overhead-ms", b"%.2f" % (reply.overhead() * 1000)),
        *rate_headers(rate.limit, rate.remaining, rate.reset_seconds),
    ]
    for name, value in (
        (b"x-headgate-model", trail.model),
        (b"x-headgate-deployment", trail.deployment),
        (b"x-headgate-entry", trail.entry),
        (b"x-headgate-cache-reason", trail.cache_reason),
        (b"x-headgate-route-reason", trail.route_reason),
        (b"x-headgate-context", trail.overflow),
    ):
        if value:
            headers.append((name, value.encode("latin-1", "replace")))
    headers.extend(_decided(trail.decision))
    if trail.confidence is not None:
        headers.append((b"x-headgate-confidence", b"%.3f" % trail.confidence))
    if trail.route_confidence is not None:
        headers.append((b"x-headgate-route-confidence", b"%.3f" % trail.route_confidence))
    if len(trail.attempts) > 1 and any(attempt.deployment != trail.deployment for attempt in trail.attempts):
        headers.append((b"x-headgate-fallback", b"true"))
    if trail.limit is not None:
        headers.append((b"x-headgate-output-limit", b"%d" % trail.limit))
    if tokens is not None:
        headers.extend(rate_headers(tokens.limit, tokens.remaining, tokens.reset_seconds, of="tokens"))
    if final:
        headers.append((b"x-headgate-attempts", b"%d" % len(trail.attempts)))
        headers.append((b"x-headgate-cost-usd", to_usd(reply.cost).encode()))
        headers.append((b"x-headgate-saved-usd", to_usd(reply.saved).encode()))
    return headers


def _decided(decision: Decision | None) -> Iterator[Header]:
    """Of a call whose tier a decider chose: what kind of question it seems to be, and who said so."""
    if decision is not None and decision.decider is not None:
        yield b"x-headgate-task", decision.task.encode()
        yield b"x-headgate-intent", decision.intent.encode()
        yield b"x-headgate-complexity", b"%.2f" % decision.complexity
        yield b"x-headgate-tier", decision.tier.encode()
        yield b"x-headgate-decider", decision.decider.encode()


def completion_json(id: str, created: int, completion: Completion) -> bytes:
    """A whole answer as OpenAI's `chat.completion`, with an id of its own."""
    return encode(
        {
            **completion.extra,
            "id": f"chatcmpl-{id}",
            "object": "chat.completion",
            "created": created,
            "model": completion.model,
            "choices": completion.choices,
            "usage": completion.reported,
        }
    )


async def sse(reply: Reply, created: int, *, model: str, include_usage: bool) -> AsyncIterator[bytes]:
    """The answer as OpenAI's chunks: all that there are by now in one piece. An answer that breaks off ends in an error event and
    without `[DONE]`."""
    top = {"id": f"chatcmpl-{reply.id}", "object": "chat.completion.chunk", "created": created, "model": model}
    head = b"data: " + encode(top)[:-1] + b","
    tail = b',"usage":null}\n\n' if include_usage else b"}\n\n"
    between = tail + head
    try:
        async for chunks in reply.chunks():
            yield head + between.join(chunks) + tail
        completion = await reply.completion()
    except GatewayError as error:
        yield b"data: " + encode(error.body()) + b"\n\n"
        return
    if include_usage:
        yield head + b'"choices":[],"usage":' + encode(completion.reported) + b"}\n\n"
    yield b": " + _closing_words(reply) + b"\n\n" + DONE


def _closing_words(reply: Reply) -> bytes:
    """What is only known at the end."""
    return b"headgate source=%s attempts=%d cost-usd=%s saved-usd=%s overhead-ms=%.2f" % (
        reply.source.encode(),
        len(reply.trail.attempts),
        to_usd(reply.cost).encode(),
        to_usd(reply.saved).encode(),
        reply.overhead() * 1000,
    )
