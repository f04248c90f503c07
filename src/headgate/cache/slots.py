"""The rows of the shelf: what is kept for each entry, in arrays by slot.

Invariant: a slot is either taken, and every array says something of its entry, or free, and has no pack. Eight bytes in an array are
eight bytes; the same number in an object and the reference to it are forty.
"""

from __future__ import annotations

from array import array

from headgate.cache.slab import Slab

MOST_USES = 255


class Slots:
    """What is known of each slot.

    packs       the entry, packed; none where the slot is free
    numbers     of the entry, growing with time and never given to another
    places      number of its namespace and partition
    makes       number of who made the answer, and what was asked for
    uses        how often it was asked for, at most `MOST_USES`
    used        1 when that was after its priority was worked out
    searchable  1 when its vector is in the index of its partition
    priorities  how long it is worth keeping
    ranks       where it stands in its tenant's ranking
    flat        where its vector lies in an index
    """

    def __init__(self) -> None:
        self._lying: array[int] = array("Q")
        self.packs = Slab(self._lying)
        self.numbers: array[int] = array("Q")
        self.places: array[int] = array("I")
        self.makes: array[int] = array("I")
        self.uses: array[int] = array("B")
        self.used: array[int] = array("B")
        self.searchable: array[int] = array("B")
        self.priorities: array[float] = array("d")
        self.ranks: array[int] = array("I")
        self.flat: array[int] = array("I")
        self._free: array[int] = array("I")

    def __len__(self) -> int:
        return len(self._lying)

    def take(self) -> int:
        """A free slot."""
        if not self._free:
            self.reserve(len(self) + 1)
            return len(self) - 1
        return self._free.pop()

    def reserve(self, count: int) -> None:
        """Have at least `count` slots. New ones are given out by `take` only after `release`; until then they are for whoever asked."""
        more = max(0, count - len(self))
        columns = self._lying, self.numbers, self.places, self.makes, self.uses, self.used, self.searchable
        for column in (*columns, self.ranks, self.flat):
            column.frombytes(bytes(more * column.itemsize))
        self.priorities.frombytes(bytes(more * self.priorities.itemsize))

    def release(self) -> None:
        """Let `take` give out every slot that nothing was written to."""
        self._free = array("I", (slot for slot in range(len(self) - 1, -1, -1) if not self.packs.holds(slot)))

    def give(self, slot: int) -> None:
        """The slot's entry is gone."""
        self.packs.drop(slot)
        self._free.append(slot)
