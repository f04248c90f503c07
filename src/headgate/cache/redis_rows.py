"""Rows: how an entry lies in Redis. Its name, its head, its body, and the place of its vector.

The *head* is all by which an entry is chosen, ranked and let go; the scripts read its fixed part. The *body* is what only who is given the
answer wants to see. Invariant: `opened(tenant, head, body)` is the entry, but for its vector.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable

import msgspec

from headgate.cache.cache import Entry
from headgate.model.tenancy import Key, Namespace

DIGEST_BYTES = 32
LONGEST_ID = 127
ENTRY_BYTES = 650
"""What an entry takes in Redis beside its head and its body: five keys' places and the texts in them."""
NOWHERE = bytes(16)

_FIXED = struct.Struct("<ddddII16sB")
"""Worth, expires, semantic until, ends; weight, and of the vector; place; bytes of the id. In Redis the entry's number comes first."""
_NUMBER = struct.Struct("<d")


class _Head(msgspec.Struct, array_like=True, gc=False):
    digest: bytes
    namespace: bytes
    stored: float
    deployment: str
    model: str
    user: str | None
    tags: tuple[str, ...]


class _Body(msgspec.Struct, array_like=True, gc=False):
    partition: bytes | None
    text: str | None
    topic: bytes | None
    answer: bytes


_encode = msgspec.msgpack.Encoder().encode
_head = msgspec.msgpack.Decoder(_Head).decode
_body = msgspec.msgpack.Decoder(_Body).decode


class Row(msgspec.Struct, frozen=True, gc=False):
    """An entry as it goes to Redis. `vector`: float32, empty for one that is found exactly alone; `weight` is of all together."""

    name: bytes
    head: bytes
    body: bytes
    vector: bytes
    weight: int


def name_of(key: Key) -> bytes:
    """What an entry is called within its tenant, 16 bytes. That two have the same is not to be expected; if so they are told apart by
    what is in the head."""
    return hashlib.blake2b(key.digest + _text(key.namespace.name), digest_size=16).digest()


def place_of(namespace: Namespace, partition: bytes) -> bytes:
    """What the vectors of a partition of a namespace lie under within its tenant, 16 bytes."""
    name = _text(namespace.name)
    return hashlib.blake2b(len(name).to_bytes(8, "little") + name + partition, digest_size=16).digest()


def row(entry: Entry, *, heavier: Callable[[int], int] | None, stale_for: float, now: float) -> Row:
    """The row of an entry. `heavier`: bytes that a vector of so many dimensions takes, None for a row without one. Raises ValueError for
    an entry that cannot be kept: a digest that is none, an id that is too long, text that no encoding has, times that are none or over, a
    vector without a direction."""
    id, ending = entry.id.encode(), entry.expires + stale_for
    if len(entry.key.digest) != DIGEST_BYTES or len(id) > LONGEST_ID or not now < ending < math.inf:
        raise ValueError("an entry that cannot be kept")
    vector, place, more = b"", NOWHERE, 0
    live = min(entry.expires, entry.semantic_until) > now
    if live and heavier is not None and entry.vector is not None and entry.partition is not None:
        vector, place = _floats(entry.vector), place_of(entry.key.namespace, entry.partition)
        more = heavier(len(entry.vector))
    body = _encode(_Body(entry.partition, entry.text, entry.topic, entry.answer))
    rest = id + _encode(
        _Head(
            entry.key.digest,
            _text(entry.key.namespace.name),
            entry.stored,
            entry.deployment,
            entry.model,
            entry.user,
            entry.tags,
        )
    )
    weight = len(body) + _NUMBER.size + _FIXED.size + len(rest) + ENTRY_BYTES
    fixed = _FIXED.pack(entry.worth, entry.expires, entry.semantic_until, ending, weight, more, place, len(id))
    return Row(name_of(entry.key), fixed + rest, body, vector, weight + more)


def number_of(head: bytes) -> float:
    """The number of the entry, which grows with time and is never another's of its tenant."""
    (number,) = _NUMBER.unpack_from(head)
    return float(number)


def opened(tenant: str, head: bytes, body: bytes | None) -> Entry:
    """The entry; without a body, all of it by which it may be selected."""
    worth, expires, semantic, _, _, _, _, length = _FIXED.unpack_from(head, _NUMBER.size)
    start = _NUMBER.size + _FIXED.size
    about = _head(head[start + length :])
    rest = _Body(None, None, None, b"") if body is None else _body(body)
    return Entry(
        id=head[start : start + length].decode(),
        key=Key(Namespace(tenant, about.namespace.decode(errors="surrogatepass")), about.digest),
        answer=rest.answer,
        stored=about.stored,
        expires=expires,
        worth=int(worth),
        deployment=about.deployment,
        model=about.model,
        user=about.user,
        tags=about.tags,
        partition=rest.partition,
        text=rest.text,
        topic=rest.topic,
        semantic_until=semantic,
    )


def _floats(stored: bytes) -> bytes:
    """A quantised vector as float32. Redis makes the same signed bytes of it again."""
    import numpy as np  # late: whoever made the vector has loaded it

    if not any(stored):
        raise ValueError("a vector without a direction")
    return np.frombuffer(stored, np.int8).astype(np.float32).tobytes()


def _text(name: str) -> bytes:
    return name.encode(errors="surrogatepass")
