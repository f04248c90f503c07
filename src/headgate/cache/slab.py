"""Packs by slot in large pieces of memory: no object for each, and no gaps that nothing fits into.

Invariant: a pack lies whole in one *sheet*, behind its slot and its length, and nothing else says where. The general allocator loses a
fifth of the memory when packs come between the short-lived arrays of a search. A sheet of which a fifth is dropped is rewritten: what
is left is added again, which takes as long as a few hundred additions, and the sheet is free.
"""

from __future__ import annotations

import struct
from array import array

_SHEET_BITS = 18
SHEET = 1 << _SHEET_BITS
"""Bytes of a sheet: a quarter of a MiB. What takes more than a quarter of that gets a sheet of its own."""
_LARGE = SHEET // 4
_OFFSET = SHEET - 1
_KEPT = 0.8
"""Part of a sheet that is used at least."""
_HEAD = struct.Struct("<II")
HEAD_BYTES = _HEAD.size
_NOWHERE = 0


class Slab:
    """Where the pack of each slot lies. A slot must be in `places`, which grows with whoever owns the slots."""

    def __init__(self, places: array[int]) -> None:
        """`places` is written by the slab: the sheet and the offset of a pack, 0 where there is none."""
        self._places = places
        # The first is never used, so that no pack lies at place 0.
        self._sheets: list[bytearray] = [bytearray()]
        self._used: list[int] = [0]
        self._free: list[int] = []
        self._open = 0
        self._end = SHEET

    @property
    def memory(self) -> int:
        """Bytes of all sheets."""
        return sum(len(sheet) for sheet in self._sheets)

    def holds(self, slot: int) -> bool:
        """Whether there is a pack for the slot."""
        return self._places[slot] != _NOWHERE

    def put(self, slot: int, pack: bytes) -> None:
        """Lay down the pack of a slot that has none."""
        size, full = HEAD_BYTES + len(pack), 0
        if size > _LARGE:
            number, start = self._sheet(size), 0
        else:
            if self._end + size > SHEET:
                full, self._open, self._end = self._open, self._sheet(SHEET), 0
            number, start = self._open, self._end
            self._end += size
        sheet = self._sheets[number]
        _HEAD.pack_into(sheet, start, slot, len(pack))
        sheet[start + HEAD_BYTES : start + size] = pack
        self._used[number] += size
        self._places[slot] = number << _SHEET_BITS | start
        if full:
            self._thin(full)

    def find(self, slot: int) -> tuple[bytearray, int]:
        """The sheet in which the slot's pack lies, and where in it the pack begins. Good until the next `put` or `drop`."""
        place = self._places[slot]
        return self._sheets[place >> _SHEET_BITS], (place & _OFFSET) + HEAD_BYTES

    def get(self, slot: int) -> bytes:
        """The slot's pack."""
        sheet, start = self.find(slot)
        return bytes(sheet[start : start + _HEAD.unpack_from(sheet, start - HEAD_BYTES)[1]])

    def size(self, slot: int) -> int:
        """Bytes of the slot's pack."""
        sheet, start = self.find(slot)
        length: int = _HEAD.unpack_from(sheet, start - HEAD_BYTES)[1]
        return length

    def drop(self, slot: int) -> None:
        """Let go of the slot's pack."""
        number = self._places[slot] >> _SHEET_BITS
        self._used[number] -= HEAD_BYTES + self.size(slot)
        self._places[slot] = _NOWHERE
        if number != self._open:
            self._thin(number)

    def _sheet(self, size: int) -> int:
        number = self._free.pop() if self._free else len(self._sheets)
        if number == len(self._sheets):
            self._sheets.append(bytearray())
            self._used.append(0)
        self._sheets[number] = bytearray(size)
        return number

    def _thin(self, number: int) -> None:
        """Free a sheet that is not used enough."""
        sheet = self._sheets[number]
        if self._used[number] > _KEPT * len(sheet):
            return
        left = self._left(number) if self._used[number] else []
        self._sheets[number], self._used[number] = bytearray(), 0
        self._free.append(number)
        for slot, pack in left:
            self.put(slot, pack)

    def _left(self, number: int) -> list[tuple[int, bytes]]:
        """The packs that still lie in a sheet."""
        sheet, start, left = self._sheets[number], 0, list[tuple[int, bytes]]()
        while start + HEAD_BYTES <= len(sheet):
            slot, length = _HEAD.unpack_from(sheet, start)
            if not length:
                break
            if self._places[slot] == number << _SHEET_BITS | start:
                left.append((slot, bytes(sheet[start + HEAD_BYTES : start + HEAD_BYTES + length])))
            start += HEAD_BYTES + length
        return left
