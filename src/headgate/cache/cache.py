"""Cache: have we answered this already, for this tenant?

Two tiers. *Exact*: the same request, found in process without waiting. *Semantic*: a question that means the same, found by its
vector among the tenant's own questions under the same route and conversation, and served only when the verdict says so.

The cache fails open: whatever breaks here costs a hit, never an answer. Every lookup and every entry carries its Namespace.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import msgspec

from headgate.cache.fingerprint import comparable, partition
from headgate.cache.verdict import Judgement, Verdict
from headgate.model.chat import ChatRequest, Completion
from headgate.model.tenancy import Key, Namespace, Wishes

log = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds that a vector may take; then the request goes on without it."""

CANDIDATES = 3
"""How many of the nearest entries are judged: the nearest may be a look-alike and the next a true rewording."""

Vector = Any
"""A numpy array of float32 of unit length; typed loosely because numpy is loaded late."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Completion).decode


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A stored answer. Times are unix seconds; `worth` is what it cost to make, in nano-USD.

    The answer is kept encoded: a fifth of the memory, and nothing in a hundred thousand entries for the garbage collector to
    walk through. `partition`, `text` and `vector` are None for answers that are only found exactly.
    """

    id: str
    key: Key
    answer: bytes
    stored: float
    expires: float
    worth: int = 0
    deployment: str = ""
    tags: tuple[str, ...] = ()
    partition: bytes | None = None
    text: str | None = None
    vector: bytes | None = None
    semantic_until: float = 0.0

    @property
    def weight(self) -> int:
        """Bytes of answer, text and vector."""
        return len(self.answer) + len(self.text or "") + len(self.vector or b"")

    @property
    def completion(self) -> Completion:
        """The answer, decoded anew at every look."""
        return _decode(self.answer)


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A stored answer whose question is near, and how near: cosine similarity, 1 is the same."""

    entry: Entry
    similarity: float


class Question(msgspec.Struct, frozen=True):
    """A request's last turn as text and vector, and the partition that it may be compared within."""

    text: str
    vector: Vector
    partition: bytes


class Hit(msgspec.Struct, frozen=True, gc=False):
    """An answer that may be served, and how sure we are of it (1 for an exact one)."""

    entry: Entry
    tier: Literal["exact", "semantic"]
    confidence: float = 1.0


class Miss(msgspec.Struct, frozen=True, gc=False):
    """Nothing to serve. `judgement` is the verdict on the nearest candidate, if there was one; `shadow` is set when it would
    have been served were the semantic tier not only watching."""

    judgement: Judgement | None = None
    shadow: bool = False


class Embedder(Protocol):
    """Guarantees: deterministic, unit length, never blocks the event loop; raises EmbedderUnavailable."""

    identity: str
    dimensions: int

    def fits(self, text: str) -> bool:
        """Whether the whole text shapes the vector. A longer one must not be compared: its end would not count."""
        ...

    async def embed(self, text: str) -> Vector:
        """The text's vector, shape (dimensions,)."""
        ...

    async def close(self) -> None:
        """Let go of the model."""
        ...


class CacheStore(Protocol):
    """Where entries lie. Guarantees: an entry and its vector are visible together or not at all; nothing is ever found under
    another Namespace than the one it was stored under; an expired entry is never found."""

    def peek(self, key: Key) -> Entry | None:
        """An exact entry that lies in this process, without waiting."""
        ...

    async def get(self, key: Key) -> Entry | None:
        """An exact entry, wherever it lies."""
        ...

    async def nearest(self, namespace: Namespace, partition: bytes, vector: Vector, count: int) -> Sequence[Candidate]:
        """The nearest entries of one partition, nearest first."""
        ...

    async def put(self, entry: Entry) -> None:
        """Store, replacing what lies under the same key."""
        ...

    def size(self) -> int:
        """How many entries there are."""
        ...

    def weight(self) -> int:
        """Bytes of all answers, texts and vectors."""
        ...

    async def close(self) -> None:
        """Make what is stored durable, where the store is, and let go of it."""
        ...


class CachePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How long answers live (seconds), whether the exact tier serves, and whether the semantic one serves, only watches, or is
    off."""

    exact: bool = True
    exact_ttl: float = 86_400.0
    semantic_ttl: float = 3_600.0
    semantic: Literal["on", "shadow", "off"] = "on"


class Cache:
    """Both tiers over one store."""

    def __init__(
        self,
        store: CacheStore,
        embedder: Embedder | None,
        verdict: Verdict,
        policy: CachePolicy,
        *,
        now: Callable[[], float] = time.time,
        patience: float = PATIENCE,
    ) -> None:
        """`embedder` is None where the semantic tier is off; `now` is the store's clock, unix seconds; `patience` bounds the wait
        for a vector, in seconds."""
        self.entries = store
        self._embedder = embedder if policy.semantic != "off" else None
        self._verdict = verdict
        self._policy = policy
        self._now = now
        self._patience = patience

    def peek(self, key: Key) -> Hit | None:
        """An exact hit in this process. Never waits, never raises."""
        if not self._policy.exact:
            return None
        try:
            entry = self.entries.peek(key)
        except Exception:
            log.exception("the cache could not be peeked at")
            return None
        return None if entry is None else Hit(entry, "exact")

    async def question(self, request: ChatRequest, wishes: Wishes) -> Question | None:
        """The request's question ready to compare, or None when the semantic tier has nothing to do with it."""
        embedder = self._embedder
        if embedder is None or wishes.cache == "exact":
            return None
        try:
            text = comparable(request)
            if text is None or not embedder.fits(text):
                return None
            async with asyncio.timeout(self._patience):
                vector = await embedder.embed(text)
            return Question(text, vector, partition(embedder.identity, request))
        except Exception as error:
            reason = str(error) or type(error).__name__
            log.warning("no vector, the request goes on without the semantic cache: %s", reason)
            return None

    async def lookup(self, key: Key, question: Question | None, wishes: Wishes) -> Hit | Miss:
        """The best answer that may be served."""
        try:
            entry = await self.entries.get(key) if self._policy.exact else None
            if entry is not None:
                return Hit(entry, "exact")
            if question is None:
                return Miss()
            return await self._similar(key.namespace, question, wishes)
        except Exception:
            log.exception("the cache could not be read, the request goes on without it")
            return Miss()

    async def _similar(self, namespace: Namespace, question: Question, wishes: Wishes) -> Hit | Miss:
        near = await self.entries.nearest(namespace, question.partition, question.vector, CANDIDATES)
        judgement = None
        for candidate in near:
            judged = self._verdict.judge(question.text, candidate.entry.text or "", candidate.similarity)
            if judged.serve and judged.confidence >= wishes.min_confidence:
                if self._policy.semantic == "shadow":
                    return Miss(judged, shadow=True)
                return Hit(candidate.entry, "semantic", judged.confidence)
            judgement = judgement or judged
        return Miss(judgement)

    async def store(
        self,
        key: Key,
        question: Question | None,
        completion: Completion,
        wishes: Wishes,
        *,
        id: str,
        worth: int,
        deployment: str,
    ) -> None:
        """Keep a complete answer. An incomplete one (cut by a limit or a filter) is not kept. Never raises."""
        if not completion.complete or not (self._policy.exact or question is not None):
            return
        now = self._now()
        exact, semantic = self._policy.exact_ttl, self._policy.semantic_ttl
        try:
            entry = Entry(
                id=id,
                key=key,
                answer=_encode(completion),
                stored=now,
                expires=now + (exact if wishes.ttl is None else wishes.ttl),
                worth=worth,
                deployment=deployment,
                tags=wishes.tags,
                partition=None if question is None else question.partition,
                text=None if question is None else question.text,
                vector=None if question is None else question.vector.tobytes(),
                semantic_until=now + (semantic if wishes.ttl is None else min(semantic, wishes.ttl)),
            )
            await self.entries.put(entry)
        except Exception:
            log.exception("the cache could not be written, the answer is not kept")

    def size(self) -> int:
        """How many entries are stored."""
        return self.entries.size()

    def weight(self) -> int:
        """Bytes of all stored answers, texts and vectors."""
        return self.entries.weight()

    async def close(self) -> None:
        """Let go of store and model."""
        await self.entries.close()
        if self._embedder is not None:
            await self._embedder.close()
