"""Submission: the body of `POST /v2/inference/submit`, read and checked."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec.structs import replace

from headgate.jobs.jobs import KEEP
from headgate.model.chat import ChatRequest, Json
from headgate.model.errors import InvalidRequest
from headgate.model.tenancy import Wishes
from headgate.server.chat import parse_chat
from headgate.server.edge import HttpLimits

LONGEST_KEY = 256
LEAST_TIME = 0.001

_ID = re.compile(r"[A-Za-z0-9._:~-]{1,128}")
_NOT_OF_THE_CALL = frozenset({"tenant", "request_id", "coalesce_key", "timeout", "prompt", "stream", "stream_options"})
"""Fields that are ours, and how an answer is delivered, which nobody waits for; all others belong to the chat request."""


class Submission(msgspec.Struct, frozen=True):
    """What is to be answered, how, and the id that the caller gave it."""

    request: ChatRequest
    wishes: Wishes
    id: str | None


def read_submission(body: Any, wishes: Wishes, limits: HttpLimits) -> Submission:
    """A decoded body and the wishes of its headers. The tenant is the key's; a `tenant` in the body changes nothing. Raises
    InvalidRequest naming the field."""
    if not isinstance(body, dict):
        raise InvalidRequest('The body must be a JSON object such as {"prompt": "..."}.')
    if body.get("stream"):
        raise InvalidRequest("A submitted request has no stream; follow it at /v2/inference/events.", param="stream")
    id, seconds = body.get("request_id"), _seconds(body.get("timeout"))
    times = [time for time in (seconds, wishes.timeout) if time is not None]
    return Submission(
        request=parse_chat(_asked(body), limits),
        wishes=replace(wishes, coalesce_key=_key(body.get("coalesce_key")), timeout=min(times, default=None)),
        id=None if id is None else checked_id(id),
    )


def checked_id(id: Any) -> str:
    """An id as callers may choose it. Raises InvalidRequest."""
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise InvalidRequest(
            "`request_id` must be 1 to 128 letters, digits and characters of `-._~:`.", param="request_id"
        )
    return id


def _asked(body: Json) -> Json:
    """The chat request in it: `prompt` is one turn of a user."""
    request: Json = {"model": "auto", **{name: said for name, said in body.items() if name not in _NOT_OF_THE_CALL}}
    if "prompt" not in body:
        return request
    prompt = body["prompt"]
    if "messages" in body:
        raise InvalidRequest("Give either `prompt` or `messages`.", param="prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise InvalidRequest("`prompt` must be a text that is not empty.", param="prompt")
    return {**request, "messages": [{"role": "user", "content": prompt}]}


def _key(key: Any) -> str:
    if key is None:
        return ""
    if not isinstance(key, str) or not 1 <= len(key) <= LONGEST_KEY or not key.isprintable():
        raise InvalidRequest(
            f"`coalesce_key` must be a text of 1 to {LONGEST_KEY} printable characters.", param="coalesce_key"
        )
    return key


def _seconds(time: Any) -> float | None:
    if time is None:
        return None
    if isinstance(time, bool) or not isinstance(time, int | float) or not LEAST_TIME <= time <= KEEP:
        raise InvalidRequest(f"`timeout` must be a number of seconds from {LEAST_TIME:g} to {KEEP:g}.", param="timeout")
    return float(time)
