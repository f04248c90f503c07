"""A scene: callers of three tenants ask a fleet while something happens to it, and afterwards both books are looked into.

Callers go as they do through a load balancer: to one replica after the other, and to the next one where nobody answers, or an answer breaks off.
Two of the tenants, whom no budget limits, ask the same questions at the same time; the third has a cap.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import msgspec

from headgate.demo.replay import Client, Outcome
from headgate.demo.trace import TraceRequest
from headgate.simulator.answers import reference
from tests.faults.replicas import CAP, Fleet, Program, Tenant

PATIENCE = 30.0
CALLERS = 4
"""Of each tenant, half of them for streams; two and two ask the same."""
LEASE = 75.0
"""Seconds after which what a killed replica held is settled: a minute, and until the others are sure that it is gone."""
BROKEN = (0, 502)
"""How it looks that no answer came, or that one broke off."""
PAUSE = 0.01
"""Seconds between two calls of a caller, ten times as long after a refusal."""


class Seen(msgspec.Struct, frozen=True):
    """What one caller saw: `began` and `ended` are monotonic, in seconds."""

    tenant: Tenant
    text: str
    began: float
    ended: float
    outcome: Outcome

    @property
    def served(self) -> bool:
        """Whether it is a whole answer."""
        return self.outcome.status == 200 and not self.outcome.broken


def asked(text: str, *, stream: bool = False) -> TraceRequest:
    """A question of the trace's form."""
    return TraceRequest(t=0.0, tenant="", text=text, system="Be brief.", answer="", kind="novel", stream=stream)


class Balanced:
    """One application of a tenant, which goes round the replicas."""

    def __init__(self, fleet: Fleet, tenant: Tenant, first: int = 0) -> None:
        self._fleet = fleet
        self._tenant = tenant
        self._turn = first
        self._clients: dict[str, Client] = {}

    async def at(self, replica: Program, text: str, *, stream: bool = False) -> Outcome:
        """Ask this replica."""
        client = self._clients.get(replica.url)
        if client is None:
            client = self._clients[replica.url] = Client(replica.url, self._tenant.key)
        return await client.send(asked(text, stream=stream), self._tenant.route)

    async def ask(self, text: str, *, stream: bool = False) -> list[Seen]:
        """Ask until a replica answers to the end; what was seen of each."""
        seen: list[Seen] = []
        for _ in self._fleet.replicas:
            self._turn += 1
            replica = self._fleet.replicas[self._turn % len(self._fleet.replicas)]
            began = time.monotonic()
            outcome = await self.at(replica, text, stream=stream)
            seen.append(Seen(self._tenant, text, began, time.monotonic(), outcome))
            if outcome.status not in BROKEN and not outcome.broken:
                break
        return seen

    async def close(self) -> None:
        """Close its connections."""
        for client in self._clients.values():
            await client.close()


