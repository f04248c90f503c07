"""One word: a language model is asked something that yes or no answers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Awaitable, Callable

from headgate.model.tenancy import Policy

Ask = Callable[[str, Policy], Awaitable[str | None]]
"""Asks a language model, as far as the policy allows it of whose answers the prompt holds; None when there is no answer."""

_WORD = re.compile(r"[^\W_]+")


def words_of(text: str) -> list[str]:
    """Letters and digits, whatever the case and what stands between them."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def said_yes(said: str | None) -> bool | None:
    """What the first word says; None when it is neither yes nor no."""
    words = words_of(said or "")
    return {"yes": True, "no": False}.get(words[0] if words else "")
