"""How soon Headgate is ready, and what memory it holds then: first starts in new folders, with the embedding model.

The model may be loaded behind the first `/readyz`; therefore memory is read after one semantic lookup has been answered, and the
wait for that lookup is reported beside the start.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.load import CHAT_PATH
from benchmarks.plan import Check, Figure, figure
from benchmarks.questions import chat_body, question
from benchmarks.semantic import NOT_CACHED, ONLY_CACHED
from benchmarks.servers import enrol, fetch, headgate, resident_mb


class StartUp(msgspec.Struct, frozen=True, kw_only=True):
    """`ready_s` from the start of the process to `/readyz`; then the first lookup's wait; memory after it."""

    ready_s: Figure
    first_lookup_ms: float
    resident_mb: float


def measure(folder: Path, config: Mapping[str, Any], starts: int) -> tuple[StartUp, list[Check]]:
    """Start Headgate `starts` times. Raises DidNotStart."""
    ready: list[float] = []
    waits: list[float] = []
    sizes: list[float] = []
    statuses: list[int] = []
    for place in range(starts):
        with headgate(folder / f"start-{place}", config) as server:
            ready.append(server.ready_s)
            headers = {"authorization": f"Bearer {enrol(server)}", **ONLY_CACHED}
            began = time.perf_counter()
            statuses.append(fetch(server.port, CHAT_PATH, body=chat_body(question(0)), headers=headers)[0])
            waits.append(1000 * (time.perf_counter() - began))
            sizes.append(resident_mb(server.pid))
    measured = StartUp(ready_s=figure(ready), first_lookup_ms=figure(waits).median, resident_mb=figure(sizes).median)
    expected = all(status == NOT_CACHED for status in statuses)
    return measured, [
        Check(name="start: the first lookup finds nothing and says 504", holds=expected, detail=str(statuses))
    ]
