"""When a process wants to be sent calls."""

from __future__ import annotations

from headgate.server.readiness import readiness


def test_a_process_whose_stores_work_is_ready() -> None:
    assert readiness({"ledger": "", "redis": ""}, {"redis"}) == (200, {"status": "ready"})


def test_a_store_that_all_share_is_named_and_takes_nobody_out_of_service() -> None:
    status, body = readiness({"ledger": "", "redis": "refused"}, {"redis"})
    assert (status, body) == (200, {"status": "degraded", "faults": {"redis": "refused"}})


def test_a_store_of_its_own_that_does_not_work_makes_a_process_unready() -> None:
    status, body = readiness({"ledger": "disk full", "redis": "refused"}, {"redis"})
    assert (status, body) == (503, {"status": "unready", "faults": {"ledger": "disk full", "redis": "refused"}})
