"""Kinship: which stored entries are known to have the same answer, though their questions differ.

What is near to several entries with one answer is more surely right than what is near to one; what lies between two that have different
answers is less so. Nothing is taken for granted: entries are kin only when a judge found their answers the same.

One invariant: kinship never joins entries of different scopes. Bounded: the oldest families are forgotten.
"""

from __future__ import annotations

from collections import OrderedDict

from headgate.cache.labels import Scope


class Kinship:
    """Families of entries: each entry has the name of one, at first its own."""

    def __init__(self, *, most: int) -> None:
        """At most so many entries are remembered to have kin."""
        self._most = most
        self._families: OrderedDict[tuple[Scope, str], str] = OrderedDict()

    def family(self, scope: Scope, entry: str) -> str:
        """The name of the entry's family."""
        return self._families.get((scope, entry), entry)

    def join(self, scope: Scope, entry: str, other: str) -> None:
        """A new `entry` has the answer of `other`."""
        self._families[scope, entry] = self.family(scope, other)
        if len(self._families) > self._most:
            self._families.popitem(last=False)
