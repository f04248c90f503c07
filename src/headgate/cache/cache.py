"""Cache: have we answered this already, for this tenant?

Two tiers. *Exact*: the same request, found in process without waiting. *Semantic*: a question that means the same, found by its
vector among the tenant's own questions under the same route and conversation, and served only when the verdict says so.

The cache fails open: whatever breaks here costs a hit, never an answer. Every lookup and every entry carries its Namespace. Here are
its values and Protocols; the two tiers are in `tiers.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import msgspec

from headgate.cache.conversation import Topic
from headgate.cache.verdict import Judgement
from headgate.model.chat import Completion
from headgate.model.tenancy import Key, Namespace

Vector = Any
"""A numpy array of float32 of unit length; typed loosely because numpy is loaded late."""


_decode = msgspec.msgpack.Decoder(Completion).decode


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A stored answer. Times are unix seconds; `worth` is what it cost to make, in nano-USD.

    The answer is kept encoded: a fifth of the memory, and nothing in a hundred thousand entries for the garbage collector to
    walk through. `partition`, `text` and `vector` are None for answers that are only found exactly; `vector` is in the form of
    `quantise.quantised`, and a store may leave it out of an entry that it hands out. `topic`, in the same form, is what the conversation
    was about in which it was asked, where that matters. `model` is what was asked for, `user` who asked.
    """

    id: str
    key: Key
    answer: bytes
    stored: float
    expires: float
    worth: int = 0
    deployment: str = ""
    model: str = ""
    user: str | None = None
    tags: tuple[str, ...] = ()
    partition: bytes | None = None
    text: str | None = None
    vector: bytes | None = None
    topic: bytes | None = None
    semantic_until: float = 0.0

    @property
    def completion(self) -> Completion:
        """The answer, decoded anew at every look."""
        return _decode(self.answer)


