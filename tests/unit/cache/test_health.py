"""A part of the cache that is down is counted at every call, and told once."""

from __future__ import annotations

import pytest

from headgate.cache.health import Health


def test_every_failure_is_counted_and_only_changes_are_told(caplog: pytest.LogCaptureFixture) -> None:
    part = Health("embedder")
    part.worked()
    for _ in range(3):
        part.failed(OSError("gone\naway"))
    part.worked()
    part.worked()
    part.failed(TimeoutError())
    assert part.failures == 4
    assert not part.well
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "the cache's embedder does not work, calls go on without it: gone away",
        "the cache's embedder works again, after 3 failures in all",
        "the cache's embedder does not work, calls go on without it: TimeoutError",
    ]
