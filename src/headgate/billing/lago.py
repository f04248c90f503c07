"""Lago: usage events, at most 100 in one POST.

https://getlago.com/docs/api-reference/events/batch. `transaction_id` is what Lago knows an event by. A batch with one event that
it knows already, or cannot take, is answered with 422 and taken in as a whole or not at all; a single event that it knows
is answered with 422 too, which says that it is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import msgspec

from headgate.billing.billing import BILLED, Delivery, Event, Line, Outcome, Value, described, measured
from headgate.billing.post import Answer, Post, halved, posted

URL = "https://api.getlago.com"
PATH = "/api/v1/events/batch"
BATCH = 100
NANO_PER_CENT = 10**7

_encode = msgspec.json.Encoder().encode


class Lago:
    """Events of one billable metric. The subscription is the tenant's customer name, else its id."""

    kinds = BILLED
    batch = BATCH

    def __init__(self, post: Post, *, event: str, value: Value = "usd", remembers: float | None = None) -> None:
        """`event` is the metric's code."""
        self._post = post
        self._event = event
        self._value = value
        self.remembers = remembers

    def render(self, line: Line, id: str, customer: str | None) -> bytes | None:
        """One event."""
        value = measured(line, self._value)
        if value is None:
            return None
        return _encode(
            {
                "transaction_id": id,
                "external_subscription_id": customer or line.tenant,
                "code": self._event,
                "timestamp": line.seconds,
                "precise_total_amount_cents": f"{Decimal(line.billed) / NANO_PER_CENT:f}",
                "properties": described(line, value),
            }
        )

    async def deliver(self, events: Sequence[Event], mark: int) -> Delivery:
        """One POST for all."""
        return Delivery(await halved(events, self._send), mark)

    async def _send(self, events: Sequence[Event]) -> Outcome:
        body = b'{"events":[' + b",".join(event.body or b"" for event in events) + b"]}"
        return await posted(self._post, body, known=_is_known if len(events) == 1 else None)


def _is_known(answer: Answer) -> bool:
    """Lago has this transaction already."""
    return answer.status == 422 and b"value_already_exist" in answer.body