class Selection(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Some of one tenant's entries: those that fit every field that is given; of the `tags` one is enough.

    `model` is what was asked for, `entry` an id. Without any of the fields, it is all of them.
    """

    tenant: str
    tags: tuple[str, ...] = ()
    user: str | None = None
    namespace: str | None = None
    model: str | None = None
    entry: str | None = None

    def includes(self, entry: Entry) -> bool:
        """Whether the entry is one of them."""
        return (
            entry.key.namespace.tenant == self.tenant
            and (not self.tags or not set(self.tags).isdisjoint(entry.tags))
            and (self.user is None or entry.user == self.user)
            and (self.namespace is None or entry.key.namespace.name == self.namespace)
            and (self.model is None or entry.model == self.model)
            and (self.entry is None or entry.id == self.entry)
        )


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A stored answer whose question is near, and how near: cosine similarity, 1 is the same. `seems`: a name that it shares with
    those which seem to have its answer, though nobody has compared their answers: they speak neither for it nor against it."""

    entry: Entry
    similarity: float
    seems: str = ""


class Question(msgspec.Struct, frozen=True):
    """A request's last turn as text and vector.

    vector     None where the first stage says that nothing can be near: it is made when the answer is stored
    partition  what it may be compared within: the embedder's identity and everything but the last turn; where it is compared across
               conversations, without their turns
    scope      what it learns with: the same without the turns of the conversation
    topic      what its conversation is about, where it is compared across conversations
    """

    text: str
    vector: Vector | None
    partition: bytes
    scope: bytes
    topic: Topic | None = None

    def meets(self, entry: Entry) -> bool:
        """Whether the entry's question was asked in a conversation about nearly the same, where that matters."""
        return self.topic is None or self.topic.near(entry.topic)


class Search(msgspec.Struct, frozen=True):
    """What to look for by meaning: the `count` nearest to the vector within a partition."""

    partition: bytes
    vector: Vector
    count: int


class Hit(msgspec.Struct, frozen=True, gc=False):
    """An answer that may be served, and how sure we are of it (1 for an exact one). `stale`: its time is over, a fresh one is due;
    `judgement`: the verdict on one that was found by meaning."""

    entry: Entry
    tier: Literal["exact", "semantic"]
    confidence: float = 1.0
    stale: bool = False
    judgement: Judgement | None = None


class Judged(msgspec.Struct, frozen=True, gc=False):
    """A candidate and the verdict on it."""

    entry: Entry
    judgement: Judgement


class Miss(msgspec.Struct, frozen=True, gc=False):
    """Nothing to serve. `judgement` is the verdict on the most probable candidate, `near`, if there was one; `others` are those less
    probable that were read; `shadow` is set when it would have been served were the semantic tier not only watching; `candidates` are
    all that were looked at."""

    judgement: Judgement | None = None
    near: Entry | None = None
    others: tuple[Judged, ...] = ()
    shadow: bool = False
    candidates: Sequence[Candidate] = ()


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
    another Namespace than the one it was stored under; an expired entry is never found, unless a stale one will do; an answer that
    was asked for before an invalidation that includes it is never stored after it."""

    def peek(self, key: Key, *, stale: float = 0.0) -> Entry | None:
        """An exact entry that lies in this process, without waiting; at most `stale` seconds past its time. Where entries are shared by
        processes none does, so that what one of them invalidates is gone for all."""
        ...

    async def get(self, key: Key, *, stale: float = 0.0) -> Entry | None:
        """An exact entry, wherever it lies; at most `stale` seconds past its time."""
        ...

    async def nearest(self, namespace: Namespace, partition: bytes, vector: Vector, count: int) -> Sequence[Candidate]:
        """The nearest entries of one partition, nearest first."""
        ...

    async def look(
        self, key: Key, search: Search | None, *, exact: bool = True, stale: float = 0.0
    ) -> Entry | Sequence[Candidate]:
        """As `get`, if `exact`, and where that finds nothing as `nearest`: both in one step."""
        ...

    def used(self, key: Key) -> None:
        """Count a use of an entry that was found by its meaning. Never waits, never raises."""
        ...

    async def find(self, tenant: str, id: str) -> Entry | None:
        """The entry with this id, however it may be found."""
        ...

    async def selected(self, selection: Selection, *, skip: int = 0, count: int = 100) -> Sequence[Entry]:
        """The selected entries, newest first: `count` of them after the first `skip`; also stale ones."""
        ...

    def epoch(self, tenant: str) -> int:
        """A number that grows with each of the tenant's invalidations; what `put` wants to know from before the answer was asked for."""
        ...

    async def put(self, entry: Entry, *, epoch: int) -> bool:
        """Store, replacing what lies under the same key. False, and nothing is stored, when it was invalidated since `epoch`."""
        ...

    async def invalidate(self, selection: Selection) -> int:
        """Remove the selected entries, also from disk, and refuse those still on their way. Returns how many were removed."""
        ...

    def evictions(self) -> int:
        """How many entries have made room for others since the process began."""
        ...

    def size(self, tenant: str | None = None) -> int:
        """How many entries there are, of one tenant or of all; where they lie elsewhere, when it was last asked."""
        ...

    def weight(self, tenant: str | None = None) -> int:
        """Bytes that they take in memory: answers, texts, vectors, and what finding them costs."""
        ...

    async def close(self) -> None:
        """Make what is stored durable, where the store is, and let go of it."""
        ...


class SharedStore(CacheStore, Protocol):
    """A store that several processes share."""

    @property
    def compares(self) -> bool:
        """Whether what is found by its meaning is shared, too: then what others have stored is near to questions that this process never
        saw."""
        ...

    def watch(self, on_invalidated: Callable[[str], None]) -> None:
        """Have somebody told of every tenant of which something was invalidated, here or in another process."""
        ...

    async def refresh(self) -> None:
        """Let go of what is too old, and learn how all tenants stand. To be called about once a minute. Raises Overloaded."""
        ...
