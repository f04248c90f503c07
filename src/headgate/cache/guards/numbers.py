"""Numbers with their units, currencies, and all that is written for machines: dates, versions, ids, addresses, code."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from headgate.cache.guards.difference import Difference, difference
from headgate.cache.guards.pair import Pair
from headgate.cache.guards.parsed import Token
from headgate.cache.guards.values import CURRENCIES

_NEAR: Final = 0.25
"""How far apart (`Pair.apart`) two texts may be otherwise for another currency or date to forbid the answer."""
_TYPED: Final = ("date", "time", "version", "id", "email", "url", "path", "code", "mixed")
_FIGURES: Final = ("date", "time", "version", "mixed", "id")
_MONEY: Final = frozenset(CURRENCIES.values()) | {"franc", "cent"}


def numbers(pair: Pair) -> Iterator[Difference]:
    """Numbers that one text alone has. Where only one of the two has any, that is harmless in most questions ("top 10"), but never
    where one reckons."""
    one, other = _of(pair.lonely, "number"), _of(pair.others, "number")
    _settle(one, pair.others)
    _settle(other, pair.lonely)
    figures, rivals = _of(pair.lonely, *_FIGURES), _of(pair.others, *_FIGURES)
    mixed = figures and rivals and {token.kind for token in figures} != {token.kind for token in rivals}
    if one or other or mixed:
        # "2 pm" and "2:30 pm": a number on the one side, and a time on the other.
        one, other = one or figures, other or rivals
        yield difference("number", _plain(one), _plain(other), veto=bool(one and other) or pair.reckons)


def _of(tokens: tuple[Token, ...], *kinds: str) -> list[Token]:
    return [token for token in tokens if token.kind in kinds]


def _settle(numbers: list[Token], others: tuple[Token, ...]) -> None:
    """A "1" is answered by a "one", which by itself is no number."""
    if any(token.key == "one" for token in others):
        first = next((token for token in numbers if token.key == "#1"), None)
        if first:
            numbers.remove(first)


def units(pair: Pair) -> Iterator[Difference]:
    """The same number of something else: 5 km and 5 miles, 20 % and 20."""
    there = _measured(pair.other.tokens)
    for value, here in _measured(pair.one.tokens).items():
        if value not in there or here & there[value]:
            continue
        one, other = sorted(here - {""}), sorted(there[value] - {""})
        if one and other:
            guard = "percent" if "%" in one + other else "currency" if _MONEY.issuperset(one + other) else "unit"
            yield difference(guard, (value + unit for unit in one), (value + unit for unit in other), veto=True)
        elif "%" in one + other:
            yield difference("percent", [value, *one], [value, *other], veto=False)


def _measured(tokens: tuple[Token, ...]) -> dict[str, set[str]]:
    """The units of each number."""
    found: dict[str, set[str]] = defaultdict(set)
    for token in tokens:
        if token.kind == "number":
            found[token.key[1:]].add(token.unit)
    return found


def currencies(pair: Pair) -> Iterator[Difference]:
    """A currency that one text names and the other does not; two different ones are two alternatives."""
    one, other = _money(pair.one.tokens), _money(pair.other.tokens)
    if one != other:
        seen = [token for token in (*pair.lonely, *pair.others) if "money" in token.kinds]
        veto = bool(one and other and not one & other) and pair.apart(*seen) <= _NEAR
        yield difference("currency", sorted(one - other), sorted(other - one), veto=veto)


def _money(tokens: tuple[Token, ...]) -> set[str]:
    named = {token.key for token in tokens if "money" in token.kinds}
    return named | {token.unit for token in tokens if token.unit in _MONEY} - {"cent"}


def typed(pair: Pair) -> Iterator[Difference]:
    """What is written for machines is the same to the letter."""
    kinds = {token.kind for token in (*pair.lonely, *pair.others)}
    for kind in _TYPED:
        if kind in kinds:
            one, other = _of(pair.lonely, kind), _of(pair.others, kind)
            near = bool(one and other) and pair.apart(*one, *other) <= _NEAR
            guard = "id" if kind == "mixed" else kind
            yield difference(guard, _plain(one), _plain(other), veto=near or (pair.reckons and kind != "url"))


def _plain(tokens: list[Token]) -> list[str]:
    return sorted(token.key.removeprefix("#").removeprefix(f"{token.kind}:") for token in tokens)
