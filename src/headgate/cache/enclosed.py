"""Enclosed: what a message holds beside its text (images, sound, files), known by the digest of its content.

Two ways of writing the same bytes down are one content: base64 may be wrapped, blank or unpadded, and the media type in any case. What is
only referred to by an address has no digest: what lies behind it may be another thing at any time.

The invariant: different bytes never have one digest, and no request can be written such that a digest passes for a value of its own.
The base64 itself is hashed, not what it decodes to: that is as good, since each stands for one content, and a seventh of the time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

from headgate.model.chat import ChatRequest

_BARE = {"input_audio": "data", "file": "file_data"}
"""Kinds of parts in which a field holds base64 without saying so."""
_BLANK = b" \t\r\n\v\f"
_MARK = ";base64"

Path = tuple[int | str, ...]


class Content(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Something enclosed: where it is, its media type if it says so, and the SHA-256 of its canonical base64."""

    path: Path
    kind: str | None
    digest: str


def sealed(messages: list[Any]) -> tuple[list[Any], list[Content]]:
    """The messages with None in place of everything enclosed, and that by its digest. Messages of text alone are given back as they are."""
    if not any(_has_parts(message) for message in messages):
        return messages, []
    contents: list[Content] = []
    bare = []
    for number, message in enumerate(messages):
        if _has_parts(message):
            parts = [_sealed(part, (number, place), contents) for place, part in enumerate(message["content"])]
            message = {**message, "content": parts}  # noqa: PLW2901 - the same turn
        bare.append(message)
    return bare, contents


def refers(request: ChatRequest) -> bool:
    """Whether a part of the request is only referred to, by an address that is no `data:` URL."""
    return any(
        isinstance(value, str) and _is_address(name) and not _is_inline(value)
        for message in request.body.get("messages", ())
        if _has_parts(message)
        for part in message["content"]
        if _is_enclosure(part)
        for name, value in _fields(part)
    )


def _has_parts(message: Any) -> bool:
    return isinstance(message, dict) and isinstance(message.get("content"), list)


def _is_enclosure(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") != "text"


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """Every named value in a part, however deep."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name, inner
            yield from _fields(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _fields(inner)


def _sealed(part: Any, path: Path, contents: list[Content]) -> Any:
    """One part; what is taken out of it goes to `contents`."""
    if not _is_enclosure(part):
        return part
    kind = part.get("type")
    bare = (kind, _BARE[kind]) if kind in _BARE else None

    def inside(value: Any, path: Path) -> Any:
        if isinstance(value, dict):
            return {name: inside(inner, (*path, name)) for name, inner in value.items()}
        if isinstance(value, list):
            return [inside(inner, (*path, place)) for place, inner in enumerate(value)]
        content = _content(value, path, bare) if isinstance(value, str) else None
        if content is None:
            return value
        contents.append(content)
        return None

    return inside(part, path)


def _content(value: str, path: Path, bare: tuple[str, str] | None) -> Content | None:
    """What a text in a part encloses; None when it is nothing but itself."""
    name = path[-1]
    if (_is_address(name) or name == "file_data") and _is_inline(value):
        head, comma, text = value.partition(",")
        if comma and head[-len(_MARK) :].lower() == _MARK:
            kind, semicolon, parameters = head[5 : -len(_MARK)].partition(";")
            return Content(path, kind.strip().lower() + semicolon + parameters, _digest(text))
        return None
    return Content(path, None, _digest(value)) if path[2:] == bare else None


def _is_address(name: int | str) -> bool:
    return isinstance(name, str) and name.endswith(("url", "uri"))


def _is_inline(value: str) -> bool:
    return value[:5].lower() == "data:"


def _digest(text: str) -> str:
    """Of base64 without what does not count."""
    written = text.encode()
    if any(blank in written for blank in _BLANK):
        written = written.translate(None, _BLANK)
    return hashlib.sha256(written.rstrip(b"=")).hexdigest()
