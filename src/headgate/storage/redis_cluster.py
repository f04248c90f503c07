"""Where keys lie: on one Redis server, or on the nodes of a cluster, each of which is relied on or not by itself.

A cluster's map (Redis Cluster Specification, "Client behaviour") is read when it is first needed, when a node says that a slot has moved,
and while one of its nodes does not answer: another may be about to take its place.

Invariant: a node that is away keeps nobody waiting whose keys lie on another.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from typing import Any

import msgspec
from redis import exceptions
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from headgate.model.errors import Overloaded
from headgate.storage.footing import AGAIN
from headgate.storage.redis_node import Address, Argument, Asked, Command, Node, SentOn

HOPS = 4
"""Times that a command is sent on to another node before it is given up."""
BETWEEN = 1.0
"""Seconds at least between two looks at the map that were not asked for by a move."""

Opens = Callable[[Address, SentOn], Node]

_SCRIPTS = frozenset({"EVALSHA", "EVAL"})
_STREAMS = frozenset({"XREAD", "XREADGROUP"})
_WITH_WORD = frozenset({"XGROUP", "XINFO", "OBJECT", "MEMORY"})
_KEYLESS = frozenset({"PUBLISH", "PING", "INFO", "CONFIG", "TIME", "CLUSTER", "SCRIPT", "COMMAND", "MODULE"})


def first_key(command: Command) -> Argument | None:
    """The key that says where a command belongs; None when it may go anywhere."""
    name = str(command[0]).upper()
    if name in _SCRIPTS:
        return command[3] if int(command[2]) else None
    if name in _STREAMS:
        return command[command.index("STREAMS") + 1]
    if name in _KEYLESS or name.startswith("FT."):
        return None
    return command[2 if name in _WITH_WORD else 1]


class Lone:
    """One server, on which all keys lie."""

    def __init__(self, address: Address, opens: Opens) -> None:
        """`opens` makes the node."""
        self._node = opens(address, _not_here)

    def send(self, asked: Asked) -> None:
        """Send a command."""
        self._node.send(asked)

    async def node(self, _key: Argument | None) -> Node:
        """Where a key lies."""
        return self._node

    async def nodes(self) -> list[Node]:
        """All servers that hold keys."""
        return [self._node]

    def known(self) -> list[Node]:
        """Those that are known without asking."""
        return [self._node]

    async def close(self) -> None:
        """Close all connections."""
        await self._node.close()


class Cluster:
    """The nodes of a cluster and the slots that each of them serves."""

    def __init__(self, address: Address, opens: Opens) -> None:
        """`address` is that of any node; `opens` makes one."""
        self._first = address
        self._opens = opens
        self._nodes: dict[Address, Node] = {address: opens(address, self._sent_on)}
        self._slots: list[Node | None] = []
        self._held_back: list[Asked] = []
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = float("-inf")

    def send(self, asked: Asked) -> None:
        """Send a command to where its first key lies."""
        if not self._slots:
            self._held_back.append(asked)
            self._look()
            return
        node = self._at(first_key(asked.command))
        if node is None:
            asked.refuse(unserved())
        else:
            node.send(asked)
        if (node is None or not node.footing.closed) and time.monotonic() >= self._looked_at + BETWEEN:
            self._look()

    async def node(self, key: Argument | None) -> Node:
        """Where a key lies. Raises Overloaded when nobody knows."""
        if not self._slots:
            await asyncio.shield(self._look())
        found = self._at(key) if self._slots else None
        if found is None:
            raise unserved()
        return found

    async def nodes(self) -> list[Node]:
        """All servers that hold keys. Raises Overloaded when nobody knows."""
        await self.node(None)
        return list(dict.fromkeys(node for node in self._slots if node is not None))

    def known(self) -> list[Node]:
        """Those that are known without asking."""
        return list(self._nodes.values())

    async def close(self) -> None:
        """Close all connections."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
        for node in self.known():
            await node.close()

    def _at(self, key: Argument | None) -> Node | None:
        if key is not None:
            return self._slots[key_slot(key if isinstance(key, bytes) else str(key).encode())]
        nodes = [node for node in self.known() if node.footing.closed] or self.known()
        return random.choice(nodes)

    def _sent_on(self, asked: Asked, error: exceptions.AskError) -> None:
        """A node says that another is to be asked: from now on, or this once while a slot is on its way."""
        if asked.hops >= HOPS:
            asked.refuse(unserved())
            return
        node, moved = self._node((error.host or self._first[0], error.port)), isinstance(error, exceptions.MovedError)
        if moved and self._slots:
            self._slots[error.slot_id] = node
            self._look()
        node.send(msgspec.structs.replace(asked, hops=asked.hops + 1, asking=not moved))

    def _node(self, address: Address) -> Node:
        found = self._nodes.get(address)
        if found is None:
            found = self._nodes[address] = self._opens(address, self._sent_on)
        return found

    def _look(self) -> asyncio.Task[None]:
        """Read the map, once for all who want it."""
        if self._looking is None or self._looking.done():
            self._looked_at = time.monotonic()
            self._looking = asyncio.get_running_loop().create_task(self._read())
        return self._looking

    async def _read(self) -> None:
        """Ask one node after the other, those first that answer."""
        refusal: Overloaded = unserved()
        try:
            for address in sorted(self._nodes, key=lambda one: (not self._nodes[one].footing.closed, random.random())):
                try:
                    await self._learn(address)
                    break
                except Overloaded as error:
                    refusal = error
        finally:
            held_back, self._held_back = self._held_back, []
            for asked in held_back:
                if self._slots:
                    self.send(asked)
                else:
                    asked.refuse(Overloaded(refusal.message, retry_after=AGAIN))

    async def _learn(self, address: Address) -> None:
        """The map as one node sees it. What is no longer in it is closed."""
        asked = Asked(("CLUSTER", "SLOTS"), asyncio.get_running_loop().create_future())
        self._nodes[address].send(asked)
        try:
            ranges: list[list[Any]] = await asked.answer
        except exceptions.ResponseError as error:
            raise Overloaded(f"{self._nodes[address].name} is no node of a cluster: {error}") from error
        slots: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, (host, port, *_), *_replicas in ranges:
            # A node that does not know its own address leaves it out: it is the one that was asked.
            name = host.decode() if host and host != b"?" else address[0]
            slots[first : last + 1] = [self._node((name, port))] * (last + 1 - first)
        if not ranges:
            raise unserved()
        self._slots = slots
        kept = {node for node in slots if node is not None}
        for gone in [one for one, node in self._nodes.items() if node not in kept and one != self._first]:
            await self._nodes.pop(gone).close()


def unserved() -> Overloaded:
    """What to raise where no node is known to serve a key."""
    return Overloaded("No node of the Redis cluster serves this key now.", retry_after=AGAIN)


def _not_here(asked: Asked, _error: exceptions.AskError) -> None:
    asked.refuse(Overloaded("This Redis is a node of a cluster: set `redis.cluster`.", retry_after=AGAIN))
