"""A server that a test or a benchmark starts, hurts and ends.

The one invariant: it never outlives the program that started it. Beside each server waits a small shell on a pipe; when
this program ends, however it ends, the pipe closes and the shell kills the server's group and removes its folder.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

READY_WITHIN = 30.0
"""Seconds a server has to answer after its start; a loaded machine needs one or two."""

GUARD = """
while read -r line; do group=$line; done
[ -n "$group" ] && kill -s KILL -- $(cat "/proc/$group/task/$group/children") "-$group" && sleep 1
rm -rf -- "$1"
"""
"""Each line it reads is the program to end from now on, which leads a group, or empty.

Children are named beside the group, since those of PostgreSQL lead groups of their own. The second is for the files that
the last of them may still make.
"""


class ServerFailed(RuntimeError):
    """A server ended, or does not answer; the text has the end of its log."""


class Server(ABC):
    """A program with a folder and ports of its own on loopback.

    A subclass sets itself up, then calls `_start`; from then on it answers. As a context manager it is closed at the end.
    """

    def __init__(self, name: str) -> None:
        """Makes the folder and starts the guard; the program is started by `_start`."""
        self.name = name
        self.folder = Path(tempfile.mkdtemp(prefix=f"headgate-{name}-"))
        self.log = self.folder / "log"
        self.port = free_port()
        self._running: subprocess.Popen[bytes] | None = None
        self._guard = subprocess.Popen(
            ["sh", "-c", GUARD, "guard", str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        atexit.register(self.close)

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect."""

    @abstractmethod
    def _command(self) -> list[str]:
        """What starts it."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it serves now; may raise OSError while it does not."""

    ends_at: signal.Signals = signal.SIGTERM
    """The signal that asks it to end."""

    runs_as: int | None = None
    """The user it must be run as, where it refuses the one we are."""

    @property
    def pid(self) -> int:
        """Of the program that was started.

        Raises:
            ServerFailed: it does not run now.
        """
        if not (running := self._alive()):
            raise ServerFailed(f"{self.name} does not run")
        return running.pid

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended; a frozen one runs."""
        return self._alive() is not None

    def _start(self) -> None:
        """Starts it on its port and in its folder, and returns when it answers.

        Raises:
            ServerFailed: it ended or did not answer in time. It is closed then.
        """
        with self.log.open("ab") as log:
            self._running = subprocess.Popen(
                self._command(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=self.runs_as,
                group=self.runs_as,
                extra_groups=None if self.runs_as is None else [],
            )
        self._tell_guard(str(self._running.pid))
        try:
            self.wait_until(self._answers, "answers")
        except BaseException:
            self.close()
            raise

    def wait_until(self, is_so: Callable[[], bool], what: str) -> None:
        """Returns when something is so of the running server; an OSError is a no.

        Raises:
            ServerFailed: it ended, or it was not so in time.
        """
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline:
            if self._running is not None and (code := self._running.poll()) is not None:
                raise ServerFailed(f"{self.name} ended with {code}; its log ends:\n{self._log_end()}")
            with contextlib.suppress(OSError):
                if is_so():
                    return
            time.sleep(0.01)
        raise ServerFailed(f"{self.name}: not within {READY_WITHIN:.0f} s: {what}; its log ends:\n{self._log_end()}")

    def kill(self) -> None:
        """Kills it and its children at once, as when a machine loses power but keeps its disk's cache."""
        if not self.runs:
            return
        family = self._stopped_family()
        for pid in reversed(family):
            _signal(pid, signal.SIGKILL)
        self._gone(family)

    def stop_the_world(self) -> None:
        """Freezes it and its children: connections stay open, nothing answers."""
        self._stopped_family()

    def go_on(self) -> None:
        """Ends `stop_the_world`."""
        for pid in reversed(_family(self.pid)):
            _signal(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """`stop_the_world` and, whatever happens meanwhile, `go_on`."""
        self.stop_the_world()
        try:
            yield
        finally:
            self.go_on()

    def restart(self) -> None:
        """Starts it again on the same port and in the same folder; one that still runs is ended in order first.

        Raises:
            ServerFailed: it ended or did not answer in time. It is closed then.
        """
        self._end()
        self._start()

    def close(self) -> None:
        """Ends it and removes its folder; may be called again."""
        atexit.unregister(self.close)
        if self._guard.stdin is None or self._guard.stdin.closed:
            return
        self._end()
        self._guard.stdin.close()
        self._guard.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _end(self) -> None:
        """Asks it to end, and kills it where it does not."""
        if not (running := self._alive()):
            return
        self.go_on()
        family = _family(running.pid)
        running.send_signal(self.ends_at)
        try:
            running.wait(5.0)
        except subprocess.TimeoutExpired:
            self.kill()
        else:
            self._gone(family)

    def _alive(self) -> subprocess.Popen[bytes] | None:
        """The program, unless it has ended, by whatever."""
        if self._running is not None and self._running.poll() is not None:
            self._running = None
            self._tell_guard("")
        return self._running

    def _gone(self, family: list[int]) -> None:
        """Waits for killed or ended programs to be gone."""
        if self._running is not None:
            self._running.wait()
        _await(
            lambda: all(_stat(pid) is None for pid in family), f"{self.name} left children that do not end: {family}"
        )
        self._running = None
        self._tell_guard("")

    def _stopped_family(self) -> list[int]:
        """The program and its children once all are stopped: a stopped one starts no more."""
        family: list[int] = []
        while (found := _family(self.pid)) != family:
            family = found
            for pid in family:
                _signal(pid, signal.SIGSTOP)
            _await(lambda: all(_is_still(pid) for pid in found), f"{self.name} does not stop")
        return family

    def _tell_guard(self, group: str) -> None:
        assert self._guard.stdin is not None
        self._guard.stdin.write(f"{group}\n".encode())
        self._guard.stdin.flush()

    def _log_end(self) -> str:
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else "(no log)"


def free_port() -> int:
    """A port of loopback that nothing listens on, outside those the kernel gives to clients.

    One of those could be taken, while a killed server is down, by a client that connects; even by one that connects to
    that very port, which TCP answers with a connection to itself.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = 10_000 + secrets.randbelow(max(first - 10_000, 1_000))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def nobody() -> int | None:
    """The user for a server that refuses to be root's; None where we are not root."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def give(folder: Path, user: int | None) -> None:
    """Makes a folder and all in it a user's own."""
    if user is None:
        return
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, user, user)


def _family(pid: int) -> list[int]:
    """A program and what it has started, parents before their children."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            children.setdefault(stat[1], []).append(int(entry.name))
    family = [pid]
    for one in family:
        family += children.get(one, [])
    return family


def _stat(pid: int) -> tuple[str, int] | None:
    """A program's state and who started it; None when it has ended, also where nobody has asked yet how."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else (state, int(parent))


def _is_still(pid: int) -> bool:
    stat = _stat(pid)
    return stat is None or stat[0] in "Tt"


def _await(is_so: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while not is_so():
        if time.monotonic() > deadline:
            raise ServerFailed(otherwise)
        time.sleep(0.001)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
