"""The decider `classifier`: a small language model labels a question of which cheaper deciders are unsure.

The model is a guess that costs money and time, and it reads what a stranger wrote. So it is asked late (deciders.py), within a time box,
few at a time, about the same question once, and not at all while it fails or where it would cost more than it can save. The question goes
to it as a JSON string. The invariant: what comes back is one object of the known labels, or the decider abstains. Nothing that a
question makes the model say can name a deployment, go above the route's ceiling (`Deciders`), or loosen the cache beyond its settings.
"""

from __future__ import annotations

import asyncio
import re
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from importlib.resources import files
from typing import Annotated, Any, Literal

import msgspec

from headgate.model.tenancy import Strategy
from headgate.routing.breaker import Breakers
from headgate.routing.breaker import Rules as BreakerRules
from headgate.routing.deciders import Asked, Opinion
from headgate.routing.route import TIERS, Intent, Tier

Ask = Callable[[str, str, Asked], Awaitable[str | None]]
"""Puts instructions and a question to a model for whoever asks; None when that may not be, or is not worth its price. Raises what a call may raise."""

Outcome = Literal["labelled", "known", "late", "failed", "unreadable", "busy", "resting", "refused"]

LONGEST = 4_000
"""Characters of a question that are shown to the model."""
MOST_SURE = 0.9
"""No model is surer of its guess than this: the best that were measured against each other give two tiers in three as people do."""
_SELF = "classifier"

# Whoever writes in the classifier's own terms wants to be its author, not its subject.
_LOADED = re.compile(
    r"\b(?:tier|complexity|confidence|intent|strategy)\b['\"\s]{0,3}[:=]"
    r"|\b(?:classif(?:y|ied|ier|ication)|label)\b.{0,40}\b(?:low|medium|high|simple|complex|tier)\b"
    r"|\b(?:ignore|disregard|forget)\b.{0,40}\b(?:instruction|prompt|rule|above|previous|earlier)",
    re.IGNORECASE | re.DOTALL,
)

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Labels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the model must reply with, all of it and nothing else. Fields as of `Decision`."""

    intent: Intent
    complexity: Share
    tier: Tier
    strategy: Strategy
    confidence: Share


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "intent": {"type": "string", "enum": ["retrieval", "chat", "analysis", "error"]},
        "complexity": {"type": "number"},
        "tier": {"type": "string", "enum": list(TIERS)},
        "strategy": {"type": "string", "enum": ["aggressive", "standard", "bypass"]},
        "confidence": {"type": "number"},
    },
    "required": ["intent", "complexity", "tier", "strategy", "confidence"],
    "additionalProperties": False,
}
"""The same for a model that can be held to a schema."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What the classifier may take. Times in seconds.

    seconds      that a question may be thought about
    concurrency  questions at a time; who comes beyond them is not made to wait
    entries      labels that are remembered, of all tenants
    ttl          for how long
    failures     of so many in a row it is left alone for `rest`, then tried with one question
    """

    seconds: float = 1.5
    concurrency: int = 16
    entries: int = 10_000
    ttl: float = 3_600.0
    failures: int = 5
    rest: float = 30.0


def instructions() -> str:
    """The ones that ship with this package."""
    return files("headgate.routing").joinpath("classifier.txt").read_text(encoding="utf-8")


class Classifier:
    """The decider `classifier`."""

    def __init__(
        self,
        ask: Ask,
        template: str,
        bounds: Bounds | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[Outcome], None] = lambda _: None,
    ) -> None:
        """`template`: the instructions; `tell` counts what became of each question."""
        self._ask = ask
        self._template = template
        self._bounds = bounds or Bounds()
        self._clock = clock
        self._tell = tell
        self._known: OrderedDict[bytes, tuple[float, Labels]] = OrderedDict()
        self._inside = 0
        rules = BreakerRules(failures=self._bounds.failures, open_time=self._bounds.rest)
        self._breakers = Breakers(rules, clock=clock)

    async def opinion(self, asked: Asked) -> Opinion:
        """See Decider."""
        text = shown(asked.text)
        if not text:
            return Opinion(tier=None, reason="empty")
        if _LOADED.search(text):
            return Opinion(tier=None, reason="loaded")
        place = _place(asked)
        labels = self._remembered(place)
        if labels is not None:
            self._tell("known")
            return _opinion(labels)
        if asked.dry:
            return Opinion(tier=None, reason="dry")
        found = await self._asked(asked)
        if not isinstance(found, Labels):
            self._tell(found)
            return Opinion(tier=None, reason=found)
        self._tell("labelled")
        self._remember(place, found)
        return _opinion(found)

    async def _asked(self, asked: Asked) -> Labels | Outcome:
        """The model's labels, or why there are none."""
        if self._inside >= self._bounds.concurrency:
            return "busy"
        if not self._breakers.allow(_SELF):
            return "resting"
        self._inside += 1
        found: Labels | Outcome = "refused"
        try:
            found = await self._answered(asked)
        finally:
            self._inside -= 1
            if found == "refused":
                # Nobody was asked, or nobody waits any more: nothing is known of the model.
                self._breakers.forgo(_SELF)
            else:
                self._breakers.observe(_SELF, failed=not isinstance(found, Labels))
        return found

    async def _answered(self, asked: Asked) -> Labels | Outcome:
        try:
            async with asyncio.timeout(self._bounds.seconds):
                text = await self._ask(self._template, subject(asked), asked)
        except TimeoutError:
            return "late"
        except Exception:
            return "failed"
        return "refused" if text is None else read(text)

    def _remembered(self, place: bytes) -> Labels | None:
        at, labels = self._known.get(place, (float("-inf"), None))
        return labels if self._clock() - at < self._bounds.ttl else None

    def _remember(self, place: bytes, labels: Labels) -> None:
        self._known[place] = self._clock(), labels
        self._known.move_to_end(place)
        if len(self._known) > self._bounds.entries:
            self._known.popitem(last=False)


def shown(text: str) -> str:
    """What the model sees of a text: a long one is shortened in its middle."""
    text = text.strip()
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} [...] {text[-LONGEST // 2 :]}"


def subject(asked: Asked) -> str:
    """The question as the model sees it: quoted."""
    turns = sum(message.role == "user" for message in asked.request.messages) - 1
    told = {"question": shown(asked.text), "earlier_turns": max(0, turns), "tools": bool(asked.request.tools)}
    return msgspec.json.encode(told).decode()


def read(text: str) -> Labels | Literal["unreadable"]:
    """The labels of a reply that is nothing but them."""
    try:
        return msgspec.json.decode(text, type=Labels)
    except msgspec.MsgspecError:
        return "unreadable"


def _opinion(labels: Labels) -> Opinion:
    return Opinion(
        tier=labels.tier,
        confidence=min(labels.confidence, MOST_SURE),
        reason=labels.intent,
        intent=labels.intent,
        complexity=labels.complexity,
        strategy=labels.strategy,
    )


def _place(asked: Asked) -> bytes:
    """Where the labels of a question are kept: apart for each tenant, together for the same words."""
    words = " ".join(unicodedata.normalize("NFKC", subject(asked)).casefold().split())
    return blake2b(f"{asked.tenant}\0{words}".encode("utf-8", "replace"), digest_size=16).digest()
