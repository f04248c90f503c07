"""Configuration files: from YAML text to a Config, or to one line that says what is wrong and where.

    headgate.yaml:12: providers.openai.base_ulr: unknown key; did you mean base_url?

The invariant: whatever a file holds, the outcome is a Config or a ConfigError of one line; values of secrets are never in it.
"""

from __future__ import annotations

import difflib
import os
import types
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from headgate.config import Config, providers_of
from headgate.config_yaml import Document, YamlError, read_yaml
from headgate.config_yaml import Path as Place

FILE_NAME = "headgate.yaml"

_MOVED = {"total": "the time for a whole call is dispatch.total"}
_SECRET = frozenset({"api_key", "headers", "secret", "url"})
_WANTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
}
_BOUNDS = {
    "greater_than": "greater than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
}


class ConfigError(Exception):
    """A configuration cannot be used. The message is one line that says where and why."""


def load_config(path: Path, env: Mapping[str, str] = os.environ, settings: Mapping[str, str] | None = None) -> Config:
    """The configuration in a file; `settings` win over it, as in `parse_config`. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    return parse_config(text, name=str(path), env=env, settings=settings)


def parse_config(
    text: str,
    *,
    name: str = FILE_NAME,
    env: Mapping[str, str] = os.environ,
    settings: Mapping[str, str] | None = None,
) -> Config:
    """The configuration in a text; `name` begins every error. `settings` win over the text: values by dotted path, as they
    would be written.

    A text without providers, models and routes gets those that the API keys in the environment stand for.
    Raises ConfigError.
    """
    try:
        document = read_yaml(text, env)
    except YamlError as error:
        raise ConfigError(_line(name, error.line, error.path, error.text)) from None
    content = document.content
    if isinstance(content, dict):
        content = {key: value for key, value in content.items() if value is not None or key not in Config.model_fields}
        if not content.keys() & {"providers", "models", "routes"}:
            content = {**providers_of(env), **content}
        for setting, value in (settings or {}).items():
            content = _amended(content, setting.split("."), value)
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        raise ConfigError(_first(name, document, error.errors(include_url=False), settings or ())) from None


def find_config(
    path: Path | None, env: Mapping[str, str] = os.environ, settings: Mapping[str, str] | None = None
) -> Config:
    """The file at `path`, else `headgate.yaml` in the working directory if there is one, else the default; `settings` win over
    it, as in `parse_config`.

    Raises ConfigError.
    """
    if path is None and not Path(FILE_NAME).exists():
        return parse_config("{}", env=env, settings=settings)
    return load_config(path or Path(FILE_NAME), env, settings)


def _amended(content: Any, path: list[str], value: str) -> dict[str, Any]:
    """The same mapping with another value at a path; what stands in its way is replaced."""
    kept = content if isinstance(content, dict) else {}
    first, *rest = path
    return {**kept, first: _amended(kept.get(first), rest, value) if rest else value}


def _first(name: str, document: Document, errors: Iterable[ErrorDetails], settings: Collection[str]) -> str:
    """The error that stands first in the file, as a line; what is absent comes last, as it may only be misspelt. One in
    `settings` comes before all, with the path alone."""
    found = []
    for error in errors:
        path, text = _explained(error)
        where = ".".join(map(str, path))
        if any(where == one or where.startswith(f"{one}.") or one.startswith(f"{where}.") for one in settings):
            return f"{where}: {text}"
        absent = error["type"] == "missing"
        at = document.line(path, key=absent or error["type"] == "extra_forbidden")
        found.append((absent, at, path, text))
    _, at, path, text = min(found, key=lambda each: each[:2])
    return _line(name, at, path, text)


def _line(name: str, line: int, path: Place, text: str) -> str:
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    flat = " ".join(f"{where}: {text}".split() if where else text.split())
    return f"{name}:{line}: {flat}"


def _explained(error: ErrorDetails) -> tuple[Place, str]:
    """Where an error is and what it says, in our own words."""
    # Parts in brackets are pydantic's own words for keys and for the members of a union.
    path: Place = tuple(part for part in error["loc"] if not str(part).startswith("["))
    kind, more = error["type"], error.get("ctx", {})
    if kind == "headgate":
        return (*path, *more["path"]), more["text"].rstrip(".") + _meant(more.get("name"), more.get("known", ()))
    if kind == "extra_forbidden":
        return path, _unknown_key(path)
    if kind == "missing":
        return path, "is required"
    if kind == "literal_error":
        return path, _choice(path, error["input"], more["expected"])
    if kind in _BOUNDS:
        bound = {name: f"{limit:g}" for name, limit in more.items()}
        return path, f"must be {_BOUNDS[kind].format(**bound)}{_instead(path, error['input'])}"
    if kind in _WANTED:
        return path, f"must be {_WANTED[kind]}{_instead(path, error['input'])}"
    if kind == "value_error":
        return path, str(more["error"])
    if kind in ("string_too_short", "too_short"):
        return path, "must not be empty"
    return path, error["msg"][:1].lower() + error["msg"][1:]


def _choice(path: Place, value: object, expected: str) -> str:
    choices = expected.replace("'", "").replace(" or ", ", ").split(", ")
    listed = f"{', '.join(choices[:-1])} or {choices[-1]}" if len(choices) > 1 else choices[0]
    return f"must be {listed}{_instead(path, value)}"


def _instead(path: Place, value: object) -> str:
    """`, not 'that'`: the value as it may be repeated. Never a secret, never long."""
    if _SECRET.intersection(path):
        return ""
    if isinstance(value, dict | list):
        return f", not {'a mapping' if isinstance(value, dict) else 'a list'}"
    if value is None or isinstance(value, bool):
        return f", not {'nothing' if value is None else str(value).lower()}"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f", not '{text[:40]}...'" if len(text) > 40 else f", not '{text}'"


def _unknown_key(path: Place) -> str:
    known = _known_keys(path[:-1])
    guess = _meant(str(path[-1]), known)
    if not guess and path[-2:-1] == ("timeouts",) and path[-1] in _MOVED:
        return f"unknown key; {_MOVED[str(path[-1])]}"
    return f"unknown key{guess or '; known here: ' + ', '.join(known)}"


def _meant(name: str | None, known: Iterable[str]) -> str:
    """`; did you mean base_url?` when something known is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6) if name else []
    return f"; did you mean {near[0]}?" if near else ""


def _known_keys(path: Place) -> list[str]:
    """The keys that the section at `path` may have."""
    kind: Any = Config
    for part in path:
        kind = _under(kind, part)
    return sorted(kind.model_fields)


def _under(kind: Any, part: str | int) -> Any:
    """What stands under `part` of a section, or of a mapping of names to sections."""
    if get_origin(kind) is dict:
        return get_args(kind)[1]
    return _section_among(kind.model_fields[str(part)].annotation)


def _section_among(annotation: Any) -> Any:
    """The section that an annotation such as `Section | None` holds; any other annotation as it is."""
    if get_origin(annotation) not in (Annotated, Union, types.UnionType):
        return annotation
    found = map(_section_among, get_args(annotation))
    return next((each for each in found if isinstance(each, type) and issubclass(each, BaseModel)), annotation)
