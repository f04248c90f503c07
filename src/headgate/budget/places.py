"""Places: the scopes of a call as the journal keeps them, a JSON list of account and window.

A minute's tokens are not kept: after a restart a rate begins anew.
"""

from __future__ import annotations

import msgspec

from headgate.budget.budget import Scope
from headgate.budget.windows import kind_of

MOST = 10_000


class Places:
    """Makes the texts, and remembers them: the same few scopes come again and again within a minute."""

    def __init__(self) -> None:
        # By identity, for to hash the scopes costs more than to write them; the tuple is kept so that its identity stays its own.
        self._known: dict[tuple[int, str], tuple[tuple[Scope, ...], str]] = {}

    def text(self, scopes: tuple[Scope, ...], deployment: str = "") -> str:
        """Where an attempt at `deployment` counts; without one, all scopes."""
        key = (id(scopes), deployment)
        known = self._known.get(key)
        if known is not None:
            return known[1]
        if len(self._known) >= MOST:
            self._known.clear()
        kept = [
            (scope.account, scope.window)
            for scope in scopes
            if (not deployment or scope.deployment in (None, deployment)) and kind_of(scope.window) != "minute"
        ]
        text = msgspec.json.encode(kept).decode()
        self._known[key] = scopes, text
        return text
