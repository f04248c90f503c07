"""Labels: keeps what becomes a metric label few, whatever callers send.

Every distinct label value is a time series that lives as long as the process. What callers can invent (the names of
models that do not exist) never becomes a label; what grows by itself (tenants, vendors' model names) stops at a bound.
"""

from __future__ import annotations

from collections.abc import Iterable

OTHER = "other"
NONE = "none"


class Labels:
    """The values that one label may have: the known ones and at most `most` others, first come."""

    def __init__(self, known: Iterable[str] = (), *, most: int = 0) -> None:
        self._values = {value: value for value in known}
        self._left = most

    def __call__(self, value: str | None) -> str:
        """The value itself, `none` when there is none, or `other`."""
        if not value:
            return NONE
        found = self._values.get(value)
        if found is not None:
            return found
        if self._left <= 0:
            return OTHER
        self._left -= 1
        self._values[value] = value
        return value
