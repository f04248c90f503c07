"""OpenMeter: CloudEvents 1.0 in JSON, a batch in one POST (`application/cloudevents-batch+json`).

https://openmeter.io/docs/metering/events/overview. OpenMeter recognises an event by `id` and `source`, if its deduplication
is switched on: in a self-hosted one it is off by default, and then a lost answer counts twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headgate.billing.billing import BILLED, Delivery, Event, Line, Outcome, Value, described, measured
from headgate.billing.post import Post, halved, posted

PATH = "/api/v1/events"
MEDIA_TYPE = "application/cloudevents-batch+json"
BATCH = 100

_encode = msgspec.json.Encoder().encode


class OpenMeter:
    """Events of one type. The subject is the tenant's customer name, else its id."""

    kinds = BILLED
    batch = BATCH

    def __init__(
        self, post: Post, *, event: str, value: Value = "usd", source: str = "headgate", remembers: float | None = None
    ) -> None:
        """`event` is CloudEvents' `type`, `source` its source."""
        self._post = post
        self._event = event
        self._value = value
        self._source = source
        self.remembers = remembers

    def render(self, line: Line, id: str, customer: str | None) -> bytes | None:
        """One CloudEvent."""
        value = measured(line, self._value)
        if value is None:
            return None
        return _encode(
            {
                "specversion": "1.0",
                "type": self._event,
                "id": id,
                "time": line.time,
                "source": self._source,
                "subject": customer or line.tenant,
                "data": described(line, value),
            }
        )

    async def deliver(self, events: Sequence[Event], mark: int) -> Delivery:
        """One POST for all."""
        return Delivery(await halved(events, self._send), mark)

    async def _send(self, events: Sequence[Event]) -> Outcome:
        return await posted(self._post, b"[" + b",".join(event.body or b"" for event in events) + b"]")
