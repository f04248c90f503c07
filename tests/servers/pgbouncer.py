"""A real PgBouncer in transaction mode, as many put before PostgreSQL.

The one invariant: it is the version of Debian 12, which knows nothing of prepared statements: what works through it
works through any.
"""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import psycopg

from tests.servers.packages import Software
from tests.servers.server import Server, nobody

SOFTWARE = Software(
    "pgbouncer",
    "bookworm",
    "usr/sbin/pgbouncer",
    (
        "pgbouncer", "libc6", "libaudit1", "libc-ares2", "libcap-ng0", "libcap2", "libevent-2.1-7", "libgcrypt20", "libgpg-error0",
        "liblz4-1", "liblzma5", "libpam0g", "libssl3", "libsystemd0", "libzstd1",
    ),
)  # fmt: skip


class PgBouncer(Server):
    """A PgBouncer on loopback before the PostgreSQL of a URL; every database and user of that server is reached by name.

    size: connections it keeps to one database.
    """

    def __init__(self, of: str, *, size: int = 20) -> None:
        """Returns when a connection through it works.

        Raises:
            ServerMissing: the programs cannot be fetched.
            ServerFailed: it does not start.
        """
        self._program = SOFTWARE.command()
        super().__init__("pgbouncer")
        self._of = of
        behind = urlsplit(of)
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": size,
            "max_client_conn": 1000,
        }
        if nobody() is not None:
            settings["user"] = "nobody"  # it refuses to be root's, and steps down by itself
        databases = f"[databases]\n* = host={behind.hostname} port={behind.port} user={behind.username}\n"
        lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (self.folder / "pgbouncer.ini").write_text(f"{databases}[pgbouncer]\n{lines}")
        self._start()

    @property
    def url(self) -> str:
        """The URL it was made of, through it."""
        return self.through(self._of)

    def through(self, url: str) -> str:
        """The URL of a database of the server behind it, such as `PostgresServer.database` gives, through it."""
        parts = urlsplit(url)
        return parts._replace(netloc=f"{parts.username}@127.0.0.1:{self.port}").geturl()

    def _command(self) -> list[str]:
        return [*self._program, str(self.folder / "pgbouncer.ini")]

    def _answers(self) -> bool:
        socket.create_connection(("127.0.0.1", self.port), timeout=2.0).close()
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True
