"""What the files of `deploy/` say, read as those read them that they are for."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import click
import yaml

from headgate.cli.main import main
from headgate.config import Config
from headgate.config_file import parse_config
from tests.architecture.tree import ROOT, modules, text

DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose"
OWN_IMAGE = "headgate"
CONFIG_FILE = "/etc/headgate/headgate.yaml"
VARIABLE = re.compile(r"(\$\$)|\$\{(\w+)(?::?([-?])([^}]*))?\}")
"""A variable in a Compose file: its name, and what is to be when it is not set."""


def example() -> dict[str, str]:
    """`.env.example` as somebody has filled it in."""
    lines = [line.partition("=") for line in text(COMPOSE / ".env.example").splitlines() if re.match(r"\w+=", line)]
    return {name: value or f"filled{number}" for number, (name, _, value) in enumerate(lines)}


def filled(value: Any, env: dict[str, str]) -> Any:
    """A value of a Compose file with its variables replaced, as Compose does."""
    if isinstance(value, dict):
        return {key: filled(one, env) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(one, env) for one in value]
    return VARIABLE.sub(lambda found: _variable(found, env), value) if isinstance(value, str) else value


def _variable(found: re.Match[str], env: dict[str, str]) -> str:
    escaped, name, otherwise, word = found.groups()
    if escaped:
        return "$"
    if name not in env and otherwise != "-":
        raise AssertionError(f"{name} is not in .env.example")
    return env.get(name, word or "")


@cache
def compose() -> dict[str, Any]:
    """The Compose file with merge keys and variables resolved, and without what `x-` keys hold to be merged."""
    read: dict[str, Any] = filled(yaml.safe_load(text(COMPOSE / "compose.yaml")), example())
    return {key: value for key, value in read.items() if not key.startswith("x-")}


def own_services() -> dict[str, dict[str, Any]]:
    """The services that run Headgate's image."""
    return {name: one for name, one in compose()["services"].items() if one["image"].partition(":")[0] == OWN_IMAGE}


def loaded(config: str, env: dict[str, str]) -> Config:
    """A configuration with only these variables set. Raises ConfigError."""
    return parse_config(config, env=env)


def check_command(arguments: list[str]) -> None:
    """Raises AssertionError or click's UsageError unless it is a command line of Headgate's."""
    command: click.Command = main
    context, said, rest = click.Context(main), "headgate", list(arguments)
    while isinstance(command, click.Group):
        found = command.get_command(context, rest[0])
        assert found is not None, f"there is no `{said} {rest[0]}`"
        command, said, rest = found, f"{said} {rest[0]}", rest[1:]
        context = click.Context(command, parent=context)
    values, left, _ = command.make_parser(context).parse_args(rest)
    assert left == [], f"{said} takes no {left}"
    missing = [one.name for one in command.params if one.required and values.get(one.name or "") is None]
    assert missing == [], f"{said} needs {missing}"


@cache
def own_variables() -> frozenset[str]:
    """The environment variables that Headgate's code reads by name."""
    names = r"\b(HEADGATE_[A-Z]+(?:_[A-Z]+)*|OPENAI_API_KEY|ANTHROPIC_API_KEY)\b"
    return frozenset(name for path in modules() for name in re.findall(names, text(path)))


def variables_of(config: str) -> set[str]:
    """What a configuration takes from the environment."""
    return {name for _, name, _, _ in VARIABLE.findall(config) if name}
