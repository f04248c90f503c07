"""Kill -9 of the gateway in the middle of the demo's traffic: the ledger is right about the providers' money to the last token.

Every call that reached a provider is in the journal before its first byte leaves. One whose end was written down is billed at
exactly what the provider counted; any other is billed at its hold, which is at least that. So what was settled (`journal - lost`) never
exceeds the providers' count, and the journal is never below it.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import msgspec
import pytest

from headgate.demo.demo import Demo
from headgate.demo.report import Report
from headgate.demo.trace import TraceRequest, load

REQUESTS = 700
SECONDS = 3.0
"""The first requests of the trace, squeezed into so many seconds."""


def squeezed() -> list[TraceRequest]:
    first = load()[:REQUESTS]
    pace = SECONDS / first[-1].t
    return [msgspec.structs.replace(request, t=request.t * pace) for request in first]


def silent(_what: str, _of: int) -> Callable[[], None]:
    return lambda: None


def answered(url: str) -> bool:
    """Whether somebody has had an answer: on a busy machine the first may be late."""
    with urlopen(f"{url}/metrics", timeout=5) as metrics:
        return b'status="200"' in metrics.read()


def killed_after(folder: Path, seconds: float) -> Report:
    demo = Demo(folder, silent)

    async def kill() -> None:
        assert demo.gateway is not None
        while not await asyncio.to_thread(answered, demo.gateway.url):
            await asyncio.sleep(0.01)
        await demo.gateway.stop(signal.SIGKILL)

    return asyncio.run(demo.run(squeezed(), meanwhile=(seconds, kill), outage=False))


@pytest.mark.parametrize("round", [1, 2])
def test_a_kill_loses_no_call_and_bills_no_finished_one_wrongly(tmp_path: Path, round: int) -> None:
    moment = random.Random(f"kill {round}").uniform(0.5, SECONDS - 0.5)
    report = killed_after(tmp_path, moment)
    spend = report.spend
    assert report.gateway_died
    assert 0 < report.answered < report.requests
    assert spend.lost > 0
    assert spend.journal - spend.lost <= spend.with_headgate <= spend.journal
