"""Readiness: should this process be sent calls?

A store of its own that does not work is a reason to say no. A store that all replicas share is not: they would all be taken out of service
at once, and with them everything that is served without it (answers from the cache, all who have no budget). Such a store is named, and the
process stays ready.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


def readiness(faults: Mapping[str, str], shared: Collection[str]) -> tuple[int, dict[str, Any]]:
    """Status and body of `/readyz`: `ready`, `degraded` when only what others share does not work, `unready`.

    `faults` says of each store what is wrong, or an empty text; `shared` are the names of those that all replicas share.
    """
    found = {name: fault for name, fault in faults.items() if fault}
    if not found:
        return 200, {"status": "ready"}
    if found.keys() <= set(shared):
        return 200, {"status": "degraded", "faults": found}
    return 503, {"status": "unready", "faults": found}
