"""Request headers: who calls, and what they wish of the gateway itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from headgate.model.errors import InvalidRequest
from headgate.model.tenancy import Wishes

_PREFIX = b"x-headgate-"
_IDEMPOTENCY = b"idempotency-key"
_NO_WISHES = Wishes()
_CACHE = ("default", "no-cache", "no-store", "only-if-cached", "exact")
_STRATEGY = ("aggressive", "standard", "bypass")
_COALESCE = ("off", "exact", "semantic")
_LONGEST = 256


def credential(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The API key of a request, from `Authorization: Bearer` or `x-api-key`; empty when there is none."""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer" and key.strip():
                return key.strip().decode("latin-1")
        elif name == b"x-api-key" and value.strip():
            return value.strip().decode("latin-1")
    return ""


def read_wishes(headers: Iterable[tuple[bytes, bytes]]) -> Wishes:
    """The `x-headgate-*` headers and `Idempotency-Key`. Raises InvalidRequest naming an unknown or unreadable one."""
    read: dict[str, object] = {}
    for name, value in headers:
        if name.startswith(_PREFIX) or name == _IDEMPOTENCY:
            header = name.decode("latin-1")
            reader = _READERS.get(header)
            if reader is None:
                known = ", ".join(sorted(_READERS))
                raise InvalidRequest(f"Unknown header `{header[:80]}`; known are {known}.", param=header[:80])
            field, parse = reader
            read[field] = parse(header, _text(header, value))
    return Wishes(**read) if read else _NO_WISHES  # type: ignore[arg-type]


def _text(header: str, value: bytes) -> str:
    try:
        text = value.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise InvalidRequest(f"`{header}` is not valid UTF-8.", param=header) from None
    if len(text) > _LONGEST or not text.isprintable():
        raise InvalidRequest(f"`{header}` must be at most {_LONGEST} printable characters.", param=header)
    return text


def _one_of(allowed: tuple[str, ...]) -> Callable[[str, str], str]:
    def parse(header: str, text: str) -> str:
        if text not in allowed:
            raise InvalidRequest(f"`{header}` must be one of {', '.join(allowed)}.", param=header)
        return text

    return parse


def _number(least: float, most: float) -> Callable[[str, str], float]:
    def parse(header: str, text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            raise InvalidRequest(f"`{header}` must be a number from {least:g} to {most:g}.", param=header)
        return number

    return parse


def _plain(header: str, text: str) -> str:
    if not text:
        raise InvalidRequest(f"`{header}` must not be empty.", param=header)
    return text


def _tags(_: str, text: str) -> tuple[str, ...]:
    return tuple(tag.strip() for tag in text.split(",") if tag.strip())


_READERS: dict[str, tuple[str, Callable[[str, str], object]]] = {
    "x-headgate-cache": ("cache", _one_of(_CACHE)),
    "x-headgate-cache-ttl": ("ttl", _number(0, 31_536_000)),
    "x-headgate-cache-stale": ("stale", _number(0, 31_536_000)),
    "x-headgate-cache-strategy": ("strategy", _one_of(_STRATEGY)),
    "x-headgate-cache-tags": ("tags", _tags),
    "x-headgate-namespace": ("namespace", _plain),
    "x-headgate-user": ("user", _plain),
    "x-headgate-feature": ("feature", _plain),
    "x-headgate-min-confidence": ("min_confidence", _number(0, 1)),
    "x-headgate-max-error-rate": ("max_error_rate", _number(0, 1)),
    "x-headgate-coalesce": ("coalesce", _one_of(_COALESCE)),
    "x-headgate-timeout": ("timeout", _number(0.001, 600)),
    "idempotency-key": ("idempotency_key", _plain),
}
