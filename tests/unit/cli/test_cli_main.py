"""The top of the command tree: help, version, and how it fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from headgate.cli.main import COMMANDS, main
from headgate.cli.output import print_pairs, print_table
from tests.unit.cli.conftest import Headgate
from tools.generate_reference import cli_reference, config_reference

REFERENCE = Path(__file__).resolve().parents[3] / "docs" / "reference"


def test_help_lists_every_command_and_loads_none(headgate: Headgate) -> None:
    """Help must be quick: no server, no numpy, no pydantic."""
    shown = headgate("--help").stdout
    assert all(f"  {name} " in shown for name in COMMANDS)
    program = "import sys; from headgate.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass\nprint(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    for heavy in ("pydantic", "numpy", "uvicorn", "fastapi", "yaml", "asyncio", "headgate.cli.serve"):
        assert f"'{heavy}'" not in loaded


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_teaches_by_example(headgate: Headgate, name: str) -> None:
    assert f"\n  headgate {name}" in headgate(name, "--help").stdout.replace("    headgate", "  headgate")


def test_the_version_is_told(headgate: Headgate) -> None:
    assert headgate("--version").stdout.startswith("headgate 0.")


def test_alone_it_explains_itself(headgate: Headgate) -> None:
    assert "A first day" in headgate(code=2).output


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("tenant",), "error: No such command 'tenant'; did you mean tenants?; try 'headgate --help'\n"),
        (("usage", "--tenent", "1"), "error: No such option '--tenent'. Did you mean '--tenant'?; try 'headgate usage --help'\n"),
        (("keys", "create"), "error: Missing argument 'TENANT'; try 'headgate keys create --help'\n"),
        (("usage", "--from", "soon"), "error: Invalid value for '--from': 'soon' is neither a date such as 2026-11-20 nor unix seconds; try 'headgate usage --help'\n"),
        (("budgets", "set", "default", "--hour", "1,5"), "error: Invalid value for '--hour': '1,5' is not a decimal number of dollars such as 1.25, nor none; try 'headgate budgets set --help'\n"),
        (("keys", "rotate", "k", "--grace", "1x"), "error: Invalid value for '--grace': '1x' is not a duration; write 250ms, 5s, 90m, 24h or 7d; try 'headgate keys rotate --help'\n"),
        (("config", "check"), "error: headgate.yaml: there is no such file\n"),
        (("serve", "--config", "mine.yaml"), "error: mine.yaml: there is no such file\n"),
    ],
)  # fmt: skip
def test_bad_usage_is_one_line_and_exit_code_two(headgate: Headgate, args: tuple[str, ...], line: str) -> None:
    outcome = headgate(*args, code=2)
    assert (outcome.stderr, outcome.stdout) == (line, "")


def test_a_wrong_configuration_stops_every_command_that_needs_it(headgate: Headgate) -> None:
    Path("headgate.yaml").write_text("tenant_defaults:\n  rpm: many")
    line = "error: headgate.yaml:2: tenant_defaults.rpm: must be a whole number, not 'many'\n"
    for command in (("serve",), ("tenants", "list"), ("usage",), ("config", "show"), ("config", "check")):
        assert headgate(*command, code=2).stderr == line


def test_an_unreadable_data_directory_is_one_line(headgate: Headgate) -> None:
    Path("taken").write_text("a file")
    assert headgate("tenants", "list", "--data", "taken/inside", code=1).stderr.startswith("error: ")


def test_a_file_that_is_no_database_is_one_line(headgate: Headgate) -> None:
    Path("headgate-data").mkdir()
    Path("headgate-data/headgate.db").write_text("not a database, but long enough to be read as one " * 100)
    assert headgate("usage", code=1).stderr == "error: file is not a database\n"


def test_tables_align_numbers_right_and_hide_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "a\x1b[31m", "cost": "1.50", "on": True}, {"name": "bcd", "cost": "100.00", "on": None}]
    print_table(rows, {"name": "name", "cost": "cost", "on": "on"})
    assert capsys.readouterr().out == "name      cost  on\na?[31m    1.50  yes\nbcd     100.00  -\n"
    print_table([], {"name": "name"})
    assert capsys.readouterr().out == "nothing yet\n"
    print_pairs({"a": 1, "b": ["x", "y"]}, {"a": "first", "b": "b"})
    assert capsys.readouterr().out == "first  1\nb      x, y\n"


def test_the_reference_pages_are_up_to_date() -> None:
    """Run `python tools/generate_reference.py` when this fails."""
    assert (REFERENCE / "config.md").read_text() == config_reference()
    assert (REFERENCE / "cli.md").read_text() == cli_reference()


def test_every_command_that_prints_data_takes_json() -> None:
    silent = {"serve", "worker", "simulate", "config schema", "route export"}
    for path, command in commands(main, ""):
        if not isinstance(command, click.Group) and path not in silent:
            assert any("--json" in parameter.opts for parameter in command.params), path


def commands(group: click.Group, prefix: str) -> list[tuple[str, click.Command]]:
    context = click.Context(group)
    found: list[tuple[str, click.Command]] = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        path = f"{prefix} {name}".strip()
        found.append((path, command))
        if isinstance(command, click.Group):
            found += commands(command, path)
    return found
