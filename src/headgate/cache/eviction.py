"""Which entry goes when a tenant is at its bound: the one that saves least for the memory it takes.

GreedyDual-Size-Frequency (Cherkasova, "Improving WWW proxies performance with Greedy-Dual-Size-Frequency caching policy", HP
Laboratories, HPL-98-69R1, 1998): an entry's priority is

    floor + uses * cost / size

with the floor as it was when that was last worked out; the entry with the lowest priority goes, and its priority is the new floor. So
what was dear, small or often asked for stays longer, and nothing stays for ever on the strength of what it was once. Here a use
is only counted, and the priority worked out anew when the entry would be the next to go: a hit then costs nothing but the count.
"""

from __future__ import annotations

from array import array


class Ranking:
    """Slots in a binary heap, lowest priority first, of equals the one with the lowest number.

    Every call but `first` takes O(log n) steps. Priorities and numbers lie in arrays by slot that are shared with whoever owns the
    slots; so does the place of each slot in its heap, which is this object's to write.
    """

    def __init__(self, priorities: array[float], numbers: array[int], places: array[int]) -> None:
        self._priorities = priorities
        self._numbers = numbers
        self._places = places
        self._heap: array[int] = array("I")

    def __len__(self) -> int:
        return len(self._heap)

    def slots(self) -> list[int]:
        """All slots as they are now, in no order."""
        return self._heap.tolist()

    def first(self) -> int:
        """The slot with the lowest priority. There must be one."""
        return self._heap[0]

    def add(self, slot: int) -> None:
        """Add a slot with its priority."""
        self._heap.append(slot)
        self._rise(len(self._heap) - 1)

    def remove(self, slot: int) -> None:
        """Remove a slot."""
        place = self._places[slot]
        last = self._heap.pop()
        if last != slot:
            self._heap[place] = last
            self._sink(place)
            self._rise(self._places[last])

    def raised(self, slot: int) -> None:
        """The slot's priority has grown."""
        self._sink(self._places[slot])

    def _before(self, one: int, other: int) -> bool:
        mine, its = self._priorities[one], self._priorities[other]
        return mine < its or (mine == its and self._numbers[one] < self._numbers[other])

    def _rise(self, place: int) -> None:
        heap, places = self._heap, self._places
        slot = heap[place]
        while place:
            above = (place - 1) >> 1
            if not self._before(slot, heap[above]):
                break
            heap[place] = heap[above]
            places[heap[place]] = place
            place = above
        heap[place] = slot
        places[slot] = place

    def _sink(self, place: int) -> None:
        heap, places = self._heap, self._places
        size = len(heap)
        slot = heap[place]
        while (below := 2 * place + 1) < size:
            if below + 1 < size and self._before(heap[below + 1], heap[below]):
                below += 1
            if not self._before(heap[below], slot):
                break
            heap[place] = heap[below]
            places[heap[place]] = place
            place = below
        heap[place] = slot
        places[slot] = place


class Quota:
    """One tenant's entries: how many, how heavy, and in which order they would go."""

    __slots__ = ("floor", "ranking", "weight")

    def __init__(self, ranking: Ranking) -> None:
        self.ranking = ranking
        self.weight = 0
        self.floor = 0.0


def priority(floor: float, uses: int, worth: int, weight: int) -> float:
    """What the docstring of this module says; `worth` in nano-USD, `weight` in bytes. An answer that cost nothing still saves time."""
    return floor + uses * (worth + 1) / weight
