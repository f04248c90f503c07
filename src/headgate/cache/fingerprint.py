"""Fingerprints: which requests are the same, and which may be compared.

Two requests are *the same* when every field that shapes the answer is equal, and images, sound and files by their content; they may
be *compared by meaning* when everything but the last user turn is, and nothing but text is there. Both are SHA-256 over canonical
JSON (sorted keys, no insignificant values), so they are stable across processes and releases of Python; the tenant is not inside the
digest but beside it, in the Key, where nothing can forget it.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from headgate.cache.courtesy import bare
from headgate.cache.enclosed import sealed
from headgate.model.chat import ChatRequest, Json
from headgate.model.tenancy import Key, Namespace

_NOT_SHAPING = frozenset(
    {
        "stream", "stream_options", "user", "metadata", "store", "service_tier", "safety_identifier",
        "prompt_cache_key", "prompt_cache_retention", "max_tokens", "max_completion_tokens",
    }
)  # fmt: skip
_INSIGNIFICANT = {"n": 1, "temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0}

_INSTRUCTING = frozenset({"system", "developer"})

LONGEST = 60
"""Words. In a longer text one vector says too little about each detail: two long prompts cut from one pattern are near as twins."""

_canonical = msgspec.json.Encoder(order="deterministic").encode

HOTTEST = 0.5
"""An explicit temperature above this asks for variety, which a cached or shared answer would take away."""


def fingerprint(namespace: Namespace, request: ChatRequest) -> Key:
    """Where the exact answer to this request lies."""
    shape = _shape(request)
    # A list has two members where anything is enclosed and a request is an object, so neither passes for the other.
    shape["messages"], contents = sealed(shape["messages"])
    return Key(namespace, hashlib.sha256(_canonical([shape, contents] if contents else shape)).digest())


def to_the_letter(namespace: Namespace, request: ChatRequest) -> Key:
    """The request with every field but whether it streams: what a provider refused it may have refused for any of them."""
    body = {name: value for name, value in request.body.items() if name != "stream"}
    return Key(namespace, hashlib.sha256(_canonical(body)).digest())


def partition(embedder: str, request: ChatRequest) -> bytes:
    """What a question may be compared within: the embedder's identity and everything but the last turn."""
    shape = _shape(request)
    shape["messages"] = shape["messages"][:-1]
    return hashlib.sha256(_canonical([embedder, shape])).digest()


def scope(embedder: str, request: ChatRequest) -> bytes:
    """What questions learn together within: as `partition`, without the turns of the conversation."""
    shape = _shape(request)
    shape["messages"] = [turn for turn in shape["messages"] if turn.get("role") in _INSTRUCTING]
    return hashlib.sha256(_canonical([embedder, shape])).digest()


def bypass_reason(request: ChatRequest) -> str | None:
    """Why this request may be neither cached nor shared, or None when it may."""
    if request.choices > 1:
        return "n"
    if request.temperature is not None and request.temperature > HOTTEST:
        return "temperature"
    if request.store:
        return "store"
    return None


def comparable(request: ChatRequest) -> str | None:
    """The question to compare by meaning, without greeting and thanks, or None: only plain text in every turn, no tools, and at most
    `LONGEST` words."""
    if request.tools or "functions" in request.body or "audio" in request.body:
        return None
    if any(message.text() is None for message in request.messages):
        return None
    question = request.question
    if not question or question.isspace() or len(question.split(None, LONGEST)) > LONGEST:
        return None
    return bare(question)


def _shape(request: ChatRequest) -> Json:
    """Everything that shapes the answer, in one form: absent, null and default values are the same."""
    shape: Json = {}
    for name, value in request.body.items():
        if name in _NOT_SHAPING or value is None:
            continue
        plain = _plain(value)
        if name in _INSIGNIFICANT and plain == _INSIGNIFICANT[name]:
            continue
        shape[name] = plain
    if request.max_output is not None:
        shape["max_tokens"] = request.max_output
    return shape


def _plain(value: Any) -> Any:
    """1.0 and 1 are the same number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
