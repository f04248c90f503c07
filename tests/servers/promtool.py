"""Prometheus' own checker of configurations and rules: the program alone, no server."""

from __future__ import annotations

import subprocess

from tests.servers.packages import Software

SOFTWARE = Software("prometheus", "bookworm", "usr/bin/promtool", ("prometheus", "libc6"))


def promtool(*arguments: object) -> str:
    """What it says when it finds nothing wrong.

    Raises:
        AssertionError: it found something, which the text has.
        ServerMissing: the program cannot be fetched.
    """
    done = subprocess.run(
        [*SOFTWARE.command(), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
