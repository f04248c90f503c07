"""A gateway that spends until it is killed: what `test_kill_points.py` kills.

A fork server. It loads the gateway once, then reads orders, one line of JSON each, and forks a child for each that opens the gateway on
the order's data directory, arms the failpoint and makes calls of every kind until it dies. Two lines are told of each: its process id, and how it ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import sys
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import uvloop

from headgate.assembly import Engine, open_engine
from headgate.config import Config
from headgate.model import failpoints
from headgate.model.chat import ChatRequest, Json
from headgate.model.errors import GatewayError
from headgate.model.tenancy import Policy, Principal, Wishes
from headgate.pipeline import Gateway

WORKERS = 6
CAP = 12_000_000
"""Nano-USD that the capped tenant may spend; each of its other accounts a quarter less than the one above it."""
PATIENCE = 60.0
PRICES = {"m": ("1", "2"), "f": ("2", "4"), "e": ("0.5", "0")}
"""USD for a million tokens, by the first letter of a model: whole nano-USD for each, so that nothing is rounded."""
MOST = 200


class Order(msgspec.Struct, frozen=True):
    """Where to spend: `kill` numbers the tenants, `endpoint` is told what they owe. Without a failpoint nothing is spent, only told."""

    data: str
    provider: str
    kill: int
    failpoint: str = ""
    endpoint: str = ""


def accounts(kill: int) -> dict[str, int]:
    """What is capped, from the top down, in nano-USD."""
    tenant = f"capped{kill}"
    names = (
        f"organisation:group{kill}",
        f"tenant:{tenant}",
        f"user:{tenant}/ann",
        f"key:{tenant}/k1",
        f"feature:{tenant}/search",
    )
    caps = {}
    for place, name in enumerate(names):
        caps[name] = CAP * 3**place // 4**place
    caps[f"model:{tenant}/m0"] = CAP // 12
    return caps


def configuration(order: Order) -> Config:
    """A route for every worker, so that the books can be compared worker by worker."""
    models: dict[str, Json] = {}
    for letter, (input, output) in PRICES.items():
        for worker in range(WORKERS):
            price = {"input": input, "output": output}
            kind = "claude" if letter == "f" else "sim"
            models[f"{letter}{worker}"] = {"provider": kind, "price": price, "max_output": MOST}
    return Config.model_validate(
        {
            "providers": {
                "sim": {"kind": "openai", "base_url": f"{order.provider}/v1", "allow_private": True},
                "claude": {"kind": "anthropic", "base_url": order.provider, "api_key": "any", "allow_private": True},
            },
            "models": models,
            "routes": {f"w{worker}": {"models": [f"m{worker}", f"f{worker}"]} for worker in range(WORKERS)},
            "cache": {"semantic": {"mode": "off"}},
            "dispatch": {"backoff": "1ms", "longest_wait": "1ms"},
            "tenant_defaults": {"budget": {"hour": 1_000}},
            "telemetry": {"log": "off"},
            "billing": sinks(order.endpoint) if order.endpoint else {},
        }
    )


def sinks(endpoint: str) -> dict[str, Json]:
    """One that takes events in batches, one that takes them one by one, and a file."""
    return {
        "meter": {"kind": "openmeter", "url": endpoint, "event": "spent", "value": "nano_usd", "allow_private": True},
        "hook": {"kind": "webhook", "url": f"{endpoint}/hook", "allow_private": True},
        "lines": {"kind": "jsonl"},
    }


class Worker:
    """One caller after the other, on a route of their own."""

    def __init__(self, gateway: Gateway, order: Order, number: int) -> None:
        self.gateway = gateway
        self.number = number
        self.chance = random.Random(f"{order.failpoint} {order.kill} {number}")
        self.asked = 0
        policy = Policy(rpm=1_000_000, organisation=f"group{order.kill}")
        groups = (f"group{order.kill}",)
        self.callers = (
            Principal(tenant=f"capped{order.kill}", organisations=groups, policy=policy, key="k1", user="ann"),
            Principal(tenant=f"free{order.kill}", policy=Policy(rpm=1_000_000, hit_percent=50), key="k2"),
        )

    async def run(self) -> None:
        while True:
            caller = self.chance.choice(self.callers)
            act = self.chance.choice((self.whole, self.streamed, self.left, self.twice, self.wide, self.embedded))
            with contextlib.suppress(GatewayError):
                await act(caller)
            await asyncio.sleep(0)

    def question(self, **more: Any) -> ChatRequest:
        """Now and then one that was asked before; of half of them the answer is cut off at a limit."""
        self.asked += 1
        number = self.chance.randrange(self.asked) if self.chance.random() < 0.2 else self.asked
        text = f"Worker {self.number} wants to know what {number} is, and why."
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
        if self.chance.random() < 0.5:
            more["max_tokens"] = self.chance.randint(1, 80)
        return ChatRequest.parse({"model": f"w{self.number}", "messages": messages, **more})

    @property
    def wishes(self) -> Wishes:
        return Wishes(feature=self.chance.choice((None, "search")))

    async def whole(self, caller: Principal, **more: Any) -> None:
        async with await self.gateway.chat(caller, self.question(**more), self.wishes) as reply:
            await reply.completion()

    async def wide(self, caller: Principal) -> None:
        await self.whole(caller, n=2)

    async def streamed(self, caller: Principal) -> None:
        async with await self.gateway.chat(caller, self.question(stream=True), self.wishes) as reply:
            async for _ in reply.events():
                pass

    async def left(self, caller: Principal) -> None:
        """Its caller leaves in the middle; the flight goes on."""
        async with await self.gateway.chat(caller, self.question(stream=True), self.wishes) as reply:
            async with contextlib.aclosing(reply.events()) as events:
                async for _ in events:
                    break

    async def twice(self, caller: Principal) -> None:
        """Two ask the same at the same time, and one more afterwards."""
        request = self.question()

        async def ask() -> None:
            async with await self.gateway.chat(caller, request) as reply:
                await reply.completion()

        await asyncio.gather(ask(), ask(), return_exceptions=True)
        await ask()

    async def embedded(self, caller: Principal) -> None:
        self.asked += 1
        body = {"model": f"e{self.number}", "input": [f"Text {self.asked} of worker {self.number}.", "And another."]}
        await self.gateway.embed(caller, body, self.wishes)


async def limit(engine: Engine, kill: int) -> None:
    for account, cap in accounts(kill).items():
        await engine.desk.set(account, "total", cap)
    await engine.gateway.budget.refresh()


async def spend(order: Order) -> None:
    async with open_engine(configuration(order), Path(order.data)) as engine:
        if not order.failpoint:
            await asyncio.sleep(PATIENCE)
            return
        await limit(engine, order.kill)
        workers = [Worker(engine.gateway, order, number) for number in range(WORKERS)]
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(worker.run() for worker in workers))


def child(order: Order) -> NoReturn:
    """Killed, or out of patience, which is no good end."""
    try:
        os.environ[failpoints.VARIABLE] = order.failpoint
        failpoints.arm(os.environ)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(spend(order))
    except BaseException as error:
        sys.stderr.write(f"{order}: {error!r}\n")
        sys.stderr.flush()
    os._exit(1)


def main() -> None:
    gc.collect()
    gc.freeze()
    for line in sys.stdin.buffer:
        order = msgspec.json.decode(line, type=Order)
        pid = os.fork()
        if pid == 0:
            child(order)
        os.write(1, b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