class Scene:
    """The callers, from entering to leaving."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.capped, self.free, self.other = fleet.tenants()
        self.seen: list[Seen] = []
        self.ends: list[Seen] = []
        self._told = {replica.url: len(replica.told()) for replica in fleet.replicas}
        self._ending = False
        self._callers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for tenant in (self.capped, self.free, self.other):
            self._callers += [asyncio.create_task(self._call(tenant, number)) for number in range(CALLERS)]
        await self.until(self.is_served(self.capped, self.free, self.other))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True
        await asyncio.gather(*self._callers)

    async def _call(self, tenant: Tenant, number: int, pause: float = PAUSE) -> None:
        balanced, turn = Balanced(self.fleet, tenant, number), 0
        while not self._ending:
            turn += 1
            text = f"What is thing {turn} of {number // 2} about on route {tenant.route}?"
            seen = await balanced.ask(text, stream=number % 2 == 0)
            self.seen += seen
            self.ends.append(seen[-1])
            await asyncio.sleep(pause if seen[-1].served else 10 * pause)
        await balanced.close()

    def is_served(self, *tenants: Tenant, times: int = 5) -> Callable[[], bool]:
        """Whether each of these tenants was answered so often by calls that begin from now on."""
        now = time.monotonic()

        def true() -> bool:
            counts = [
                sum(one.served and one.began >= now and one.tenant is tenant for one in self.seen) for tenant in tenants
            ]
            return min(counts) >= times

        return true

    async def until(self, true: Callable[[], bool]) -> float:
        """Wait, and fail when it does not come; the seconds that it took."""
        began = time.monotonic()
        while not true():
            for caller in self._callers:
                if caller.done():
                    caller.result()
            assert time.monotonic() < began + PATIENCE, self._last_met()
            await asyncio.sleep(0.01)
        return time.monotonic() - began

    def _last_met(self) -> dict[str, list[str]]:
        """What the callers of each tenant met last."""
        return {
            tenant.route: [
                f"{one.outcome.status} {one.outcome.error} after {one.ended - one.began:.2f} s, {time.monotonic() - one.ended:.2f} s ago"
                for one in self._of(tenant)[-CALLERS:]
            ]
            for tenant in (self.capped, self.free, self.other)
        }

    async def until_spent(self) -> None:
        """More callers of the capped tenant, until every replica refuses it for its budget."""
        extra = [asyncio.create_task(self._call(self.capped, number, 0.0)) for number in range(CALLERS, 5 * CALLERS, 2)]
        self._callers += extra
        await self.until(lambda: [one.outcome.status for one in self._of(self.capped)[-40:]] == [402] * 40)

    async def until_named(self, store: str) -> None:
        """Wait until each replica says at `/readyz` that this is down, and that it serves nonetheless."""
        await self._until_ready(lambda one: one["status"] == "degraded" and store in one["faults"])

    async def until_ready(self) -> float:
        """Wait until each replica says that nothing is down; the seconds that it took."""
        return await self._until_ready(lambda one: one == {"status": "ready"})

    async def _until_ready(self, true: Callable[[dict[str, Any]], bool]) -> float:
        began = time.monotonic()
        async with asyncio.timeout(PATIENCE):
            while not all(map(true, await asyncio.to_thread(self.fleet.readiness))):
                await asyncio.sleep(0.05)
        return time.monotonic() - began

    def _of(self, *tenants: Tenant) -> list[Seen]:
        return [one for one in self.ends if one.tenant in tenants]

    def refused(self) -> list[str]:
        """What callers met who are limited by no budget, and were answered by no replica."""
        return [
            f"{one.outcome.status} {one.outcome.error} after {one.ended - one.began:.2f} s"
            for one in self._of(self.free, self.other)
            if not one.served
        ]

    def slowest(self) -> float:
        """The most seconds that a call took which no budget limits."""
        return max(one.ended - one.began for one in self.seen if one.tenant is not self.capped)

    def changes(self, store: str) -> list[str]:
        """What the log of each replica says of a store since the scene began: a word for each line."""
        return [
            " ".join(
                _change(line) for line in replica.told()[self._told.get(replica.url, 0) :] if line.startswith(store)
            )
            for replica in self.fleet.replicas
        ]

    def noise(self) -> list[str]:
        """The lines of all logs since the scene began that look like a mistake of the program."""
        lines = [line for replica in self.fleet.replicas for line in replica.told()[self._told.get(replica.url, 0) :]]
        return [line for line in lines if "Traceback" in line or "xception" in line]

    async def audit(self, *also: str, lost: bool = False) -> int:
        """Both books agree and nothing is held; what was lost, in nano-USD. `also`: routes that the capped tenant asked besides; `lost`: there
        may be calls whose end nobody saw, which are settled within a minute."""
        missing = await self._settled((self.capped.route, *also), self.capped, lost=lost)
        await self._settled((self.free.route,), self.free, self.other, lost=lost)
        billed, counted = self.fleet.billed(self.capped.route, *also), sum(self.fleet.spent(self.capped))
        assert billed <= counted <= CAP, f"{billed} billed and {counted} counted of {CAP}"
        assert self.noise() == [], self.noise()
        self._answers_are_the_tenants_own()
        return missing

    async def _settled(self, routes: tuple[str, ...], *tenants: Tenant, lost: bool) -> int:
        """Wait until nothing is held, and compare what was spent; what was lost."""
        fleet = self.fleet
        deadline = time.monotonic() + (LEASE if lost else 0.0) + PATIENCE
        while True:
            billed = fleet.billed(*routes)
            spent, missing = fleet.spent(*tenants)
            held = {one["held_usd"] for tenant in tenants for one in fleet.budget(tenant)}
            right = spent <= billed <= spent + missing if lost else (spent, missing) == (billed, 0)
            if right and held == {"0.00"} and not fleet.open():
                return missing
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"{billed} billed, {spent} spent, {missing} lost, {held} held, {fleet.open()} open"
                )
            await asyncio.sleep(0.1)

    def _answers_are_the_tenants_own(self) -> None:
        """Every answer is one to its question, and nobody has one from stock who has not bought it, or tried to."""
        bought = {
            (one.tenant.id, one.text) for one in self.seen if not one.served or one.outcome.source in ("live", "retry")
        }
        for one in self.seen:
            if one.served:
                assert (one.tenant.id, one.text) in bought, one
                assert one.outcome.shortened or one.outcome.content.endswith(reference(one.text)), one


def _change(line: str) -> str:
    if "again" in line:
        return "up"
    return "down" if "does not" in line else line
