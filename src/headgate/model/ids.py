"""Ids: time-ordered, unguessable, and cheap enough for every request."""

from __future__ import annotations

import os
import time


def new_id() -> str:
    """A request's id: 48 bits of unix milliseconds, 80 random bits, in hexadecimal, so ids sort by time (as UUIDv7 does)."""
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"
