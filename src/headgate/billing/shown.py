"""Shown: sinks and events as JSON, the same for the admin API and the command line. Money is decimal USD, times unix seconds."""

from __future__ import annotations

from headgate.billing.billing import Event, Standing
from headgate.model.chat import Json
from headgate.model.money import to_usd


def shown_standing(standing: Standing) -> Json:
    """Where a sink stands. `place` is the journal row up to which it is told."""
    return {
        "sink": standing.sink,
        "place": standing.place,
        "delivered": standing.delivered,
        "delivered_usd": to_usd(standing.delivered_billed),
        "pending": standing.pending,
        "pending_usd": to_usd(standing.pending_billed),
        "parked": standing.parked,
        "parked_usd": to_usd(standing.parked_billed),
        "oldest": standing.oldest,
        "reason": standing.reason,
        "stopped": standing.stopped,
    }


def shown_event(event: Event) -> Json:
    """An event, with why it was set aside."""
    return {
        "id": event.id,
        "row": event.seq,
        "tenant": event.tenant,
        "billed_usd": to_usd(event.billed),
        "tries": event.tries,
        "made": event.made,
        "reason": event.reason,
    }
