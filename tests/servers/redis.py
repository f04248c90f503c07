"""Real Redis servers: 8 with vector sets, 7 without, and a cluster of them.

The one invariant: a constructor returns a server that answers, a replica that has its master's state, a cluster that
serves every slot.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from functools import partial
from typing import BinaryIO, Self

from tests.servers.packages import Software
from tests.servers.server import Server, free_port

LIBRARIES = (
    "redis-server",
    "redis-tools",
    "libc6",
    "libatomic1",
    "libgcc-s1",
    "libjemalloc2",
    "liblzf1",
    "libstdc++6",
    "libsystemd0",
    "libcap2",
    "libzstd1",
)
SOFTWARE = {
    8: Software("redis-8", "trixie", "usr/bin/redis-server", (*LIBRARIES, "libssl3t64", "zlib1g")),
    7: Software(
        "redis-7",
        "bookworm",
        "usr/bin/redis-server",
        (*LIBRARIES, "libssl3", "libgcrypt20", "libgpg-error0", "liblz4-1", "liblzma5"),
    ),
}
SLOTS = 16384
PATIENT = 20.0
"""Seconds that a client waits for a server that nothing is done to: a machine may be busy."""


class RedisRefused(RuntimeError):
    """A command was answered with an error; the text is Redis's own."""


class RedisServer(Server):
    """A Redis on loopback.

    version: 8, or 7 for one without vector sets; replicaof: the server it copies; cluster: whether it is a node of a
    cluster (`RedisCluster` makes one of several); settings: of redis.conf, with underscores for dashes, such as
    ``appendonly=True, maxmemory="20mb", maxmemory_policy="allkeys-lru"``. Nothing is kept over `kill` and `restart` but
    with ``appendonly=True``: then all that was answered is.
    """

    def __init__(
        self,
        version: int = 8,
        *,
        replicaof: RedisServer | None = None,
        cluster: bool = False,
        **settings: str | int | bool,
    ) -> None:
        """Returns when it answers, and a replica when it has its master's state.

        Raises:
            ServerMissing: the programs cannot be fetched.
            ServerFailed: it does not start.
        """
        self._program = SOFTWARE[version].command()
        super().__init__(f"redis-{version}")
        self._settings: dict[str, str | int | bool] = {
            "bind": "127.0.0.1",
            "port": self.port,
            "dir": str(self.folder),
            "save": "",
            "enable-debug-command": "local",
            "repl-diskless-sync-delay": 0,
            **{name.replace("_", "-"): value for name, value in settings.items()},
        }
        if replicaof is not None:
            self._settings["replicaof"] = f"127.0.0.1 {replicaof.port}"
        if cluster:
            self._settings |= {"cluster-enabled": True, "cluster-port": free_port()}
        self._is_replica = replicaof is not None
        self._start()

    @property
    def url(self) -> str:
        """``redis://`` with host and port."""
        return f"redis://127.0.0.1:{self.port}"

    def command(self, *words: str | int) -> str:
        """Sends one command on a connection of its own; the answer as text, a list's items on a line each.

        Raises:
            RedisRefused: the answer is an error.
            OSError: there is none within two seconds.
        """
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=2.0) as connection,
            connection.makefile("rb") as answers,
        ):
            parts = [str(word).encode() for word in words]
            connection.sendall(
                b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
            )
            return _answer(answers)

    def _command(self) -> list[str]:
        words = list(self._program)
        for name, value in self._settings.items():
            words += [f"--{name}", str(value) if not isinstance(value, bool) else "yes" if value else "no"]
        return words

    def _answers(self) -> bool:
        try:
            if self._is_replica and "master_link_status:up" not in self.command("INFO", "replication"):
                return False
            return self.command("PING") == "PONG"
        except RedisRefused:  # it reads its file
            return False


class RedisCluster:
    """Masters that share all slots evenly, each with as many replicas as asked; the replicas take over in seconds.

    `nodes` are all servers, the masters first; settings are those of `RedisServer`, for each of them.
    """

    def __init__(self, masters: int = 3, *, replicas: int = 0, **settings: str | int | bool) -> None:
        """Returns when every node says that every slot is served.

        Raises:
            ServerMissing: the programs cannot be fetched.
            ServerFailed: a node does not start, or they do not find together.
        """
        self.nodes: list[RedisServer] = []
        settings = {"cluster_node_timeout": 2000, **settings}
        with contextlib.ExitStack() as opened:
            for _ in range(masters * (1 + replicas)):
                self.nodes.append(opened.enter_context(RedisServer(8, replicaof=None, cluster=True, **settings)))
            self.masters: Sequence[RedisServer] = self.nodes[:masters]
            self._join()
            for number, node in enumerate(self.nodes[masters:]):
                self._follow(node, self.masters[number % masters])
            self.wait_until_ok()
            self._opened = opened.pop_all()

    @property
    def url(self) -> str:
        """Of one node; a client asks it for the others."""
        return self.nodes[0].url

    def wait_until_ok(self) -> None:
        """Returns when every node that runs says that every slot is served.

        Raises:
            ServerFailed: not in time.
        """
        for node in (node for node in self.nodes if node.runs):
            node.wait_until(partial(self._is_ok, node), "cluster_state:ok")

    def close(self) -> None:
        """Ends all nodes."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _join(self) -> None:
        share = -(-SLOTS // len(self.masters))
        for number, master in enumerate(self.masters):
            master.command("CLUSTER", "ADDSLOTSRANGE", number * share, min((number + 1) * share, SLOTS) - 1)
            master.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            bus = node.command("CONFIG", "GET", "cluster-port").splitlines()[1]
            self.nodes[0].command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)

    def _follow(self, node: RedisServer, master: RedisServer) -> None:
        own = master.command("CLUSTER", "MYID")

        def followed() -> bool:
            try:
                return node.command("CLUSTER", "REPLICATE", own) == "OK"
            except RedisRefused:  # it has not heard of the master yet
                return False

        node.wait_until(followed, "takes its master")
        node.wait_until(
            lambda: "master_link_status:up" in node.command("INFO", "replication"), "has its master's state"
        )

    def _is_ok(self, node: RedisServer) -> bool:
        told = node.command("CLUSTER", "INFO").splitlines()
        return {"cluster_state:ok", f"cluster_slots_ok:{SLOTS}", f"cluster_known_nodes:{len(self.nodes)}"} <= set(told)


def _answer(answers: BinaryIO) -> str:
    """Reads one RESP2 answer."""
    line = answers.readline().decode()
    if not line.endswith("\r\n"):
        raise ConnectionError("the connection was closed")
    kind, rest = line[0], line[1:-2]
    if kind == "-":
        raise RedisRefused(rest)
    if kind == "$":
        return "" if rest == "-1" else answers.read(int(rest) + 2)[:-2].decode(errors="replace")
    if kind == "*":
        return "\n".join([_answer(answers) for _ in range(int(rest))])
    return rest
