"""Whatever callers and providers do, at the end nothing is held, nothing is over its cap, and every count agrees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.dispatch import Patience
from headgate.model.chat import ChatRequest, Delta, Done, Event
from headgate.model.clearance import Clearance
from headgate.model.deployment import Deployment
from headgate.model.errors import GatewayError, Malformed, Rejected, Throttled, Unavailable
from headgate.model.money import Usage
from headgate.model.tenancy import Policy, Principal, Wishes
from headgate.providers.scripted import ScriptedProvider
from tests.chaos import times
from tests.scenarios.house import House, ask

HOUR = "hour:1970-01-12T13"
FATES = ("whole", "whole", "whole", "no usage", "refused", "throttled", "lost", "cut", "garbage", "hang")
DEEDS = ("read", "read", "peek", "leave", "hurry")


class Fickle(ScriptedProvider):
    """Obeys its limit, and otherwise does to each call what its fate says."""

    def __init__(self, fates: list[str]) -> None:
        super().__init__()
        self._fates = iter(fates)

    async def send(
        self, deployment: Deployment, request: ChatRequest, clearance: Clearance, *, timeout: float
    ) -> AsyncGenerator[Event, None]:
        fate = next(self._fates, "whole")
        await asyncio.sleep(0)
        if fate == "refused":
            raise Rejected("no")
        if fate == "throttled":
            raise Throttled("later", retry_after=0.0)
        if fate in ("lost", "garbage"):
            error = Unavailable("closed") if fate == "lost" else Malformed("what?")
            error.sent, error.received = True, 0 if fate == "lost" else 400
            raise error
        for piece in range(min(clearance.limit, 5)):
            yield Delta([{"index": 0, "delta": {"content": "word "}, "finish_reason": None}])
            await asyncio.sleep(0)
            if fate == "cut" and piece == 1:
                raise Unavailable("broke off")
            if fate == "hang":
                await asyncio.Event().wait()
        yield Delta([{"index": 0, "delta": {}, "finish_reason": "stop" if clearance.limit > 5 else "length"}])
        used = Usage(prompt_tokens=9, completion_tokens=min(clearance.limit, 5))
        yield Done(deployment.model, None if fate == "no usage" else used)


async def call(house: House, who: Principal, asked: tuple[int, str, bool, str]) -> None:
    question, user, stream, deed = asked
    wishes = Wishes(user=user, timeout=0.0 if deed == "hurry" else None)
    try:
        async with await house.gateway.chat(who, ask(f"Question {question}?", stream=stream), wishes) as reply:
            if deed == "read":
                await reply.completion()
            elif deed == "peek":
                async for _ in reply.events():
                    break
    except GatewayError:
        pass


async def lived(
    fates: list[str], calls: list[tuple[int, str, bool, str]], policy: dict[str, Any], caps: tuple[int, int]
) -> House:
    providers = {"one": Fickle(fates), "two": Fickle(fates[1::2])}
    house = House(providers, drain=0.0, patience=Patience(total=1.0))
    await house.allow("tenant:acme", caps[0])
    await house.allow("user:acme/ann", caps[1])
    who = Principal(tenant="acme", key="key-1", policy=Policy(rpm=10_000, **policy))
    async with asyncio.timeout(20):
        for at in range(0, len(calls), 4):
            # Who reads an answer that hangs is set free when the others have left; so readers are given up after a while.
            readers = [asyncio.create_task(call(house, who, one)) for one in calls[at : at + 4]]
            await asyncio.wait(readers, timeout=0.05)
            for reader in readers:
                reader.cancel()
            await asyncio.wait(readers)
        await house.flown()
    return house


@given(
    fates=st.lists(st.sampled_from(FATES), max_size=20),
    calls=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(("ann", "bob")), st.booleans(), st.sampled_from(DEEDS)),
        min_size=1,
        max_size=16,
    ),
    policy=st.fixed_dictionaries(
        {
            "hit_percent": st.sampled_from((0, 30, 120)),
            "abandoned": st.sampled_from(("finish", "cancel")),
            "tpm": st.sampled_from((None, 300, 100_000)),
        }
    ),
    caps=st.tuples(st.sampled_from((50_000, 400_000, 10_000_000)), st.sampled_from((0, 60_000, 10_000_000))),
)
@settings(max_examples=times(60, 3_000), deadline=None)
def test_at_the_end_nothing_is_held_nothing_is_over_its_cap_and_every_count_agrees(
    fates: list[str], calls: list[tuple[int, str, bool, str]], policy: dict[str, Any], caps: tuple[int, int]
) -> None:
    async def run() -> None:
        house = await lived(fates, calls, policy, caps)
        tenant = await house.ledger.balance("tenant:acme", HOUR)
        ann = await house.ledger.balance("user:acme/ann", HOUR)
        rows = await house.journal("user", "source")
        billed = [row.billed for row in rows]
        assert house.ledger.open_reservations() == 0
        assert (tenant.held, ann.held) == (0, 0)
        assert tenant.spent == sum(billed) <= caps[0]
        assert ann.spent == sum(row.billed for row in rows if row.group["user"] == "ann") <= caps[1]
        assert sum(row.cost for row in rows) == sum(record.cost for record in house.notes.records)
        assert len(house.notes.records) == len(calls)
        assert all(row.cost == 0 for row in rows if row.group["source"] != "live")

    asyncio.run(run())
