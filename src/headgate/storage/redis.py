"""Redis: one connection to what several processes share, a single server or a cluster.

What is asked for in one turn of the event loop goes out together, in one round trip (redis_node.py); where a key lies is known by
redis_cluster.py.

Every command here may be sent twice: when a connection breaks, nobody knows whether the server has done it. So scripts are idempotent by an
id of their own, or err on the careful side when repeated. And what is under way at the same time is done in no order that could be relied on:
pipelines overtake each other, and a script that the server does not know is sent again. Who needs an order waits for the first answer.

Answers are as RESP3 has them: texts are bytes (also `b"OK"`), maps are dicts, and None stands for what is not there.

Invariant: what keeps the server from answering, or from working, is raised as Overloaded and counts in its `Footing`; what it answers does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import redis.asyncio as client
from redis import exceptions
from redis.asyncio.connection import ConnectionPool, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from headgate.model.errors import Conflict, Overloaded
from headgate.storage.redis_cluster import HOPS, Cluster, Lone, first_key, unserved
from headgate.storage.redis_node import Address, Argument, Asked, Command, Node, SentOn

log = logging.getLogger(__name__)

AGAIN = (0.1, 2.0)
"""Seconds after which a subscription is begun anew that has broken, at random between these."""
SILENCE = 10
"""Timeouts of silence after which a subscription is asked whether it still stands, and for which its answer is waited for."""


class Script(msgspec.Struct, frozen=True):
    """A Lua script, which the server keeps under the digest of its text. Make it with `script`."""

    text: str
    digest: str


def script(text: str) -> Script:
    """A script of this text."""
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


class Redis:
    """The connection of one process. Connects when it is first used; all methods raise Overloaded when the server cannot answer now."""

    def __init__(
        self, url: str, *, cluster: bool = False, pool: int = 50, prefix: str = "headgate", timeout: float = 1.0
    ) -> None:
        """`url` as `redis://` or `rediss://` write it, of a cluster any node's; `pool`: most connections, of a cluster to each node;
        `timeout`: seconds that an answer is waited for; `prefix`: what every key begins with. Raises Conflict when the URL cannot be read."""
        self._pool, self._timeout, self._cluster = pool, timeout, cluster
        try:
            self._settings: dict[str, Any] = dict(parse_url(url))
            address = self._settings.pop("host", "localhost"), self._settings.pop("port", 6379)
            self._connections(address).make_connection()  # type: ignore[no-untyped-call]
        except (TypeError, ValueError) as error:
            # What it says may quote the password, but for the name of a parameter.
            raise Conflict(f"The URL of Redis cannot be read{_parameter(error)}.") from None
        self._servers: Lone | Cluster = (Cluster if cluster else Lone)(address, self._open)
        self.prefix = prefix

    def key(self, tag: str, *parts: str) -> str:
        """A key; all with one tag lie on one node of a cluster."""
        return ":".join((self.prefix, f"{{{tag}}}", *parts))

    def sending(self, one: Script, keys: Sequence[str], *args: Argument) -> asyncio.Future[Any]:
        """What a script will answer, for those who cannot simply wait for it. It is sent whether anybody waits or not; it fails with
        Overloaded."""
        tail: Command = (len(keys), *keys, *args)
        return self._send(("EVALSHA", one.digest, *tail), ("EVAL", one.text, *tail))

    async def call(self, one: Script, keys: Sequence[str], *args: Argument) -> Any:
        """What a script answers."""
        return await self.sending(one, keys, *args)

    async def do(self, *command: Argument) -> Any:
        """What a command answers."""
        return await self._send(command, None)

    async def each(self, *command: Argument) -> dict[str, Any]:
        """What every server that holds keys answers to a command without keys, by the server's name."""
        nodes = await self._servers.nodes()
        asked = [Asked(command, asyncio.get_running_loop().create_future()) for _ in nodes]
        for node, one in zip(nodes, asked, strict=True):
            node.send(one)
        answers = await asyncio.gather(*(one.answer for one in asked))
        return {node.name: answer for node, answer in zip(nodes, answers, strict=True)}

    async def wait_for(self, *command: Argument, seconds: float) -> Any:
        """As `do`, of a command that may wait on the server for so long: on a connection of its own. Raises Overloaded also when all of
        them are in use."""
        key = first_key(command)
        for _ in range(HOPS):
            answer = await (await self._servers.node(key)).wait_for(command, seconds)
            if key is None or not isinstance(answer, exceptions.AskError):
                return answer
            # The key has moved; a command that does not wait finds out where to.
            await self.do("EXISTS", key)
        raise unserved()

    def _send(self, command: Command, whole: Command | None) -> asyncio.Future[Any]:
        asked = Asked(command, asyncio.get_running_loop().create_future(), whole)
        self._servers.send(asked)
        return asked.answer

    @property
    def round_trips(self) -> int:
        """Pipelines that were sent since the process began; commands that wait on the server, and subscriptions, not counted."""
        return sum(node.round_trips for node in self._servers.known())

    @property
    def faults(self) -> dict[str, str]:
        """Why each server cannot be relied on now, by its name; empty for one that can."""
        return {node.name: node.footing.fault for node in self._servers.known()}

    @property
    def fault(self) -> str:
        """Why it cannot be relied on now, as a whole or in part; empty while it can."""
        return "; ".join(fault for fault in self.faults.values() if fault)

    async def probe(self) -> None:
        """Raises Overloaded unless every server answers and does its work now: one that is full answers, but takes nothing."""
        for server in await self.each("PING"):
            if fault := self.faults[server]:
                raise Overloaded(f"{server} does not do its work: {fault}.", retry_after=1.0)

    async def listen(self, channel: str, heard: Callable[[bytes], None], begun: Callable[[], None]) -> None:
        """Hear what is published in a channel, until cancelled. `begun` is called whenever listening begins (anew): what was published
        before was not heard."""
        while True:
            try:
                await self._heard(channel, heard, begun)
            except (exceptions.RedisError, OSError, Overloaded) as error:
                log.debug("the subscription to %s broke: %s", channel, error)
            await asyncio.sleep(random.uniform(*AGAIN))

    async def _heard(self, channel: str, heard: Callable[[bytes], None], begun: Callable[[], None]) -> None:
        """Listen until the subscription breaks. A cluster passes on to all its nodes what is published at one."""
        node = await self._servers.node(None)
        async with contextlib.AsyncExitStack() as stack:
            listener = client.Redis(connection_pool=self._connections(node.address))
            stack.push_async_callback(listener.connection_pool.aclose)
            subscription = listener.pubsub()
            stack.push_async_callback(subscription.aclose)
            async with asyncio.timeout(self._timeout):
                await subscription.subscribe(f"{self.prefix}:{channel}")
            asked = False
            while True:
                message = await subscription.get_message(timeout=SILENCE * self._timeout)
                if message is None:
                    # A server that hangs, or a network that forgot the connection, is silent as well.
                    if asked:
                        raise TimeoutError
                    await subscription.ping()
                elif message["type"] == "subscribe":
                    begun()
                elif message["type"] == "message":
                    heard(message["data"])
                asked = message is None

    async def publish(self, channel: str, message: bytes) -> None:
        """Tell all who listen now."""
        await self.do("PUBLISH", f"{self.prefix}:{channel}", message)

    async def close(self) -> None:
        """Let what is under way come back, and close all connections."""
        await self._servers.close()

    def _open(self, address: Address, sent_on: SentOn) -> Node:
        name = f"Redis {address[0]}:{address[1]}" if self._cluster else "Redis"
        return Node(
            name,
            address,
            self._connections(address).make_connection,
            most=self._pool,
            timeout=self._timeout,
            sent_on=sent_on,
        )

    def _connections(self, address: Address) -> ConnectionPool:
        """What makes connections to one server. Nothing is repeated and nothing timed by the client library: a node does both for a whole trip."""
        ours = {
            "host": address[0],
            "port": address[1],
            "protocol": 3,
            "socket_timeout": None,
            "socket_connect_timeout": self._timeout,
            "retry": Retry(NoBackoff(), 0),
            "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        }
        return ConnectionPool(**{**self._settings, **ours})


def _parameter(error: Exception) -> str:
    """Which parameter of a URL the client does not know."""
    _, unknown, name = str(error).partition("unexpected keyword argument ")
    return f": it knows no parameter {name}" if unknown else ""
