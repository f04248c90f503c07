"""The failpoints themselves: they kill where and when the environment says, and are nothing without it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import headgate
from headgate.model import failpoints
from tests.faults.test_kill_points import MOST_PASSINGS

SOURCES = Path(next(iter(headgate.__path__)))
PASSING = """
from headgate.model import failpoints
for turn in range(5):
    print(turn, flush=True)
    failpoints.passed("before_settle")
    failpoints.passed("after_answer")
"""


def turns_before_death(wish: str | None) -> tuple[int, int]:
    """How often the point was reached, and how the process ended."""
    environ = {name: value for name, value in os.environ.items() if name != failpoints.VARIABLE}
    if wish is not None:
        environ[failpoints.VARIABLE] = wish
    ended = subprocess.run([sys.executable, "-c", PASSING], env=environ, capture_output=True, check=False)
    return len(ended.stdout.splitlines()), ended.returncode


@pytest.mark.parametrize(
    ("wish", "turns", "code"),
    [
        (None, 5, 0),
        ("", 5, 0),
        ("after_answer", 1, -9),
        ("after_answer:3", 3, -9),
        ("before_settle:5", 5, -9),
        ("after_answer:6", 5, 0),
        ("mid_stream:1", 5, 0),
    ],
)
def test_a_process_dies_at_the_passing_that_its_environment_names(wish: str | None, turns: int, code: int) -> None:
    assert turns_before_death(wish) == (turns, code)


@pytest.mark.parametrize("wish", ["nowhere", "after_answer:0", "after_answer:-1", "after_answer:x", ":3"])
def test_a_point_there_is_not_is_told_and_not_ignored(wish: str) -> None:
    with pytest.raises(ValueError, match="HEADGATE_FAILPOINT"):
        failpoints.arm({failpoints.VARIABLE: wish})
    assert not any(failpoints.armed(point) for point in failpoints.POINTS)


def test_every_point_is_passed_in_the_code_and_killed_in_the_tests() -> None:
    code = "".join(path.read_text() for path in SOURCES.rglob("*.py"))
    assert set(re.findall(r'\bpassed\("(\w+)"\)', code)) == failpoints.POINTS.keys()
    assert MOST_PASSINGS.keys() == failpoints.POINTS.keys()
