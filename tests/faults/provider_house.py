"""A whole engine with two simulated providers behind real sockets, and the look into both books after every scenario."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import msgspec

from headgate.assembly import Engine, open_engine
from headgate.budget.budget import UsageQuery
from headgate.config import Config
from headgate.model.chat import ChatRequest, Event
from headgate.model.errors import GatewayError
from headgate.model.record import Attempt
from headgate.model.tenancy import Principal
from headgate.simulator.script import Rule
from headgate.simulator.simulator import Running, Simulator

PRICE = {"input": "1", "output": "2"}
CALLER = Principal(tenant="acme")


def settings(one: str, two: str, **dispatch: Any) -> dict[str, Any]:
    """Route `auto` leads to `a` at the first provider, then `b` at the second; route `alone` to `a`. Both speak OpenAI's format, `c`
    is the first provider's in Anthropic's."""
    timeouts = {"connect": "0.5s", "first_byte": "0.3s", "idle": "0.3s"}
    open_ai = {"kind": "openai", "allow_private": True, "timeouts": timeouts}
    return {
        "providers": {
            "one": {**open_ai, "base_url": f"{one}/v1"},
            "two": {**open_ai, "base_url": f"{two}/v1"},
            "claude": {
                "kind": "anthropic",
                "base_url": one,
                "api_key": "any",
                "allow_private": True,
                "timeouts": timeouts,
            },
        },
        "models": {
            "a": {"provider": "one", "model": "model-a", "price": PRICE, "max_output": 300},
            "b": {"provider": "two", "model": "model-b", "price": PRICE, "max_output": 300},
            "c": {"provider": "claude", "model": "model-c", "price": PRICE, "max_output": 300, "fallbacks": ["b"]},
        },
        "routes": {"auto": {"models": ["a", "b"]}, "alone": {"models": ["a"]}},
        "cache": {"semantic": {"mode": "off"}},
        "dispatch": {"backoff": "1ms", **dispatch},
        "tenant_defaults": {"budget": {"hour": 1_000}},
        "telemetry": {"log": "off"},
    }


class Told(msgspec.Struct):
    """What a caller was told."""

    text: str = ""
    error: GatewayError | None = None
    events: list[Event] = []
    attempts: list[Attempt] = []

    @property
    def tried(self) -> list[tuple[str, str]]:
        return [(attempt.deployment, attempt.outcome) for attempt in self.attempts]


class Place:
    """The engine between its callers and its providers."""

    def __init__(self, engine: Engine, one: Running, two: Running, journal: Path) -> None:
        self.engine = engine
        self.one = one
        self.two = two
        self._journal = journal
        self._asked = 0
        self.told: list[Told] = []

    def breaks(self, fault: str, *, also_two: bool = False, **when: Any) -> None:
        """From now on calls of the first provider, or of both, meet this fault."""
        for provider in (self.one, self.two) if also_two else (self.one,):
            provider.simulator.use_script([Rule(fault=fault, **when)])

    def heal(self) -> None:
        for provider in (self.one, self.two):
            provider.simulator.use_script([])

    async def ask(self, model: str = "auto", *, stream: bool = False, **more: Any) -> Told:
        """One call, another question each time; errors are part of what is told."""
        self._asked += 1
        text = f"Tell me ten things about house number {self._asked}."
        request = ChatRequest.parse(
            {"model": model, "stream": stream, "messages": [{"role": "user", "content": text}], **more}
        )
        told = Told(events=[], attempts=[])
        self.told.append(told)
        try:
            async with await self.engine.gateway.chat(CALLER, request) as reply:
                try:
                    if stream:
                        await reply.opened()
                        async with aclosing(reply.events()) as events:
                            async for event in events:
                                told.events.append(event)
                    told.text = (await reply.completion()).text
                finally:
                    told.attempts = reply.trail.attempts
        except GatewayError as error:
            told.error = error
        return told

    def state(self, name: str = "a") -> str:
        return str(self.engine.gateway.routing.health()[name]["state"])

    def calls(self) -> tuple[int, int]:
        """How often each provider was called."""
        return self.one.stats().calls, self.two.stats().calls

    async def settle(self, *, never_arrived: int = 0) -> None:
        """Nothing is held; every attempt is one that a provider has counted, but for those that cannot have arrived; and what is in the
        journal is what they bill, to the token where an end was seen."""
        gateway = self.engine.gateway
        await gateway.flights.idle()
        await gateway.budget.ledger.usage(UsageQuery())
        assert gateway.budget.ledger.open_reservations() == 0
        attempts = sum(len(told.attempts) for told in self.told)
        assert attempts - never_arrived == sum(self.calls())
        with closing(sqlite3.connect(self._journal)) as connection:
            rows = connection.execute(
                "SELECT estimated, sum(amount) FROM journal WHERE kind IN ('charge', 'settle', 'lost') GROUP BY estimated"
            ).fetchall()
        sums = {bool(estimated): amount for estimated, amount in rows}
        billed = [provider.stats() for provider in (self.one, self.two)]
        truth = sum(one.prompt_tokens * 1_000 + one.completion_tokens * 2_000 for one in billed)
        if True in sums:
            assert sums.get(False, 0) <= truth
        else:
            assert sums.get(False, 0) == truth


@asynccontextmanager
async def place(folder: Path, **dispatch: Any) -> AsyncIterator[Place]:
    async with Simulator().serve() as one, Simulator().serve() as two:
        config = Config.model_validate(settings(one.url, two.url, **dispatch))
        async with open_engine(config, folder) as engine:
            yield Place(engine, one, two, folder / "headgate.db")
