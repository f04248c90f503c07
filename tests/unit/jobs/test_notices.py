"""Who is told that a job has ended, how often, and signed how."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from headgate.jobs.jobs import JobStore, Outcome
from headgate.jobs.memory import MemoryJobs
from headgate.jobs.notices import AT_ONCE, PORTION, TRIES, Heard, Notices, notice_id, secret_of, signature
from headgate.jobs.sqlite import SqliteJobs
from headgate.model.errors import Unavailable
from tests.conformance.test_job_store import ASKED, FAILED, begun, flown, job
from tests.virtual_time import in_virtual_time

SECRET = b"0123456789abcdef0123456789abcdef"


class Receiver:
    """Answers as it is told, 204 by default; `wall` is everybody's clock."""

    def __init__(self) -> None:
        self.answers: list[int | Heard | Exception] = []
        self.got: list[tuple[Mapping[str, str], bytes]] = []
        self.wall = 1_795_176_000.0
        self.outcomes: list[str] = []
        self.most = self._now = 0

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Heard:
        self._now += 1
        self.most = max(self.most, self._now)
        self.got.append((headers, body))
        answer = self.answers.pop(0) if self.answers else 204
        self._now -= 1
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Heard) else Heard(answer)

    def notices(self, store: JobStore) -> Notices:
        return Notices(
            store, self.post, secret=SECRET, observe=self.outcomes.append, now=lambda: self.wall, draw=lambda: 1.0
        )


def verified(headers: Mapping[str, str], body: bytes) -> None:
    """As a receiver does it: by the specification, not by our code."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


async def test_an_end_is_told_once_signed_and_without_the_answer() -> None:
    store, receiver = MemoryJobs(), Receiver()
    await flown(store, telling=receiver.wall, at=receiver.wall)
    await receiver.notices(store).turn()
    await receiver.notices(store).turn()
    ((headers, body),) = receiver.got
    verified(headers, body)
    assert headers["webhook-timestamp"] == "1795176000"
    assert json.loads(body) == {
        "type": "inference.done",
        "timestamp": "2026-11-20T12:00:00.000Z",
        "data": {
            "request_id": "a",
            "tenant": "acme",
            "status": "done",
            "model": "m",
            "cost": "0.000000005",
            "code": None,
        },
    }
    assert receiver.outcomes == ["delivered"]


async def test_a_failure_is_told_with_its_code() -> None:
    store, receiver = MemoryJobs(), Receiver()
    await store.add(job(), ASKED)
    await store.end(await begun(store), FAILED, receiver.wall, receiver.wall)
    await receiver.notices(store).turn()
    told = json.loads(receiver.got[0][1])
    assert (told["type"], told["data"]["status"], told["data"]["code"]) == (
        "inference.failed",
        "failed",
        "budget_exceeded",
    )


async def test_what_failed_is_told_again_under_the_same_id_after_a_wait_that_grows() -> None:
    store, receiver = MemoryJobs(), Receiver()
    await flown(store, telling=receiver.wall)
    notices = receiver.notices(store)
    receiver.answers = [500, 404, Unavailable("cannot be reached")]
    waits = []
    while len(receiver.got) < 4:
        before = receiver.wall
        await notices.turn()
        while len(receiver.got) < 4 and not await store.due(receiver.wall, receiver.wall, 1):
            receiver.wall += 1.0
        waits.append(receiver.wall - before)
    assert waits[:3] == [5.0, 10.0, 20.0]
    assert {headers["webhook-id"] for headers, _ in receiver.got} == {notice_id(job())}
    assert len({body for _, body in receiver.got}) == 1
    for headers, body in receiver.got:
        verified(headers, body)
    assert receiver.outcomes == ["failed", "failed", "failed", "delivered"]


async def test_a_receiver_that_asks_for_a_longer_wait_gets_it_but_not_any() -> None:
    store, receiver = MemoryJobs(), Receiver()
    await flown(store, telling=receiver.wall)
    notices = receiver.notices(store)
    receiver.answers = [Heard(429, 90.0), Heard(503, 1e9)]
    await notices.turn()
    assert await store.due(receiver.wall + 89.0, 0.0, 1) == []
    receiver.wall += 90.0
    await notices.turn()
    assert len(receiver.got) == 2
    assert len(await store.due(receiver.wall + 3_600.0, 0.0, 1)) == 1


async def test_after_so_many_tries_nobody_is_told_any_more_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, receiver = MemoryJobs(), Receiver()
    await flown(store, telling=receiver.wall)
    receiver.answers = [500] * TRIES
    notices = receiver.notices(store)
    for _ in range(TRIES + 3):
        await notices.turn()
        receiver.wall += 3_600.0
    assert len(receiver.got) == TRIES
    assert receiver.outcomes[-1] == "given_up"
    assert "nobody was told that job a of acme ended: status 500" in caplog.text


async def test_what_a_killed_process_had_yet_to_tell_the_next_one_tells(tmp_path: Path) -> None:
    store, receiver = SqliteJobs(tmp_path / "jobs.db"), Receiver()
    await flown(store, telling=receiver.wall)
    await store.close()
    store = SqliteJobs(tmp_path / "jobs.db")
    await receiver.notices(store).turn()
    assert receiver.outcomes == ["delivered"]
    await store.close()


async def test_many_ends_are_told_a_few_at_a_time() -> None:
    store, receiver = MemoryJobs(), Receiver()
    for number in range(PORTION + 1):
        await flown(store, f"job-{number}", telling=receiver.wall)
    notices = receiver.notices(store)
    assert await notices.turn()
    assert not await notices.turn()
    assert len(receiver.got) == PORTION + 1
    assert receiver.most <= AT_ONCE


@in_virtual_time
async def test_while_it_runs_a_nudge_is_enough_and_without_one_it_looks_by_itself() -> None:
    import asyncio

    store, receiver = MemoryJobs(), Receiver()
    notices = receiver.notices(store)
    running = asyncio.create_task(notices.run())
    await asyncio.sleep(1)
    await flown(store, "a", telling=receiver.wall)
    notices.nudge()
    await asyncio.sleep(0.001)
    assert len(receiver.got) == 1
    await flown(store, "b", telling=receiver.wall)
    await asyncio.sleep(5)
    assert len(receiver.got) == 2
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_the_signature_is_that_of_the_specifications_example() -> None:
    """https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md"""
    secret = secret_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("text", ["", "whsec_", "secret", "whsec_c2hvcnQ=", "whsec_not base64 at all, but long enough"])
def test_what_is_no_secret_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="24 to 64 bytes"):
        secret_of(text)


def test_two_jobs_have_two_ids_also_when_one_id_is_used_again_later() -> None:
    jobs = [job(), job("b"), job(tenant="other"), job(made=2.0)]
    assert len({notice_id(one) for one in jobs}) == 4
    assert notice_id(job(state="done", tries=3)) == notice_id(job())
    assert Outcome().error is None
