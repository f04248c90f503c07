"""A real nginx with the configuration of deploy/nginx, before gateways of a test.

The one invariant: only places are changed (ports, addresses, files); every setting is the one that is deployed.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from tests.servers.packages import Software
from tests.servers.server import Server, free_port

DEPLOYED = Path(__file__).parents[2] / "deploy" / "nginx"
SOFTWARE = Software(
    "nginx",
    "trixie",
    "usr/sbin/nginx",
    ("nginx", "libc6", "libcrypt1", "libpcre2-8-0", "libssl3t64", "libzstd1", "zlib1g"),
)
FOLLOWED = "server gateway:8000 resolve"
"""A name that is asked for again and again, which Debian's nginx is too old for; a test has addresses."""


class Nginx(Server):
    """nginx on loopback before gateways at these ports of loopback; `port` is callers' door, `operators` the other."""

    def __init__(self, *gateways: int) -> None:
        """Returns when it takes connections.

        Raises:
            ServerMissing: the program cannot be fetched.
            ServerFailed: it does not start.
        """
        self._program = SOFTWARE.command()
        super().__init__("nginx")
        self.operators = free_port()
        for file in DEPLOYED.glob("*.conf"):
            (self.folder / file.name).write_text(self._moved(file.read_text(), gateways))
        self._start()

    @property
    def url(self) -> str:
        """Callers' door."""
        return f"http://127.0.0.1:{self.port}"

    def _moved(self, text: str, gateways: tuple[int, ...]) -> str:
        """A file of the configuration, with the places of this test."""
        for deployed, here in (
            (" /tmp/", f" {self.folder}/"),
            ("listen 8080;", f"listen 127.0.0.1:{self.port};"),
            ("listen 8081;", f"listen 127.0.0.1:{self.operators};"),
            ("/dev/stdout", str(self.folder / "calls")),
            ("/dev/stderr", str(self.log)),
        ):
            text = text.replace(deployed, here)
        before, found, after = text.partition(FOLLOWED)
        if not found:
            return text
        setting, _, rest = after.partition(";")
        return before + " ".join(f"server 127.0.0.1:{port}{setting};" for port in gateways) + rest

    def _command(self) -> list[str]:
        config = str(self.folder / "nginx.conf")
        # Its folder is ours alone: workers of root must stay root to write there.
        user = "user root;" if os.geteuid() == 0 else ""
        return [*self._program, "-p", str(self.folder), "-c", config, "-g", f"daemon off; {user}"]

    def _answers(self) -> bool:
        socket.create_connection(("127.0.0.1", self.port), timeout=2.0).close()
        return True
