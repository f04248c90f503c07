"""Extent: what a request may use beyond text in and text out, for what is held to be neither too little nor far too much.

A token of sound or of a picture may cost ten times one of text, and one that is kept in a cache for an hour twice as much: they are
held only for a prompt that can have them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headgate.model.chat import ChatRequest, Json
from headgate.model.money import MOST_SEARCHES, Extent

SEARCHES = 10
"""Searches held for a call that may search and says no number."""

TEXT = Extent(rich=False)

_ASKING = frozenset({"tools", "cache_control", "web_search_options"})


def extent_of(request: ChatRequest) -> Extent:
    """How far a call may go. Pure."""
    body = request.body
    if not body.keys() & _ASKING and not any(_beyond_plain(message) for message in body.get("messages") or ()):
        return TEXT
    rich = any(_beyond_text(message.content) for message in request.messages) or any(map(_for_an_hour, _places(body)))
    searches = _searches(body)
    return Extent(rich=rich, searches=searches) if rich or searches else TEXT


def _beyond_plain(message: Any) -> bool:
    """Whether a message is more than a text and who says it."""
    return not isinstance(message, dict) or not isinstance(message.get("content"), str) or "cache_control" in message


def _beyond_text(content: Any) -> bool:
    return isinstance(content, tuple) and any(part.text is None for part in content)


def _places(body: Json) -> Iterator[Json]:
    """Every place where a caller may ask for a cache."""
    yield body
    for name in ("tools", "messages"):
        for one in body.get(name) or ():
            if isinstance(one, dict):
                yield one
                content = one.get("content")
                if isinstance(content, list):
                    yield from (part for part in content if isinstance(part, dict))


def _for_an_hour(place: Json) -> bool:
    control = place.get("cache_control")
    return isinstance(control, dict) and control.get("ttl") == "1h"


def _searches(body: Json) -> int:
    """Searches of the web that the provider's own tools may make."""
    count = 0 if body.get("web_search_options") is None else SEARCHES
    for tool in body.get("tools") or ():
        kind = tool.get("type") if isinstance(tool, dict) else None
        if isinstance(kind, str) and kind.startswith("web_search"):
            most = tool.get("max_uses")
            count += min(most, MOST_SEARCHES) if type(most) is int and most > 0 else SEARCHES
    return count
