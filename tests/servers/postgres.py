"""Real PostgreSQL 16, from the programs that the wheel `pgserver` carries.

The wheel is not a dependency: it exists for some versions of Python only, and nothing of its Python is needed.

The one invariant: what a transaction was told is committed is there after `kill` and `restart`; nothing that durability
rests on is switched off.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import zipfile
from itertools import count
from pathlib import Path

import psycopg
from psycopg import sql

from tests.servers.packages import ServerMissing, architecture, kept, wheel
from tests.servers.server import Server, give, nobody

REQUIREMENT = "pgserver==0.1.4"
WHEELS = {"x86_64": "1a5d07c61d51f2abfef4ef61e2ef5cd014b994f7e09de8d3c140d2cf370e84a8"}
"""SHA-256 by machine, of the wheel for Python 3.12; the programs in the others are the same."""

NEEDED = (
    "pgserver/pginstall/bin/initdb",
    "pgserver/pginstall/bin/postgres",
    "pgserver/pginstall/lib/",
    "pgserver/pginstall/share/",
    "pgserver.libs/",
)
PROGRAMS = Path("pgserver", "pginstall", "bin")


class PostgresServer(Server):
    """A PostgreSQL on loopback that trusts everybody; its one user is ``postgres``.

    settings: of postgresql.conf, such as ``max_connections=200``.
    """

    ends_at = signal.SIGINT  # "fast": open transactions are rolled back, not waited for

    def __init__(self, **settings: str | int) -> None:
        """Returns when it answers.

        Raises:
            ServerMissing: the programs cannot be fetched.
            ServerFailed: it does not start.
        """
        software = kept(f"postgres-16-{WHEELS.get(architecture(), '')[:8]}", _fill)
        super().__init__("postgres")
        # A copy of all: the folder of tests may be closed to the user it runs as.
        shutil.copytree(software, self.folder, dirs_exist_ok=True)
        self.runs_as = nobody()
        give(self.folder, self.runs_as)
        self._settings: dict[str, str | int] = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "dynamic_shared_memory_type": "mmap",  # in its folder, so that a killed server leaves nothing behind
            **settings,
        }
        self._numbers = count(1)
        self._start()

    @property
    def url(self) -> str:
        """Of the database ``postgres``, which is there from the start."""
        return self._url("postgres")

    def database(self) -> str:
        """Makes an empty database; its URL."""
        name = f"fresh_{next(self._numbers)}"
        self._run(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self._url(name)

    def drop(self, url: str) -> None:
        """Removes a database that `database` made; connections to it are ended."""
        self._run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(url.rpartition("/")[2])))

    def _url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def _run(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)

    def _command(self) -> list[str]:
        words = [str(self.folder / PROGRAMS / "postgres"), "-D", str(self.folder / "data")]
        for name, value in self._settings.items():
            words += ["-c", f"{name}={value}"]
        return words

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def _fill(into: Path) -> None:
    """The programs and a database directory as `initdb` leaves it, which every server begins with a copy of."""
    machine = architecture()
    if machine not in WHEELS:
        raise ServerMissing(
            f"{REQUIREMENT} has no wheel for {machine}: tests with PostgreSQL run on {' or '.join(WHEELS)}"
        )
    fetched = into.parent / "wheel"
    fetched.mkdir()
    tags = {"python-version": "3.12", "implementation": "cp", "abi": "cp312", "platform": f"manylinux_2_17_{machine}"}
    with zipfile.ZipFile(wheel(REQUIREMENT, tags=tags, sha=WHEELS[machine], at=fetched)) as archive:
        archive.extractall(into, [name for name in archive.namelist() if name.startswith(NEEDED)])
    for program in (into / PROGRAMS).iterdir():
        program.chmod(0o755)
    with tempfile.TemporaryDirectory() as made:  # where another user may come, unlike perhaps the folder of tests
        shutil.copytree(into, made, dirs_exist_ok=True)
        give(Path(made), nobody())
        _make_directory(Path(made))
        shutil.copytree(Path(made, "data"), into / "data")


def _make_directory(folder: Path) -> None:
    options = [
        "--username=postgres",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
        "--no-instructions",
    ]
    user = nobody()
    done = subprocess.run(
        [str(folder / PROGRAMS / "initdb"), "-D", str(folder / "data"), *options],
        cwd=folder, capture_output=True, text=True, check=False, user=user, group=user, extra_groups=None if user is None else [],
    )  # fmt: skip
    if done.returncode:
        raise ServerMissing(f"initdb ended with {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}")
