"""The command `headgate simulate`."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from headgate.cli.simulate import simulate
from headgate.simulator.faults import KINDS

PROGRAM = "from headgate.cli.simulate import simulate; simulate()"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_its_address_and_ends_cleanly_on_a_signal(number: signal.Signals) -> None:
    command = [sys.executable, "-c", PROGRAM, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        assert started.stdout
        line = started.stdout.readline()
        started.send_signal(number)
        rest, errors = started.communicate(timeout=10)
    assert line.startswith("simulator listening on http://127.0.0.1:")
    assert int(line.rsplit(":", 1)[1]) > 0
    assert (started.returncode, rest, errors) == (0, "", "")


def test_a_wrong_script_is_bad_usage_and_names_the_place(tmp_path: Path) -> None:
    script = tmp_path / "faults.yaml"
    script.write_text("- fault: 500\n  every: soon\n")
    result = CliRunner().invoke(simulate, ["--port", "0", "--script", str(script)])
    assert result.exit_code == 2
    assert "$[0].every" in result.output


def test_an_address_in_use_is_an_error_in_one_line() -> None:
    result = CliRunner().invoke(simulate, ["--port", "0", "--host", "203.0.113.1"])
    assert result.exit_code == 1
    assert result.output.startswith("Error: cannot listen on 203.0.113.1:0")


def test_the_help_names_every_fault_and_shows_a_script() -> None:
    shown = CliRunner().invoke(simulate, ["--help"]).output
    assert all(f"\n  {name}" in shown for name in KINDS)
    assert "- fault: 429:2 " in shown
