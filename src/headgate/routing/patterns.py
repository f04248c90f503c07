"""Patterns: regular expressions of an operator, run on texts of callers, whom nobody trusts.

Python's engine backtracks: some patterns take exponential time on some texts. The ways in which a pattern may match are therefore
counted before it is used, from above: a choice adds up, a sequence multiplies, and what is repeated counts once for every length
that it may have. The invariant: a pattern that is compiled here tries at most `MOST_WAYS` ways from each of at most `READ` places.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from typing import Any

READ = 1_000
"""Characters of a text that are read."""
MOST_WAYS = 2 * READ
LONGEST = 500
"""Characters of a pattern."""

# The engine's own parser: what it says is what will run. It has no public name, and no types.
_parser: Any = importlib.import_module("re._parser")
_ONE = frozenset({"LITERAL", "NOT_LITERAL", "ANY", "IN", "AT", "CATEGORY"})
_REPEATS = frozenset({"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"})


def compiled(text: str) -> re.Pattern[str]:
    """A pattern that finds its place in `READ` characters within some hundredths of a second, whatever they are; case does not count.

    Raises ValueError that says what is wrong.
    """
    if len(text) > LONGEST:
        raise ValueError(f"is longer than {LONGEST} characters")
    try:
        tree, pattern = _parser.parse(text, re.IGNORECASE), re.compile(text, re.IGNORECASE)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"is no regular expression: {error}") from None
    nodes = list(tree)
    if nodes and str(nodes[-1][0]) in _REPEATS and _ways(nodes[-1][1][2]) == 1:
        nodes.pop()  # after it nothing can fail, so its first length is its last
    if _ways(nodes) > MOST_WAYS:
        raise ValueError(
            "could take for ever on some texts: repeat without end (*, +) only once and only what has one length and no choice in it;"
            " elsewhere write how often, as in {1,9}"
        )
    return pattern


def found(pattern: re.Pattern[str], text: str) -> bool:
    """Whether it is found in the beginning of the text."""
    return pattern.search(text, 0, READ) is not None


def _ways(nodes: Iterable[tuple[Any, Any]]) -> int:
    """In how many ways a sequence may match at one place, at most; beyond `MOST_WAYS` it is not counted on."""
    ways = 1
    for kind, what in nodes:
        ways = min(ways * _ways_of(str(kind), what), MOST_WAYS + 1)
    return ways


def _ways_of(kind: str, what: Any) -> int:
    if kind in _ONE:
        return 1
    if kind in _REPEATS:
        return _repeated(*what)
    if kind == "BRANCH":
        return sum(_ways(branch) for branch in what[1])
    if kind == "SUBPATTERN":
        return _ways(what[3])
    if kind == "ATOMIC_GROUP":
        return _ways(what)
    if kind in ("ASSERT", "ASSERT_NOT"):
        return _ways(what[1])
    raise ValueError("refers back to what it has found, or asks whether it has; say it without")


def _repeated(least: int, most: int, body: Any) -> int:
    """What has one way to match can be repeated any number of times: there is one way for each number. What has two doubles each time."""
    ways = _ways(body)
    times = min(int(most), READ)
    if ways > 1:
        return min(ways ** min(times, 64), MOST_WAYS + 1) * (times - least + 1) if times > 1 else ways + 1 - least
    return times - min(least, times) + 1
