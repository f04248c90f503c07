"""Failpoints: places on money's path at which a test kills this process with SIGKILL, to see what the journal says afterwards.

A test instrument, armed by the environment alone: `HEADGATE_FAILPOINT=after_answer:3` kills when that place is passed for the third
time. Never set it where money is real. Not armed, as always elsewhere, a passing costs a call and the look at an empty dict.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

VARIABLE = "HEADGATE_FAILPOINT"

POINTS = {
    "after_reserve": "money is held in memory, nothing of it is written",
    "after_dispatched": "the hold is in the journal, no byte has left",
    "mid_stream": "a part of the answer has come",
    "after_answer": "the whole answer has come, nothing is charged",
    "before_settle": "the attempts are charged in memory",
    "during_commit": "inside the statement that writes a batch of rows",
    "after_commit": "the batch is in the file, nobody has been told",
    "during_export": "a billing endpoint has taken its events, the outbox does not know it",
}

_left: dict[str, int] = {}
"""The armed point, and how often it will still be passed; empty when none is."""


def arm(environ: Mapping[str, str]) -> None:
    """Arm the failpoint that the environment names, or none. Raises ValueError for a name or a number there is not."""
    _left.clear()
    wish = environ.get(VARIABLE)
    if not wish:
        return
    point, colon, times = wish.partition(":")
    count = int(times) if times.isdecimal() else 0 if colon else 1
    if point not in POINTS or count < 1:
        raise ValueError(f"{VARIABLE}={wish!r}: write POINT or POINT:TIMES with a point of {', '.join(POINTS)}")
    _left[point] = count


def armed(point: str) -> bool:
    """Whether this point will kill: for one that needs an arrangement of its own."""
    return point in _left


def passed(point: str) -> None:
    """This place is passed. If it is armed and this is the time, nothing after this line happens."""
    if _left:
        _count(point)


def _count(point: str) -> None:
    if point in _left:
        _left[point] -= 1
        if _left[point] == 0:
            os.kill(os.getpid(), signal.SIGKILL)


arm(os.environ)
