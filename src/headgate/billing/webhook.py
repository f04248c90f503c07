"""Webhook: one signed POST for each event, for receivers of your own: alerts, or what tenants owe.

    Headgate-Signature: t=1795176000,v1=5257a869...

`v1` is the HMAC-SHA-256, in hexadecimal, of `t`, a dot and the body, under the secret that both sides know; a receiver compares it in
constant time and refuses a `t` that is minutes old. The scheme is Stripe's (https://docs.stripe.com/webhooks#verify-manually).
Receivers may get an event twice and know it by its `id`.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from headgate.billing.billing import ALERTS, Delivery, Event, Line, Outcome
from headgate.billing.post import Post, one_by_one, posted
from headgate.model.money import to_usd
from headgate.model.tenancy import OPERATOR

SIGNATURE = "headgate-signature"

_encode = msgspec.json.Encoder().encode


class Webhook:
    """Rows of the given kinds, each as `{id, type, created, data}`."""

    batch = 1
    remembers = None

    def __init__(
        self, post: Post, *, secret: str | None, kinds: tuple[str, ...] = ALERTS, now: Callable[[], float] = time.time
    ) -> None:
        """Without a secret nothing is signed. `now` in unix seconds."""
        self._post = post
        self._secret = None if secret is None else secret.encode()
        self._now = now
        self.kinds = kinds

    def render(self, line: Line, id: str, customer: str | None) -> bytes | None:
        """The body; rows that nobody owes anything for are left out."""
        if line.kind in ALERTS:
            kind, content = _alert(line)
        elif line.billed and line.tenant != OPERATOR:
            kind, content = "usage", _usage(line, customer)
        else:
            return None
        return _encode({"id": id, "type": kind, "created": line.seconds, "data": content})

    async def deliver(self, events: Sequence[Event], mark: int) -> Delivery:
        """One POST for each event, signed when it is sent."""
        return Delivery(await one_by_one(events, self._send), mark)

    async def _send(self, events: Sequence[Event]) -> Outcome:
        body = events[0].body or b""
        headers = {} if self._secret is None else {SIGNATURE: signature(self._secret, body, int(self._now()))}
        return await posted(self._post, body, headers)


def signature(secret: bytes, body: bytes, at: int) -> str:
    """The value of the signature's header for a body that is sent at the unix time `at`."""
    return f"t={at},v1={hmac.new(secret, b'%d.%b' % (at, body), hashlib.sha256).hexdigest()}"


def _usage(line: Line, customer: str | None) -> dict[str, Any]:
    return {
        "tenant": line.tenant,
        "customer": customer,
        "billed_usd": to_usd(line.billed),
        "cost_usd": to_usd(line.amount),
        "saved_usd": to_usd(line.saved),
        "prompt_tokens": line.prompt_tokens,
        "completion_tokens": line.completion_tokens,
        "model": line.model,
        "route": line.route,
        "feature": line.feature,
        "source": line.source,
    }


def _alert(line: Line) -> tuple[str, dict[str, Any]]:
    """The type of an alert and what it says; whatever is money there becomes decimal USD."""
    said: dict[str, Any] = msgspec.json.decode(line.detail or "")
    if line.source == "pace":
        return "spend_rate", said
    tokens = str(said.get("window", "")).startswith("tokens/")
    unit = "tokens" if tokens else "usd"
    for name in ("spent", "cap"):
        said[name] = said[name] if tokens else to_usd(said[name])
    return "budget_threshold", {**said, "unit": unit}
