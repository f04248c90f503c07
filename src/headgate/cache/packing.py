"""Entries as they lie in memory and in the file: one run of bytes, the same in both.

Invariant: `opened(packed(entry), ...)` is the entry, but for its vector, which lies in an index and nowhere else. A hundred thousand
Python objects with a dozen fields each would weigh more than the questions and answers that they describe.
"""

from __future__ import annotations

import struct
from binascii import hexlify, unhexlify

import msgspec

from headgate.cache.cache import Entry
from headgate.cache.kept import Make
from headgate.model.tenancy import Key, Namespace

DIGEST_BYTES = 32
Buffer = bytes | bytearray

_HEAD = struct.Struct("<32sdddqB")
"""Digest, stored, expires, semantic_until, worth, and the bytes of the id, which comes next; hexadecimal ones at half the length."""
_TIMES = struct.Struct("<dd")
_WORTH = struct.Struct("<q")
_IS_HEX = 0x80


class _Rest(msgspec.Struct, array_like=True, gc=False):
    user: str | None
    tags: tuple[str, ...]
    text: str | None
    topic: bytes | None
    answer: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Rest).decode


def packed(entry: Entry) -> bytes:
    """The entry without its place, make and vector. Raises ValueError for one that cannot be kept: a digest that is none, an id of
    more than 127 bytes, text that no encoding has."""
    if len(entry.key.digest) != DIGEST_BYTES:
        raise ValueError("a key's digest has 32 bytes")
    id = entry.id.encode()
    mark = len(id)
    if mark >= _IS_HEX:
        raise ValueError("an id has 127 bytes at most")
    raw = _unhexed(id)
    if raw is not None:
        id, mark = raw, len(raw) | _IS_HEX
    head = _HEAD.pack(entry.key.digest, entry.stored, entry.expires, entry.semantic_until, entry.worth, mark)
    return head + id + _encode(_Rest(entry.user, entry.tags, entry.text, entry.topic, entry.answer))


def opened(pack: bytes, namespace: Namespace, partition: bytes | None, make: Make) -> Entry:
    """The entry, without its vector."""
    digest, stored, expires, semantic_until, worth, mark = _HEAD.unpack_from(pack)
    end = _HEAD.size + (mark & ~_IS_HEX)
    raw = pack[_HEAD.size : end]
    rest = _decode(pack[end:])
    return Entry(
        id=(hexlify(raw) if mark & _IS_HEX else raw).decode(),
        key=Key(namespace, digest),
        answer=rest.answer,
        stored=stored,
        expires=expires,
        worth=worth,
        deployment=make.deployment,
        model=make.model,
        user=rest.user,
        tags=rest.tags,
        partition=partition,
        text=rest.text,
        topic=rest.topic,
        semantic_until=semantic_until,
    )


def ends(pack: Buffer, start: int = 0) -> tuple[float, float]:
    """When the entry expires, and when it stops being found by its meaning; unix seconds. The pack begins at `start`."""
    expires, semantic_until = _TIMES.unpack_from(pack, start + DIGEST_BYTES + 8)
    return expires, min(expires, semantic_until)


def worth(pack: Buffer, start: int = 0) -> int:
    """What the answer cost to make, in nano-USD."""
    (nanos,) = _WORTH.unpack_from(pack, start + DIGEST_BYTES + 24)
    return int(nanos)


def digest(pack: Buffer, start: int = 0) -> bytes:
    """The digest of the key."""
    return bytes(pack[start : start + DIGEST_BYTES])


def id_of(pack: Buffer, start: int = 0) -> bytes:
    """The entry's id, as UTF-8."""
    begin = start + _HEAD.size
    mark = pack[begin - 1]
    raw = bytes(pack[begin : begin + (mark & ~_IS_HEX)])
    return hexlify(raw) if mark & _IS_HEX else raw


def _unhexed(id: bytes) -> bytes | None:
    """Half as many bytes, when that loses nothing."""
    try:
        raw = unhexlify(id)
    except ValueError:
        return None
    return raw if hexlify(raw) == id else None
