"""Values that match a JSON schema, made up deterministically from a digest.

Covers what tool definitions and structured outputs use: types, enum, const, properties, items, the size keywords,
formats, anyOf/oneOf/allOf and local `$ref`. Invariant: it ends for every schema, recursive ones included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 8
MAX_VALUES = 10_000
WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "juniper")
FORMATS: Mapping[str, str] = {
    "date": "2026-03-14",
    "date-time": "2026-03-14T09:26:53Z",
    "time": "09:26:53Z",
    "email": "person@example.com",
    "uri": "https://example.com/page",
    "url": "https://example.com/page",
    "uuid": "6f1d5c1e-8a0b-4c6e-9d53-0f2f6f1c7a11",
    "ipv4": "192.0.2.1",
    "hostname": "example.com",
}


class Synthesis:
    """Makes one value for one schema; `digest` chooses among what the schema allows, `text` fills free strings."""

    def __init__(self, root: object, digest: bytes, text: str) -> None:
        self._root = root
        self._digest = digest
        self._text = text
        self._drawn = 0
        self._made = 0

    def value(self) -> Any:
        """The value for the whole schema; raises ValueError when it is not a usable schema."""
        try:
            return self._make(self._root, 0)
        except (TypeError, AttributeError, LookupError, ArithmeticError) as error:
            raise ValueError(f"not a usable JSON schema: {error}") from error

    def _draw(self, size: int) -> int:
        self._drawn += 1
        return self._digest[self._drawn % len(self._digest)] % size

    def _make(self, schema: object, depth: int) -> Any:
        self._made += 1
        if not isinstance(schema, dict) or self._made > MAX_VALUES:
            return self._text
        schema = self._resolved(schema, depth)
        if "const" in schema:
            return schema["const"]
        if options := schema.get("enum"):
            return options[self._draw(len(options))]
        return self._typed(schema, depth)

    def _typed(self, schema: dict[str, Any], depth: int) -> Any:
        kind = schema.get("type") or ("object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = "null" if depth >= MAX_DEPTH and "null" in kind else kind[0]
        made: Any = None
        match kind:
            case "object":
                made = self._object(schema, depth)
            case "array":
                made = self._array(schema, depth)
            case "integer" | "number":
                made = self._number(schema, whole=kind == "integer")
            case "boolean":
                made = self._draw(2) == 1
            case "string":
                made = self._string(schema)
        return made

    def _resolved(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        """Follow references and alternatives to a schema that says its type; bounded against cycles."""
        for _ in range(MAX_DEPTH):
            if isinstance(target := schema.get("$ref"), str):
                schema = self._target(target)
            elif branches := schema.get("anyOf") or schema.get("oneOf"):
                empty = [branch for branch in branches if branch.get("type") == "null"]
                schema = empty[0] if empty and depth >= MAX_DEPTH else branches[0]
            elif parts := schema.get("allOf"):
                merged = {key: value for key, value in schema.items() if key != "allOf"}
                for part in parts:
                    merged |= self._target(part["$ref"]) if "$ref" in part else part
                schema = merged
            else:
                break
        return schema

    def _target(self, pointer: str) -> dict[str, Any]:
        found: Any = self._root
        for step in pointer.removeprefix("#").strip("/").split("/"):
            if step and isinstance(found, dict):
                found = found.get(step.replace("~1", "/").replace("~0", "~"), {})
        return found if isinstance(found, dict) else {}

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        names = schema.get("properties") or {}
        if depth >= MAX_DEPTH:
            names = {name: names[name] for name in schema.get("required", ()) if name in names}
        if depth >= 2 * MAX_DEPTH:
            return {}
        return {name: self._make(part, depth + 1) for name, part in names.items()}

    def _array(self, schema: dict[str, Any], depth: int) -> list[Any]:
        least, most = schema.get("minItems", 0), schema.get("maxItems", 3)
        count = least if depth >= MAX_DEPTH else max(least, min(most, 1 + self._draw(2)))
        if depth >= 2 * MAX_DEPTH:
            return []
        return [self._make(schema.get("items", {}), depth + 1) for _ in range(min(count, 1000))]

    def _number(self, schema: dict[str, Any], *, whole: bool) -> float:
        step = schema.get("multipleOf", 1 if whole else 0.5)
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        if low is None:
            low = min(0, high - 100 * step) if high is not None else 0
        first = -(-low // step)
        if first * step == schema.get("exclusiveMinimum"):
            first += 1
        room = 100 if high is None else max(0, int(high // step - first))
        if room and high is not None and (first + room) * step == schema.get("exclusiveMaximum"):
            room -= 1
        number = (first + self._draw(room + 1)) * step
        return int(number) if whole else float(number)

    def _string(self, schema: dict[str, Any]) -> str:
        if (form := schema.get("format")) in FORMATS:
            return FORMATS[str(form)]
        text = f"{WORDS[self._draw(len(WORDS))]} {self._text}"
        least, most = schema.get("minLength", 0), schema.get("maxLength")
        return text.ljust(least, "x")[:most]
