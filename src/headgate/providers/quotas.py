"""What a provider's headers say of time and room: when to come back, and how much more it will take until then.

OpenAI's `x-ratelimit-*` (also Groq's, Azure's, and of most servers that speak like it), Anthropic's `anthropic-ratelimit-*`, and
Retry-After in its three forms. The invariant: whatever a header holds, what comes out is bounded, or None.
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Callable
from datetime import datetime

from headgate.model.quota import Quota, Room

LONGEST_WAIT = 86_400.0
"""Most seconds of a provider's wish to be left alone that are believed."""

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_COUNT = re.compile(r"\s*\d{1,15}\s*", re.ASCII)

HeaderOf = Callable[[str], str | None]
"""Looks up a header by its lower-case name."""


def quota(header: HeaderOf, now: float) -> Quota | None:
    """What is left of the provider's limits; None when it speaks of none. `now` is Unix time, for dates."""
    requests = _room(header, "requests", now)
    tokens = _room(header, "tokens", now)
    return None if requests is None and tokens is None else Quota(requests, tokens)


def _room(header: HeaderOf, kind: str, now: float) -> Room | None:
    """A limit whose reset is not told says nothing that could be relied on."""
    left, resets = header(f"x-ratelimit-remaining-{kind}"), f"x-ratelimit-reset-{kind}"
    if left is None:
        left, resets = header(f"anthropic-ratelimit-{kind}-remaining"), f"anthropic-ratelimit-{kind}-reset"
    if left is None or _COUNT.fullmatch(left) is None:
        return None
    told = header(resets)
    reset = None if told is None else _moment(told, now) if "T" in told else duration(told)
    return None if reset is None else Room(int(left), reset)


def retry_after(header: HeaderOf, now: float) -> float | None:
    """Seconds to wait as the headers say: milliseconds, seconds, a date, or the reset of a limit that is used up."""
    for seconds in (_number(header("retry-after-ms"), 1000.0), _number(header("retry-after"), 1.0)):
        if seconds is not None:
            return seconds
    date = header("retry-after")
    if date is not None:
        try:
            return _bounded(email.utils.parsedate_to_datetime(date).timestamp() - now)
        except (ValueError, OverflowError):
            return None
    left = quota(header, now)
    rooms = () if left is None else (left.requests, left.tokens)
    return max((room.reset for room in rooms if room is not None and room.remaining == 0), default=None)


def duration(text: str | None) -> float | None:
    """Seconds of `6m0s`, `1.5s`, `20ms`, or of plain seconds."""
    found = None if text is None else _DURATION.fullmatch(text)
    if found is None or not any(found.groups()):
        return _number(text, 1.0)
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in found.groups())
    return _bounded(hours * 3600 + minutes * 60 + seconds + milliseconds / 1000)


def _moment(text: str, now: float) -> float | None:
    """Seconds until a time as RFC 3339 writes it."""
    try:
        return _bounded(datetime.fromisoformat(text).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _number(text: str | None, per_second: float) -> float | None:
    if text is None or not re.fullmatch(r"\s*-?\d{1,15}(\.\d{0,15})?\s*", text):
        return None
    return _bounded(float(text) / per_second)


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), LONGEST_WAIT)
