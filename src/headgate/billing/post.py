"""Post: what all HTTP sinks share. How an answer is read, and how the culprit in a refused batch is found.

2xx                         delivered
401 403 404 405 407 408 409 425 429, 3xx, 5xx, no answer
                            again: not about this event, or it may pass; a wrong key or address must not park every row
any other 4xx               refused: the same bytes would be refused again
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from headgate.billing.billing import DELIVERED, Event, Outcome
from headgate.model.errors import GatewayError

PASSING = frozenset({401, 403, 404, 405, 407, 408, 409, 425, 429})
"""Statuses below 500 that are not about the event."""
LONGEST_REASON = 300


class Answer(msgspec.Struct, frozen=True):
    """A whole HTTP answer; `retry_after` in seconds if the sink asked for a wait."""

    status: int
    body: bytes = b""
    retry_after: float | None = None


Post = Callable[[bytes, Mapping[str, str]], Awaitable[Answer]]
"""Sends a body with further headers to the one URL of a sink. Raises GatewayError when no answer came."""

Send = Callable[[Sequence[Event]], Awaitable[Outcome]]


async def posted(
    post: Post, body: bytes, headers: Mapping[str, str] | None = None, *, known: Callable[[Answer], bool] | None = None
) -> Outcome:
    """Send a body and judge the answer. `known` tells an answer that says the sink has had this event before."""
    try:
        answer = await post(body, headers or {})
    except GatewayError as error:
        return Outcome("again", error.message, error.retry_after)
    if 200 <= answer.status < 300 or (known is not None and known(answer)):
        return DELIVERED
    reason = _reason(answer)
    if answer.status >= 500 or answer.status < 400 or answer.status in PASSING:
        return Outcome("again", reason, answer.retry_after)
    return Outcome("refused", reason)


async def one_by_one(events: Sequence[Event], send: Send) -> tuple[Outcome, ...]:
    """Each event in a delivery of its own, until one must be sent again."""
    outcomes: list[Outcome] = []
    for event in events:
        outcomes.append(await send([event]))
        if outcomes[-1].verdict == "again":
            break
    return _filled(outcomes, len(events))


async def halved(events: Sequence[Event], send: Send) -> tuple[Outcome, ...]:
    """All events in one delivery. One that is refused is sent in halves, down to the events that are to blame.

    Binary search, for few of a hundred are to blame: k of n cost about 2 k log2(n / k) deliveries.
    """
    outcome = await send(events)
    if outcome.verdict != "refused" or len(events) == 1:
        return (outcome,) * len(events)
    middle = len(events) // 2
    first = await halved(events[:middle], send)
    if first[-1].verdict == "again":
        return _filled(first, len(events))
    return (*first, *await halved(events[middle:], send))


def _filled(outcomes: Sequence[Outcome], count: int) -> tuple[Outcome, ...]:
    """The outcomes, and for the events that were not sent any more the last one's."""
    return (*outcomes, *[outcomes[-1]] * (count - len(outcomes)))


def _reason(answer: Answer) -> str:
    text = answer.body[: 4 * LONGEST_REASON].decode("utf-8", "replace")
    words = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return f"{answer.status}: {words[:LONGEST_REASON]}" if words else str(answer.status)
