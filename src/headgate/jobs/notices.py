"""Notices: tells the operator's webhook that a job has ended. No address that a caller names is ever called.

One POST for each job, with the headers of Standard Webhooks (https://github.com/standard-webhooks/standard-webhooks):

    webhook-id: job_9f86d081...          the same for every try
    webhook-timestamp: 1795176000        of this try
    webhook-signature: v1,g0hM9SsE...    HMAC-SHA-256 of `id.timestamp.body`, in base64

Whatever is not a 2xx is tried again, after a wait that doubles with each failure and is drawn at random between half of that and
all of it, until the tries are used up. What is told is in the store until it was told, so it is told at least once, whenever the process
is killed; a receiver knows a repetition by its id.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Literal

import msgspec

from headgate.jobs.jobs import Job, JobStore
from headgate.model.errors import GatewayError
from headgate.model.money import to_usd

log = logging.getLogger(__name__)

TRIES = 16
"""Tries of one notice: about five hours, if the receiver never answers."""
FIRST_WAIT = 5.0
LONGEST_WAIT = 3_600.0
AT_ONCE = 8
PORTION = 64
"""Notices that are taken out at once."""
LOOK = 5.0
"""Seconds between two looks at what is due."""
HOLD = 120.0
"""Seconds for which nobody else tells what was taken out: longer than a portion takes."""

PREFIX = "whsec_"
SECRET_BYTES = range(24, 65)

Verdict = Literal["delivered", "failed", "given_up"]


class Heard(msgspec.Struct, frozen=True):
    """What a receiver answered: a status, and after how many seconds it wants to be asked again."""

    status: int
    retry_after: float | None = None


Post = Callable[[bytes, Mapping[str, str]], Awaitable[Heard]]
"""Sends a body with further headers to the one address. Raises GatewayError when no answer came."""


class Notices:
    """Tells what is due in a store. `run` it as a task, or call `turn`."""

    def __init__(
        self,
        store: JobStore,
        post: Post,
        *,
        secret: bytes,
        observe: Callable[[Verdict], None] = lambda _: None,
        now: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`now` is the store's clock, unix seconds; `draw` gives numbers from 0 to 1; `observe` is told what came of each try."""
        self._store = store
        self._post = post
        self._secret = secret
        self._observe = observe
        self._now = now
        self._draw = draw
        self._nudged = asyncio.Event()

    def nudge(self) -> None:
        """Something is due: look now."""
        self._nudged.set()

    async def run(self) -> None:
        """Turn after turn, until cancelled. A turn that fails is told and does not end the next."""
        while True:
            self._nudged.clear()
            try:
                busy = await self.turn()
            except Exception:
                log.exception("ends of jobs cannot be told; it is tried again")
                busy = False
            if not busy:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK):
                        await self._nudged.wait()

    async def turn(self) -> bool:
        """Tell what is due now; whether there may be more."""
        now = self._now()
        due = await self._store.due(now, now + HOLD, PORTION)
        places = asyncio.Semaphore(AT_ONCE)

        async def tell(job: Job) -> None:
            async with places:
                await self._tell(job)

        async with asyncio.TaskGroup() as group:
            for job in due:
                group.create_task(tell(job))
        return len(due) == PORTION

    async def _tell(self, job: Job) -> None:
        body, id = notice(job), notice_id(job)
        at = int(self._now())
        headers = {
            "webhook-id": id,
            "webhook-timestamp": str(at),
            "webhook-signature": signature(self._secret, id, at, body),
        }
        try:
            heard = await self._post(body, headers)
            reason, wait = f"status {heard.status}", heard.retry_after
            if 200 <= heard.status < 300:
                await self._store.told(job.tenant, job.id, None)
                return self._observe("delivered")
        except GatewayError as error:
            reason, wait = error.message, error.retry_after
        await self._again(job, reason, wait or 0.0)

    async def _again(self, job: Job, reason: str, asked: float) -> None:
        """Note when it is tried again, or that it is not."""
        self._observe("failed")
        if job.tries + 1 >= TRIES:
            log.error("nobody was told that job %s of %s ended: %s", job.id, job.tenant, reason)
            await self._store.told(job.tenant, job.id, None)
            return self._observe("given_up")
        longest = min(LONGEST_WAIT, FIRST_WAIT * 2**job.tries)
        wait = max((1 + self._draw()) / 2 * longest, min(asked, LONGEST_WAIT))
        await self._store.told(job.tenant, job.id, self._now() + wait)


def notice(job: Job) -> bytes:
    """What is told of a job that has ended: not its answer, which is fetched by its id."""
    outcome = job.outcome
    told = {
        "request_id": job.id,
        "tenant": job.tenant,
        "status": job.state,
        "model": None if outcome is None else outcome.model,
        "cost": to_usd(0 if outcome is None else outcome.cost),
        "code": None if outcome is None or outcome.error is None else outcome.error.get("code"),
    }
    ended = datetime.fromtimestamp(job.ended or 0.0, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return msgspec.json.encode({"type": f"inference.{job.state}", "timestamp": ended, "data": told})


def notice_id(job: Job) -> str:
    """The id of a job's notice: of the job alone, so that every try, also after a restart, sends the same."""
    name = "\0".join((job.tenant, job.id, repr(job.made)))
    return f"job_{hashlib.sha256(name.encode()).hexdigest()[:40]}"


def signature(secret: bytes, id: str, at: int, body: bytes) -> str:
    """The value of the signature's header."""
    mac = hmac.new(secret, b"%b.%d.%b" % (id.encode(), at, body), hashlib.sha256).digest()
    return f"v1,{base64.b64encode(mac).decode()}"


def secret_of(text: str) -> bytes:
    """The bytes of a secret as Standard Webhooks writes it: 24 to 64 of them, in base64 behind `whsec_`. Raises ValueError."""
    try:
        found = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if len(found) not in SECRET_BYTES:
        raise ValueError(
            f"must be {PREFIX} and {SECRET_BYTES[0]} to {SECRET_BYTES[-1]} bytes in base64, as "
            f"`echo {PREFIX}$(openssl rand -base64 32)` makes it"
        )
    return found
