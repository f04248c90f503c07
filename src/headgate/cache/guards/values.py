"""What numbers and units mean: "1,000" is 1000, "two" is 2, "$" is the dollar. Invariant: digits stay text, so no number is too long."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_GROUPED = re.compile(r"\d{1,3}(?:,\d{2,3})+(?:\.\d+)?")

SMALL: Final = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen".split()
    )
} | {word: 10 * tens for tens, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
"""Number words below a hundred."""

MULTIPLES: Final = {
    "hundred": 100, "thousand": 1_000, "k": 1_000, "lakh": 100_000, "lac": 100_000, "million": 1_000_000, "mn": 1_000_000,
    "crore": 10_000_000, "billion": 1_000_000_000, "bn": 1_000_000_000, "trillion": 1_000_000_000_000,
}  # fmt: skip

ORDINALS: Final = {
    word: value
    for value, word in enumerate("third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split(), 3)
} | {"first": 1}
"""Without "second", which is mostly a unit of time."""

PARTS: Final = {word: str(value) for word, value in ORDINALS.items() if value > 2} | {
    word + "s": str(value) for word, value in ORDINALS.items() if value > 2
} | {"half": "2", "halves": "2", "quarter": "4", "quarters": "4"}  # fmt: skip
"""What the word stands under a one for: "two thirds" are 2/3."""

MULTIPLIERS: Final = {
    "once": "1x", "twice": "2x", "double": "2x", "doubles": "2x", "doubled": "2x", "thrice": "3x", "triple": "3x", "triples": "3x",
    "tripled": "3x", "quadruple": "4x", "dozen": "12", "dozens": "12", "single": "1", "couple": "2", "half": "1/2", "halves": "1/2", "halved": "1/2",
}  # fmt: skip

ROMAN: Final = {
    "ii": "2", "iii": "3", "vii": "7", "viii": "8", "ix": "9", "xii": "12", "xiii": "13", "xiv": "14", "xvi": "16", "xviii": "18",
}  # fmt: skip
"""Roman numerals that are nothing else, as I, IV, V, VI and X are."""

CURRENCIES: Final = {"$": "dollar", "€": "euro", "£": "pound", "¥": "yen", "₹": "rupee", "₽": "ruble", "₩": "won"}

UNITS: Final = {
    form: unit
    for unit, forms in {
        "%": "% percent percents percentage",
        "km": "km kms kilometer kilometers kilometre kilometres",
        "m": "m meter meters metre metres",
        "cm": "cm cms centimeter centimeters centimetre centimetres",
        "mm": "mm millimeter millimeters millimetre millimetres",
        "mile": "mile miles mi",
        "foot": "foot feet ft",
        "inch": "inch inches",
        "yard": "yard yards yd",
        "kg": "kg kgs kilo kilos kilogram kilograms",
        "g": "g gram grams gm gms",
        "mg": "mg milligram milligrams",
        "mcg": "mcg microgram micrograms",
        "lb": "lb lbs",
        "ounce": "ounce ounces oz",
        "ton": "ton tons tonne tonnes",
        "liter": "liter liters litre litres l",
        "ml": "ml milliliter milliliters millilitre millilitres",
        "gallon": "gallon gallons",
        "cup": "cup cups",
        "second": "seconds sec secs",
        "minute": "minute minutes min mins",
        "hour": "hour hours hr hrs",
        "day": "day days",
        "week": "week weeks",
        "month": "month months",
        "year": "year years yr yrs yo",
        "gb": "gb gig gigs gigabyte gigabytes",
        "mb": "mb megabyte megabytes",
        "kb": "kb kilobyte kilobytes",
        "tb": "tb terabyte terabytes",
        "mbps": "mbps",
        "ghz": "ghz",
        "mhz": "mhz",
        "hz": "hz hertz",
        "v": "volt volts",
        "w": "w watt watts",
        "kw": "kw kilowatt kilowatts",
        "amp": "amp amps ampere amperes",
        "mah": "mah",
        "c": "celsius",
        "f": "fahrenheit",
        "mph": "mph",
        "kmh": "kmh kmph",
        "cc": "cc",
        "am": "am",
        "pm": "pm",
        "dollar": "dollar dollars usd bucks $",
        "euro": "euro euros eur €",
        "pound": "pound pounds gbp £",
        "rupee": "rupee rupees inr rs ₹",
        "yen": "yen jpy ¥",
        "franc": "franc francs chf",
        "ruble": "ruble rubles rub ₽",
        "won": "₩",
        "cent": "cent cents",
    }.items()
    for form in forms.split()
}
"""Forms that stand behind a number, and the unit that they are."""


def plain(number: str) -> str:
    """One form for one value: no groups, no leading zeros, no ".0". A currency sign goes too, then also "2.50" is 2.5.

    "3.10" stays, because of a version it is not 3.1.
    """
    number = number.removeprefix("+")
    sign = "-" if number.startswith("-") else ""
    digits = number.lstrip("+-")
    priced = digits[:1] in CURRENCIES
    digits = digits.lstrip("$€£¥₹₽₩")
    if _GROUPED.fullmatch(digits):
        digits = digits.replace(",", "")
    whole, point, fraction = digits.partition(".")
    fraction = fraction.rstrip("0") if priced or not fraction.strip("0") else fraction
    whole = whole.lstrip("0") or "0"
    return f"{sign}{whole}{point if fraction else ''}{fraction}"


def times(number: str, factor: int) -> str:
    """A plain number so many times: "1.5" million is 1500000. The factor is a power of ten."""
    zeros = len(str(factor)) - 1
    whole, _, fraction = number.partition(".")
    moved = (fraction + "0" * zeros)[: max(zeros, len(fraction))]
    return plain(f"{whole}{moved[:zeros]}.{moved[zeros:]}".rstrip("."))


def spelled(words: Sequence[str], at: int) -> tuple[str, int]:
    """The number that is spelled from `words[at]` on, and where it ends; nothing is spelled where that is `at`.

    "one" alone is no number: it mostly stands for something else ("which one").
    """
    total, current, here = 0, 0, at
    while here < len(words):
        word = words[here]
        if word in SMALL and (here == at or words[here - 1] not in SMALL or _fits(current, SMALL[word])):
            current += SMALL[word]
        elif word in MULTIPLES and (current or total or here == at) and len(word) > 2:
            current = max(current, 1) * MULTIPLES[word]
            if MULTIPLES[word] > 100:
                total, current = total + current, 0
        elif (
            word == "and"
            and here > at
            and words[here - 1] in MULTIPLES
            and words[here + 1 : here + 2]
            and words[here + 1] in SMALL
        ):
            pass
        else:
            break
        here += 1
    if here == at + 1 and words[at] == "one":
        return "", at
    return str(total + current), here


def _fits(current: int, small: int) -> bool:
    """Whether a small number continues tens: "twenty" and "five", not "two" and "five"."""
    return current % 100 >= 20 and current % 10 == 0 and 0 < small < 10
