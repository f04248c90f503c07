"""How often: a few times in `make test`, many times in `make chaos`, which sets HEADGATE_CHAOS."""

from __future__ import annotations

import os

CHAOS = bool(os.environ.get("HEADGATE_CHAOS"))


def times(usually: int, chaos: int) -> int:
    """How many kills, schedules or rounds there are to be in this run."""
    return chaos if CHAOS else usually
