"""One Redis server: its connections, and pipelines of what is asked for together.

What is asked for in one turn of the event loop goes out together, in one round trip; while a few of those are under way, what comes
meanwhile waits for one of them and goes together again. So a burst costs a handful of pipelines, not a connection for every caller.
Commands that wait on the server take a connection each, and never those that pipelines need.

A trip costs a request more of the processor than what the server does for it, so this keeps the connections itself and has hiredis write what
is sent: the client library's own pool and packing would be a third of it (docs/adr/0012).

Invariants: what was asked is answered, or refused, within the timeout of each trip it makes; what keeps the server from answering is told as
Overloaded and counts in `footing`, and what it answers does not; an error never holds a password.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import hiredis
import msgspec
from redis import exceptions
from redis.asyncio.connection import AbstractConnection

from headgate.model.errors import Overloaded
from headgate.storage.footing import AGAIN, Footing

TOGETHER = 256
"""Commands of one pipeline at most."""
PIPELINES = 4
"""Pipelines under way at a time."""

Argument = str | bytes | int
Command = tuple[Argument, ...]
Address = tuple[str, int]

_DOES_NOT_ANSWER = frozenset({"LOADING", "CLUSTERDOWN", "MASTERDOWN", "BUSY", "UNKILLABLE"})
"""What a server begins its answer with that does nothing for anybody now."""
_DOES_NOT_WORK = frozenset({"OOM", "READONLY", "MISCONF", "NOREPLICAS", "TRYAGAIN", "NOPERM"})
"""The same of one that may still do other things."""


class Asked(msgspec.Struct, frozen=True):
    """A command and who waits for its answer. `whole` says the same to a server that does not know the script; `hops` counts the servers
    that sent it on; `asking` is set where the last of them said so for this once."""

    command: Command
    answer: asyncio.Future[Any]
    whole: Command | None = None
    hops: int = 0
    asking: bool = False

    def give(self, answer: Any) -> None:
        """Hand over an answer, unless nobody waits any more."""
        if not self.answer.done():
            self.answer.set_result(answer)

    def refuse(self, error: Exception) -> None:
        """Raise it for who waits."""
        if not self.answer.done():
            self.answer.set_exception(error)


SentOn = Callable[[Asked, exceptions.AskError], None]


class Node:
    """One server. Connects when it is first used."""

    def __init__(
        self,
        name: str,
        address: Address,
        makes: Callable[[], AbstractConnection],
        *,
        most: int,
        timeout: float,
        sent_on: SentOn,
    ) -> None:
        """`name` is what it is called in the log and towards callers; `makes` gives a new connection, not connected yet; `most`: of them;
        `timeout`: seconds that an answer is waited for. `sent_on` gets what another node of a cluster is to be asked for."""
        self.name = name
        self.address = address
        self._makes = makes
        self._idle: list[AbstractConnection] = []
        self._timeout = timeout
        self.footing = Footing(name)
        self.round_trips = 0
        self._pipelines = min(PIPELINES, most - 1)
        self._most = most
        self._free = most - self._pipelines
        self._sent_on = sent_on
        self._waiting: list[Asked] = []
        self._due = self._demoted = False
        self._carrying: set[asyncio.Task[None]] = set()

    def send(self, asked: Asked) -> None:
        """Send it with all else of this turn of the event loop."""
        try:
            self.footing.admit()
        except Overloaded as refusal:
            asked.refuse(refusal)
            return
        self._waiting.append(asked)
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._depart)

    async def wait_for(self, command: Command, seconds: float) -> Any:
        """What a command answers that may wait on the server for so long: on a connection of its own. An AskError is handed over as the
        answer: what waits cannot be sent on with what does not."""
        self.footing.admit()
        if not self._free:
            raise Overloaded(
                f"All {self._most} connections to Redis are in use; `redis.pool` allows more.", retry_after=AGAIN
            )
        self._free -= 1
        try:
            answer = (await self._exchanged([command], self._timeout + seconds))[0]
        except (exceptions.RedisError, OSError) as error:
            raise self.footing.slipped(_reason(error)) from None
        finally:
            self._free += 1
        if isinstance(answer, exceptions.AskError):
            return answer
        asked = Asked(command, asyncio.get_running_loop().create_future())
        self._handed(asked, answer)
        return await asked.answer

    async def close(self) -> None:
        """Let what is under way come back, and close all connections."""
        while self._carrying or self._waiting:
            if self._carrying:
                await asyncio.wait(self._carrying)
            await asyncio.sleep(0)
        await self._hang_up()

    def _depart(self) -> None:
        """All that was asked for in this turn goes; what is too much waits for a pipeline to come back."""
        self._due = False
        while self._waiting and len(self._carrying) < self._pipelines:
            batch, self._waiting = self._waiting[:TOGETHER], self._waiting[TOGETHER:]
            task = asyncio.get_running_loop().create_task(self._carry(batch))
            self._carrying.add(task)
            task.add_done_callback(self._carried)

    def _carried(self, task: asyncio.Task[None]) -> None:
        self._carrying.discard(task)
        self._depart()

    async def _carry(self, batch: list[Asked]) -> None:
        """One round trip; a second one for scripts that the server does not know (any more)."""
        unknown = await self._trip(batch, whole=False)
        if unknown:
            await self._trip(unknown, whole=True)

    async def _trip(self, batch: list[Asked], *, whole: bool) -> list[Asked]:
        """Send commands and hand out their answers. Those whose script the server does not know, unless their `whole` was sent."""
        self.round_trips += 1
        commands: list[Command] = []
        for one in batch:
            if one.asking:
                commands.append(("ASKING",))
            commands.append(one.whole or one.command if whole else one.command)
        try:
            answers = iter(await self._exchanged(commands, self._timeout))
        except (exceptions.RedisError, OSError) as error:
            self._given_up(batch, _reason(error))
            return []
        except Exception as error:  # whatever it is, nobody is to wait for ever
            # Something in a command cannot be written, such as half a surrogate pair: nobody else's fault.
            if len(batch) == 1:
                batch[0].refuse(error)
                return []
            return [unknown for one in batch for unknown in await self._trip([one], whole=whole)]
        unknown = []
        for one in batch:
            if one.asking:
                next(answers)
            answer = next(answers)
            if isinstance(answer, exceptions.NoScriptError) and not whole:
                unknown.append(one)
            else:
                self._handed(one, answer)
        if self._demoted:
            # It was made a replica: who is connected to under its name next may be the new master.
            self._demoted = False
            await self._hang_up()
        return unknown

    def _given_up(self, batch: list[Asked], reason: str) -> None:
        """Who waits in line has waited for the same server; it is not asked for them in vain."""
        self.footing.slipped(reason)
        refused, self._waiting = [*batch, *self._waiting], []
        for one in refused:
            one.refuse(self.footing.refusal(reason))

    def _handed(self, one: Asked, answer: Any) -> None:
        if not isinstance(answer, Exception):
            self.footing.held()
            one.give(answer)
        elif isinstance(answer, exceptions.AskError):
            self._sent_on(one, answer)
        else:
            one.refuse(self._told(answer))

    async def _exchanged(self, commands: list[Command], seconds: float) -> list[Any]:
        """The answers, errors among them. Once more where the connection turns out to be closed, and never for what took too long."""
        # Its types say "a tuple of one".
        packed = b"".join([hiredis.pack_command(command) for command in commands])  # type: ignore[arg-type]
        async with asyncio.timeout(seconds), self._lent() as connection:
            try:
                return await _exchange(connection, packed, len(commands))
            except exceptions.ConnectionError:
                await connection.disconnect(nowait=True)
                await connection.connect()  # type: ignore[no-untyped-call]
                return await _exchange(connection, packed, len(commands))

    @contextlib.asynccontextmanager
    async def _lent(self) -> AsyncIterator[AbstractConnection]:
        """A connection, the one that was used last where one is idle; it is closed when it was not left in order."""
        connection = self._idle.pop() if self._idle else self._makes()
        try:
            if connection.is_connected and await connection.can_read():
                # A server has nothing to say on an idle connection but that it goes.
                await connection.disconnect(nowait=True)
            if not connection.is_connected:
                await connection.connect()  # type: ignore[no-untyped-call]
            yield connection
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._idle.append(connection)

    async def _hang_up(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            await self._idle.pop().disconnect(nowait=True)

    def _told(self, error: Exception) -> Exception:
        """What to raise for an answer that is an error."""
        reason, code = _reason(error), _code(error)
        if code in _DOES_NOT_ANSWER:
            return self.footing.slipped(reason)
        if code == "READONLY":
            self._demoted = True
        if code in _DOES_NOT_WORK:
            return self.footing.refused(reason)
        self.footing.held()
        return error


async def _exchange(connection: AbstractConnection, packed: bytes, count: int) -> list[Any]:
    await connection.send_packed_command(packed, check_health=False)
    answers: list[Any] = []
    for _ in range(count):
        try:
            answers.append(await connection.read_response())
        except exceptions.ResponseError as error:
            answers.append(error)
    return answers


def _code(error: Exception) -> str:
    """The word that an error of a server begins with; the client takes it off the text of those that have a class of their own."""
    return getattr(error, "status_code", None) or str(error).split(" ", 1)[0]


def _reason(error: Exception) -> str:
    """What is wrong, in one line."""
    if isinstance(error, exceptions.AuthenticationError | exceptions.AuthorizationError):
        return "it does not accept our password"
    if isinstance(error, TimeoutError | exceptions.TimeoutError):
        return "no answer in time"
    text = " ".join(str(error).split())[:200].rstrip(".")
    return text or type(error).__name__
