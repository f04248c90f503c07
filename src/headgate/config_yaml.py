"""YAML of a configuration: plain values, `${ENV}` filled in, and where each value stands.

YAML 1.1 as PyYAML's safe loader reads it, with three differences: a number with decimals keeps its text (as a Decimal), so money
never passes through a float; dates and numbers such as 0123 stay text; and a key that comes twice is an error, not a surprise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec
import yaml

Path = tuple[str | int, ...]

_VARIABLE = re.compile(r"\$\$|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})?", re.ASCII)
_TAGS = {
    "null": (re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    "bool": (re.compile(r"(?:true|false|yes|no|on|off)", re.IGNORECASE), list("tTfFyYnNoO")),
    "int": (re.compile(r"[-+]?(?:0|[1-9][0-9_]*)"), list("-+0123456789")),
    "float": (re.compile(r"[-+]?(?:0|[1-9][0-9]*)\.[0-9]*"), list("-+0123456789")),
    "merge": (re.compile(r"<<"), ["<"]),
}
_TAG = "tag:yaml.org,2002:"


class Document(msgspec.Struct, frozen=True):
    """What a file says. `lines`: for each path, the line of its key and the line of its value, from 1."""

    content: Any
    lines: dict[Path, tuple[int, int]]

    def line(self, path: Path, *, key: bool = False) -> int:
        """The line of the value at `path` (or of its key); of what it would be in, when it is not there."""
        while path and path not in self.lines:
            path, key = path[:-1], True
        return self.lines[path][0 if key else 1]


class YamlError(Exception):
    """Something is wrong at one place of a YAML text."""

    def __init__(self, line: int, text: str, path: Path = ()) -> None:
        super().__init__(text)
        self.line = line
        self.text = text
        self.path = path


def read_yaml(text: str, env: Mapping[str, str]) -> Document:
    """Read a text, filling in variables from `env`. Raises YamlError."""
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else mark.line + 1
        raise YamlError(line, _syntax(error, text.splitlines()[line - 1 : line])) from None
    except RecursionError:
        raise YamlError(1, "nested too deeply") from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise YamlError(line, f"the character U+{ord(text[error.position]):04X} is not allowed") from None
    if root is None:
        return Document({}, {(): (1, 1)})
    reader = _Reader(loader, env)
    return Document(reader.value(root, ()), {(): (1, root.start_mark.line + 1), **reader.lines})


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with resolvers of our own."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own attribute
        first: [
            (_TAG + name, re.compile(f"^(?:{pattern.pattern})$", pattern.flags))
            for name, (pattern, firsts) in _TAGS.items()
            if first in firsts
        ]
        for first in {first for _, firsts in _TAGS.values() for first in firsts}
    }


class _Reader:
    """Turns nodes into values and notes their lines."""

    def __init__(self, loader: _Loader, env: Mapping[str, str]) -> None:
        self.lines: dict[Path, tuple[int, int]] = {}
        self._loader = loader
        self._env = env
        self._open: list[yaml.Node] = []

    def value(self, node: yaml.Node, path: Path) -> Any:
        """The value of a node that stands at `path`."""
        if node in self._open:
            raise YamlError(node.start_mark.line + 1, "an anchor must not contain itself", path)
        if not isinstance(node, yaml.ScalarNode) and node.tag not in (_TAG + "map", _TAG + "seq"):
            raise YamlError(node.start_mark.line + 1, f"the tag {node.tag} is not allowed", path)
        self._open.append(node)
        self.lines.setdefault(path, (node.start_mark.line + 1,) * 2)
        if isinstance(node, yaml.MappingNode):
            found: Any = self._mapping(node, path)
        elif isinstance(node, yaml.SequenceNode):
            found = [self.value(each, (*path, index)) for index, each in enumerate(node.value)]
        else:
            found = self._scalar(node, path)
        self._open.pop()
        return found

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        self._check_keys(node, path)
        self._loader.flatten_mapping(node)
        found: dict[str, Any] = {}
        for key, value in node.value:
            place = (*path, key.value)
            self.lines[place] = (key.start_mark.line + 1, value.start_mark.line + 1)
            found[key.value] = self.value(value, place)
        return found

    def _check_keys(self, node: yaml.MappingNode, path: Path) -> None:
        """Keys are text and come once; a merge key (`<<`) is neither, and what it brings may be overridden."""
        first: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise YamlError(line, "a key must be plain text", path)
            if key.tag == _TAG + "merge":
                continue
            if key.value in first:
                raise YamlError(line, f"comes twice; the first is on line {first[key.value]}", (*path, key.value))
            first[key.value] = line

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        text: str = node.value
        match node.tag.removeprefix(_TAG):
            case "str":
                return self._filled(node, path)
            case "null":
                return None
            case "bool":
                return text.lower() in ("true", "yes", "on")
            case "int":
                return int(text.replace("_", ""))
            case "float":
                return Decimal(text)
        raise YamlError(node.start_mark.line + 1, f"the tag {node.tag} is not allowed", path)

    def _filled(self, node: yaml.Node, path: Path) -> str:
        """A text with `${NAME}` and `${NAME:-default}` replaced, and `$$` by one dollar sign."""
        line = node.start_mark.line + 1

        def fill(found: re.Match[str]) -> str:
            name, default = found[1], found[2]
            if found[0] == "$$":
                return "$"
            if name is None:
                raise YamlError(
                    line, "'${' must be followed by a variable's name and '}'; write $${ for the text itself", path
                )
            value = self._env.get(name) or default
            if value is None and name in self._env:
                value = ""
            if value is None:
                raise YamlError(line, f"the environment variable {name} is not set", path)
            return value

        return _VARIABLE.sub(fill, node.value)


def _syntax(error: yaml.MarkedYAMLError, line: list[str]) -> str:
    problem = error.problem or "it cannot be read"
    if "'\\t'" in problem:
        return "a tab cannot indent YAML; use spaces"
    if "found undefined alias" in problem:
        return problem.replace("found undefined alias", "there is no anchor")
    hint = "; inside braces and brackets a ${...} needs quotes" if "${" in "".join(line) else ""
    return f"not valid YAML: {problem}{hint}"
