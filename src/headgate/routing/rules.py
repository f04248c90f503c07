"""Rules: what an operator knows better than any decider, said in the configuration.

The rules of a route are asked in order, and the first that fits decides, with confidence 1. The invariant: a rule fits only when
everything that it says holds; a request that lacks what it speaks of does not fit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from headgate.model.tally import BYTES_PER_TOKEN
from headgate.model.tenancy import Strategy
from headgate.routing.deciders import Asked, Opinion
from headgate.routing.difficulty import task_of
from headgate.routing.features import has_image
from headgate.routing.patterns import found
from headgate.routing.plan import needs
from headgate.routing.route import Task, Tier

Need = Literal["tools", "vision", "json"]


class When(msgspec.Struct, frozen=True, kw_only=True):
    """What a question must be like; None says nothing.

    metadata      of the request's own `metadata`: these keys with these values, as text
    matches       found in the first 1,000 characters of the user's last turn
    over_tokens   more tokens than this in all turns together, at four characters each
    under_tokens  fewer than this
    has           what the request needs
    """

    metadata: Mapping[str, str] = {}
    tenant: str | None = None
    user: str | None = None
    matches: re.Pattern[str] | None = None
    over_tokens: int | None = None
    under_tokens: int | None = None
    task: Task | None = None
    has: Need | None = None


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Where a question goes that is like this, and how bold the semantic cache may be with it at most."""

    name: str
    when: When
    tier: Tier
    strategy: Strategy | None = None


class RuleDecider:
    """The decider `rules`."""

    def __init__(self, rules: Mapping[str, Sequence[Rule]]) -> None:
        """The rules of each route, by its name, in the order in which they are asked."""
        self._opinions = {
            route: [(rule.when, Opinion(tier=rule.tier, confidence=1.0, reason=f"rule:{rule.name}", strategy=rule.strategy)) for rule in chosen]
            for route, chosen in rules.items()
        }  # fmt: skip

    async def opinion(self, asked: Asked) -> Opinion:
        """See Decider."""
        for when, opinion in self._opinions.get(asked.route.name, ()):
            if fits(when, asked):
                return opinion
        return _NONE


_NONE = Opinion(tier=None, reason="none")


def fits(when: When, asked: Asked) -> bool:
    """Whether a question is like this. What is cheap to look at is looked at first."""
    request = asked.request
    if when.tenant not in (None, asked.tenant) or when.user not in (None, asked.user):
        return False
    if when.metadata and not _says(request.body.get("metadata"), when.metadata):
        return False
    if when.has is not None and when.has not in needs(request):
        return False
    if when.task is not None and when.task != task_of(asked.seen, image=has_image(request)):
        return False
    if when.over_tokens is not None or when.under_tokens is not None:
        tokens = _tokens(asked)
        if when.over_tokens is not None and tokens <= when.over_tokens:
            return False
        if when.under_tokens is not None and tokens >= when.under_tokens:
            return False
    return when.matches is None or found(when.matches, asked.text)


def _says(said: object, wanted: Mapping[str, str]) -> bool:
    """Callers send what they like as `metadata`; a value that is no text is compared as it would be written."""
    if not isinstance(said, dict):
        return False
    return all(key in said and _written(said[key]) == value for key, value in wanted.items())


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _tokens(asked: Asked) -> int:
    characters = 0
    for message in asked.request.messages:
        content = message.content
        parts = (content,) if isinstance(content, str) else tuple(part.text or "" for part in content or ())
        characters += sum(map(len, parts))
    return characters // BYTES_PER_TOKEN
