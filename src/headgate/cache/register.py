"""A hash table from what identifies an entry to the number of its slot, in six bytes for each place of the table.

Invariant: it holds nothing but numbers and a tag of each one's hash; whether a slot with the right tag is the one that is looked for is
asked of whoever has the slots. A dict of a hundred thousand keys takes ten times the memory. Open addressing with linear probing
(Knuth, The Art of Computer Programming, vol. 3, 6.4, algorithm L), in many small tables: growing one of them is all that any call
ever waits for.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable

_TABLES = 256
_EMPTY, _LEFT = 0, 1
"""Tags of places that were never used, and that are used no more."""
_TAGS = 0xFFFF - _LEFT
_SMALLEST = 8
_FULL = 0.8
_MASK = 0xFFFF_FFFF_FFFF_FFFF


class _Table:
    """One of them; its size is a power of two. A place is where a slot's tag and the slot lie."""

    __slots__ = ("slots", "tags", "used")

    def __init__(self, size: int) -> None:
        self.tags = array("H", bytes(2 * size))
        self.slots = array("I", bytes(4 * size))
        self.used = 0
        """Places that are not empty."""

    def put(self, hash: int, slot: int) -> None:
        """In the first place that is free."""
        tags = self.tags
        mask = len(tags) - 1
        place = (hash >> 8) & mask
        while tags[place] > _LEFT:
            place = (place + 1) & mask
        self.used += tags[place] == _EMPTY
        tags[place] = _tag(hash)
        self.slots[place] = slot

    def is_full(self) -> bool:
        """Whether another slot would make searches long."""
        return self.used + 1 > _FULL * len(self.tags)

    def held(self) -> list[int]:
        """All slots."""
        return [slot for tag, slot in zip(self.tags, self.slots, strict=True) if tag > _LEFT]


class Register:
    """Slots by hash; several may have the same."""

    def __init__(self, hash_of: Callable[[int], int]) -> None:
        """`hash_of` gives the hash under which a slot was added; asked when a table grows."""
        self._hash_of = hash_of
        self._tables: list[_Table | None] = [None] * _TABLES

    def reserve(self, count: int) -> None:
        """Have room for so many slots, in a register that is empty."""
        # One in four more than their share, for some tables get more slots than others.
        size = _size(count * 5 // (4 * _TABLES))
        self._tables = [_Table(size) for _ in range(_TABLES)]

    def find(self, hash: int, fits: Callable[[int], bool]) -> int | None:
        """The slot under this hash that `fits`."""
        hash &= _MASK
        table = self._tables[hash % _TABLES]
        if table is None:
            return None
        tags, wanted = table.tags, _tag(hash)
        mask = len(tags) - 1
        place = (hash >> 8) & mask
        while tag := tags[place]:
            if tag == wanted and fits(table.slots[place]):
                return table.slots[place]
            place = (place + 1) & mask
        return None

    def every(self, hash: int, fits: Callable[[int], bool]) -> list[int]:
        """All slots under this hash that fit."""
        found: list[int] = []
        while (slot := self.find(hash, lambda slot: slot not in found and fits(slot))) is not None:
            found.append(slot)
        return found

    def add(self, hash: int, slot: int) -> None:
        """Add a slot."""
        hash &= _MASK
        table = self._tables[hash % _TABLES]
        if table is None or table.is_full():
            table = self._tables[hash % _TABLES] = self._grown(table)
        table.put(hash, slot)

    def _grown(self, table: _Table | None) -> _Table:
        """A table with at least half of its places empty, and without those that are used no more."""
        held = [] if table is None else table.held()
        new = _Table(_size(len(held) + 1))
        for slot in held:
            new.put(self._hash_of(slot) & _MASK, slot)
        return new

    def remove(self, hash: int, slot: int) -> None:
        """Remove a slot that was added under this hash."""
        hash &= _MASK
        table = self._tables[hash % _TABLES]
        if table is None:
            return
        mask = len(table.tags) - 1
        place = (hash >> 8) & mask
        while tag := table.tags[place]:
            if tag != _LEFT and table.slots[place] == slot:
                table.tags[place] = _LEFT
                return
            place = (place + 1) & mask


def _tag(hash: int) -> int:
    return (hash >> 48) % _TAGS + _LEFT + 1


def _size(count: int) -> int:
    """Of a table in which so many take between three and six tenths of the places, about."""
    return max(_SMALLEST, 1 << (count * 8 // 5).bit_length())
