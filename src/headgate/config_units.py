"""What the sections of a configuration are made of: durations, sizes, dollars, switches, and the section itself.

Every unit is read from what YAML gives (text, a whole number, a Decimal) and is written back as text that reads the same.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from headgate.model.money import from_usd, to_usd

_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86_400)}
_BYTES = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
_BYTES_BY_ANY_CASE = {unit.lower(): size for unit, size in _BYTES.items()}
_NUMBER = r"([0-9]{1,19}(?:\.[0-9]{1,9})?)"
_DURATION = re.compile(_NUMBER + r" ?(ms|s|m|h|d)?", re.ASCII)
_SIZE = re.compile(_NUMBER + r" ?([kmg]?i?b)?", re.ASCII | re.IGNORECASE)
LONGEST = 10 * 366 * 86_400


def problem(path: tuple[str | int, ...], text: str, **more: Any) -> PydanticCustomError:
    """An error of a check that looks at more than one value; `path` leads from the section to the culprit."""
    return PydanticCustomError("headgate", "{text}", {"text": text, "path": path, **more})


class Section(BaseModel):
    """One mapping of the file: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


def seconds_of(value: object) -> float:
    """Seconds that `24h`, `90m`, `5s`, `250ms`, `1d` or a plain number of seconds means.

    Raises ValueError for anything else, and beyond ten years.
    """
    found = _DURATION.fullmatch(_written(value))
    if found is None:
        raise ValueError(f"{_quoted(value)} is not a duration; write 250ms, 5s, 90m, 24h or 7d")
    seconds = float(Decimal(found[1]) * _SECONDS[found[2] or "s"])
    if seconds > LONGEST:
        raise ValueError(f"{_quoted(value)} is longer than ten years")
    return seconds


def duration_text(seconds: float) -> str:
    """A short text that `seconds_of` reads as these seconds (to the microsecond)."""
    exact = Decimal(round(seconds * 1_000_000)) / 1_000_000
    for unit in ("h", "m", "s"):
        if exact and exact % _SECONDS[unit] == 0:
            return f"{int(exact / _SECONDS[unit])}{unit}"
    return f"{(exact * 1000).normalize():f}ms" if exact else "0s"


def bytes_of(value: object) -> int:
    """Bytes that `4MiB`, `512KB` or a plain number of bytes means. Raises ValueError for anything else."""
    found = _SIZE.fullmatch(_written(value))
    unit = None if found is None else _BYTES_BY_ANY_CASE.get((found[2] or "B").lower())
    if found is None or unit is None:
        raise ValueError(f"{_quoted(value)} is not a size; write 4096, 512KiB, 4MiB or 1GiB")
    size = Decimal(found[1]) * unit
    if size != int(size) or size >= 2**63:
        raise ValueError(f"{_quoted(value)} is not a whole number of bytes below 8 EiB")
    return int(size)


def size_text(size: int) -> str:
    """The shortest text that `bytes_of` reads as this size."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"


def _usd(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ValueError(f"{_quoted(value)} is not an amount in USD; write 10.00")  # noqa: TRY004 - pydantic's own
    return from_usd(str(value))


def _cap(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() == "none" else value


def _switch(value: object) -> object:
    """YAML 1.1 reads a bare `on` or `off` as a boolean; whoever wrote it meant the word."""
    word = value.strip().lower() if isinstance(value, str) else value
    if word is True or word in ("on", "true", "yes"):
        return "on"
    if word is False or word in ("off", "false", "no"):
        return "off"
    return word


def _off(value: object) -> object:
    return "off" if value is False else value


def _written(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        return ""
    return f"{value:f}" if isinstance(value, Decimal) else str(value).strip()


def _quoted(value: object) -> str:
    """The value as the reader of an error would write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "nothing" if value is None else f"'{value}'"


def _schema(example: str, pattern: str) -> Any:
    return WithJsonSchema({"type": ["string", "number"], "pattern": pattern, "examples": [example]})


Duration = Annotated[
    float,
    BeforeValidator(seconds_of),
    PlainSerializer(duration_text, when_used="json"),
    _schema("24h", r"^[0-9]+(\.[0-9]+)? ?(ms|s|m|h|d)?$"),
]
"""Seconds, written as `24h`, `5s` or `250ms`."""

Size = Annotated[
    int,
    BeforeValidator(bytes_of),
    PlainSerializer(size_text, when_used="json"),
    _schema("4MiB", r"^[0-9]+(\.[0-9]+)? ?([KkMmGg]?i?[Bb])?$"),
]
"""Bytes, written as `4MiB`."""

Usd = Annotated[
    int, BeforeValidator(_usd), PlainSerializer(to_usd, when_used="json"), _schema("10.00", r"^[0-9]+(\.[0-9]{1,9})?$")
]
"""Nano-USD, written in dollars."""

Cap = Annotated[Usd | None, BeforeValidator(_cap)]
"""As Usd; `none` is no cap."""

Switch = Annotated[Literal["on", "off"], BeforeValidator(_switch)]
"""`on` or `off`, with or without quotes."""

ShadowSwitch = Annotated[Literal["on", "shadow", "off"], BeforeValidator(_switch)]
"""`on`, `shadow` or `off`, with or without quotes."""

OffWord = BeforeValidator(_off)
"""For words of which one is `off`, with or without quotes."""
