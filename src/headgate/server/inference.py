"""`POST /v2/inference/submit`, `GET /v2/inference/result` and `GET /v2/inference/events`: ask now, fetch the answer later.

A request is found by its id under the tenant that submitted it; for anybody else it does not exist. No address that a caller names is ever
called: who wants to be told of the end holds a connection open, or is the operator with a webhook.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from urllib.parse import quote

import msgspec

from headgate.jobs.jobs import ENDED, Job, Outcome
from headgate.model.chat import Json
from headgate.model.errors import GatewayError, InvalidRequest, RateLimited
from headgate.model.money import to_usd
from headgate.model.tenancy import Principal
from headgate.server.edge import SSE_HEADERS, HangUp, Header, HttpLimits, Receive, Scope, Sender, decode_json, read_body
from headgate.server.submission import checked_id, read_submission
from headgate.server.usage import query_of
from headgate.server.wire import completion_json
from headgate.server.wishes import read_wishes
from headgate.worker import Worker

HEARTBEAT = 15.0
"""Seconds of silence after which a comment shows that the connection lives."""
POLL = 1.0
"""Seconds after which to ask again, as `Retry-After` of an answer that has not come."""

FALLBACK = "fallback_success"
"""The source of an answer that was waited for at another's call, and then came by a further one."""
_WARNINGS = {
    "slow": "Another call for the same answer was under way and brought no part of it in time, so a call was made for this tenant.",
    "failed": "Another call for the same answer was under way and failed, or its answer was for its own caller alone, so a call was made"
    " for this tenant.",
    "alone": "A call that asks for the same in other words was under way and had no answer for this request in time, so a call was made"
    " for this tenant.",
}


class InferenceDoor:
    """All three doors."""

    def __init__(self, worker: Worker, limits: HttpLimits, *, heartbeat: float = HEARTBEAT) -> None:
        """`heartbeat`: seconds of silence after which a stream of events shows that it lives."""
        self._worker = worker
        self._limits = limits
        self._heartbeat = heartbeat
        self._watching: Counter[str] = Counter()

    async def submit(self, caller: Principal, scope: Scope, receive: Receive, send: Sender) -> None:
        """`{prompt | messages, model?, request_id?, coalesce_key?, timeout?, ...}` -> 202 `{request_id, status}`."""
        wishes = read_wishes(scope["headers"])
        body = decode_json(await read_body(scope, receive, self._limits.body), self._limits)
        asked = read_submission(body, wishes, self._limits)
        job = await self._worker.submit(caller, asked.request, asked.wishes, asked.id)
        where = f"/v2/inference/result?request_id={quote(job.id)}"
        headers = [(b"location", where.encode()), *_later(job)]
        await send.json({"request_id": job.id, "status": job.state}, status=202, headers=headers)

    async def result(self, caller: Principal, scope: Scope, _: Receive, send: Sender) -> None:
        """What has become of it: `{request_id, status, content, source, model, cost, warning, error, response}`."""
        job = await self._worker.find(caller.tenant, _asked_for(scope))
        await send.json(shown(job), headers=_later(job))

    async def events(self, caller: Principal, scope: Scope, _: Receive, send: Sender) -> None:
        """The same told as it happens: an event `status` for each state, at the end `done` with the whole result."""
        id = _asked_for(scope)
        await self._worker.find(caller.tenant, id)
        if scope["method"] == "HEAD":
            return await send.whole(200, SSE_HEADERS, b"")
        with self._place(caller), HangUp(scope):
            await send.start(SSE_HEADERS)
            try:
                await self._follow(caller.tenant, id, send)
            except GatewayError as error:
                await send.part(_event("error", error.body()))
            await send.end()

    @contextlib.contextmanager
    def _place(self, caller: Principal) -> Iterator[None]:
        """A tenant follows as many requests at the same time as it may make calls."""
        tenant, most = caller.tenant, caller.policy.concurrency
        if self._watching[tenant] >= most:
            raise RateLimited(
                f"Too many requests are followed at the same time: the limit is {most}.", retry_after=POLL
            )
        self._watching[tenant] += 1
        try:
            yield
        finally:
            self._watching[tenant] -= 1
            if not self._watching[tenant]:
                del self._watching[tenant]

    async def _follow(self, tenant: str, id: str, send: Sender) -> None:
        """Tell each state until the last one. Where the server stops before, the stream ends without it."""
        state = ""
        while not self._worker.stopping:
            # Before the look: what happens after it is not missed.
            news = self._worker.news(tenant, id)
            try:
                job = await self._worker.find(tenant, id)
                if job.state in ENDED:
                    return await send.part(_event("done", shown(job)))
                if job.state != state:
                    state = job.state
                    await send.part(_event("status", {"request_id": id, "status": state}))
                while not (await asyncio.wait([news], timeout=self._heartbeat))[0]:
                    await send.part(b": waiting\n\n")
            finally:
                news.cancel()


def shown(job: Job) -> Json:
    """A job as its tenant sees it. `response` is OpenAI's whole completion, `content` its text; `error` OpenAI's inner object."""
    outcome = job.outcome or Outcome()
    completion, over = outcome.completion, outcome.started_over
    return {
        "request_id": job.id,
        "status": job.state,
        "content": None if completion is None else completion.text,
        "source": None if completion is None else FALLBACK if over else outcome.source,
        "model": outcome.model,
        "cost": to_usd(outcome.cost) if job.state in ENDED else None,
        "warning": None if completion is None or over is None else _WARNINGS[over],
        "error": outcome.error,
        "response": None if completion is None else msgspec.Raw(completion_json(outcome.call, outcome.at, completion)),
    }


def _later(job: Job) -> list[Header]:
    return [] if job.state in ENDED else [(b"retry-after", b"%d" % POLL)]


def _asked_for(scope: Scope) -> str:
    id = query_of(scope["query_string"], {"request_id"}).get("request_id")
    if not id:
        raise InvalidRequest("Say which: `?request_id=...`.", param="request_id")
    return checked_id(id)


def _event(name: str, value: Json) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(value))
