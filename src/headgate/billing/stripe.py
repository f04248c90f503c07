"""Stripe: billing meter events (API v1), one form-encoded POST for each.

https://docs.stripe.com/api/billing/meter-event/create: `identifier` of at most 100 characters, unique for at least 24 hours;
`timestamp` at most 35 days old and 5 minutes ahead; a value of at most 15 digits. A repeated identifier is answered with 400,
which says that the event is there. No `Idempotency-Key` is sent: Stripe would answer a retry with the first try's 500.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from urllib.parse import urlencode

from headgate.billing.billing import BILLED, Delivery, Event, Line, Outcome, Unbillable, Value, measured
from headgate.billing.post import Answer, Post, one_by_one, posted

URL = "https://api.stripe.com"
PATH = "/v1/billing/meter_events"
MEDIA_TYPE = "application/x-www-form-urlencoded"
REMEMBERS = 86_400.0
OLDEST = 35 * 86_400
MOST_DIGITS = 15


class Stripe:
    """Meter events of one meter."""

    kinds = BILLED
    batch = 1

    def __init__(
        self,
        post: Post,
        *,
        event: str,
        value: Value = "nano_usd",
        remembers: float | None = REMEMBERS,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`event` is the meter's `event_name`; `now` in unix seconds."""
        self._post = post
        self._event = event
        self._value = value
        self._now = now
        self.remembers = remembers

    def render(self, line: Line, id: str, customer: str | None) -> bytes | None:
        """The form. Raises Unbillable without a customer, for what is too old, and for a number that Stripe does not take."""
        value = measured(line, self._value)
        if value is None:
            return None
        if customer is None:
            raise Unbillable(
                f"tenant {line.tenant} has no customer at Stripe; set `customer` in its policy, then retry"
            )
        if line.seconds < self._now() - OLDEST:
            raise Unbillable("older than the 35 days that Stripe takes events for; bill it by an invoice item")
        if len(value.replace(".", "").strip("0")) > MOST_DIGITS:
            raise Unbillable(f"Stripe takes numbers of at most {MOST_DIGITS} digits, and this is {value}")
        form = {
            "event_name": self._event,
            "identifier": id,
            "timestamp": line.seconds,
            "payload[stripe_customer_id]": customer,
            "payload[value]": value,
        }
        return urlencode(form).encode("ascii")

    async def deliver(self, events: Sequence[Event], mark: int) -> Delivery:
        """One POST for each event."""
        return Delivery(await one_by_one(events, self._send), mark)

    async def _send(self, events: Sequence[Event]) -> Outcome:
        return await posted(self._post, events[0].body or b"", known=_is_known)


def _is_known(answer: Answer) -> bool:
    """Stripe has this identifier already. Not every such answer carries the code."""
    return answer.status == 400 and (
        b"duplicate_meter_event" in answer.body or b"event already exists with identifier" in answer.body
    )
