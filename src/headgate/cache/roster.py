"""What many entries have in common, kept once and called by a number: who made an answer, and the partitions.

Invariant: a number stands for one value as long as anybody holds it, and is given to another value afterwards.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Roster(Generic[T]):
    """Values by number and numbers by value, counted."""

    def __init__(self) -> None:
        self._numbers: dict[T, int] = {}
        self._values: list[T] = []
        self._held: array[int] = array("I")
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, number: int) -> T:
        return self._values[number]

    def number(self, value: T) -> int | None:
        """The number of a value that somebody holds."""
        return self._numbers.get(value)

    def take(self, value: T) -> int:
        """Hold a value, once more."""
        number = self._numbers.get(value)
        if number is None:
            number = self._new(value)
        self._held[number] += 1
        return number

    def _new(self, value: T) -> int:
        if self._free:
            number = self._free.pop()
            self._values[number] = value
        else:
            number = len(self._values)
            self._values.append(value)
            self._held.append(0)
        self._numbers[value] = number
        return number

    def give(self, number: int) -> bool:
        """Hold it once less. True when nobody does any more."""
        self._held[number] -= 1
        if self._held[number]:
            return False
        del self._numbers[self._values[number]]
        self._free.append(number)
        return True
