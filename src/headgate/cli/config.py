"""`headgate config`: check a file, show what it means, print its schema."""

from __future__ import annotations

import os
from pathlib import Path

import click
import yaml

from headgate.cli.options import config_option, json_option
from headgate.cli.output import print_json
from headgate.config import Config
from headgate.config_file import FILE_NAME, ConfigError, find_config, load_config


@click.group()
def config() -> None:
    """Check a configuration file.

    \b
    Examples:
      headgate config check
      headgate config show --config production.yaml
      headgate config schema > headgate.schema.json
    """


@config.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), default=FILE_NAME)
@json_option
def check(file: Path, as_json: bool) -> None:
    """Say whether FILE can be used; if not, where and why.

    \b
    Examples:
      headgate config check
      headgate config check production.yaml && systemctl restart headgate
    """
    found = load_config(file, os.environ)
    lacking = found.cache.semantic.lacking
    if lacking is not None:
        advice = f"run `pip install 'headgate[{lacking}]'`"
        raise ConfigError(f"{file}: cache.semantic.embedder.kind: {lacking} is not installed; {advice}")
    counts = {"providers": len(found.providers), "models": len(found.models), "routes": len(found.routes)}
    if as_json:
        print_json({"file": str(file), "ok": True, **counts})
    else:
        listed = ", ".join(f"{count} {name if count != 1 else name[:-1]}" for name, count in counts.items())
        click.echo(f"{file}: ok ({listed})")


@config.command()
def schema() -> None:
    """Print the JSON schema of the file, for editors and CI."""
    print_json(Config.json_schema())


@config.command()
@config_option
@json_option
def show(config_path: Path | None, as_json: bool) -> None:
    """Print the whole configuration that would be used, defaults included and secrets masked.

    \b
    Examples:
      headgate config show
      OPENAI_API_KEY=... headgate config show --json
    """
    found = find_config(config_path, os.environ).model_dump(mode="json")
    if as_json:
        print_json(found)
    else:
        click.echo(yaml.safe_dump(found, sort_keys=False, allow_unicode=True), nl=False)
