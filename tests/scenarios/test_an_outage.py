"""An hour in which every provider is down, in virtual time: what reaches them, what callers are told, and how it ends."""

from __future__ import annotations

import asyncio

from headgate.budget.budget import UsageQuery
from headgate.dispatch import Patience
from headgate.model.chat import ChatRequest
from headgate.model.clearance import Clearance
from headgate.model.deployment import Deployment
from headgate.model.errors import AllFailed, Unavailable
from headgate.providers.scripted import ScriptedProvider, answer
from tests.scenarios.house import House, ask, caller

HOUR = 3_600.0
EVERY = 4.0
AT_ONCE = 3
CUSTOMER = caller(rpm=10**9)


class Power:
    """Whether the providers of a test have power."""

    def __init__(self) -> None:
        self.on = True


class Plugged(ScriptedProvider):
    """A provider that answers while there is power."""

    def __init__(self, power: Power) -> None:
        super().__init__(answer("Hello."))
        self._power = power
        self.tried: list[float] = []
        self.clock = lambda: 0.0

    async def send(self, deployment: Deployment, request: ChatRequest, clearance: Clearance, *, timeout: float):
        self.tried.append(self.clock())
        if not self._power.on:
            raise Unavailable("down")
        async for event in super().send(deployment, request, clearance, timeout=timeout):
            yield event


async def one_call(house: House, text: str) -> AllFailed | None:
    """What a caller is told, if it is no answer."""
    async with await house.gateway.chat(CUSTOMER, ask(text)) as reply:
        try:
            await reply.completion()
        except AllFailed as error:
            return error
    return None


async def run(house: House, seconds: float) -> tuple[int, list[AllFailed]]:
    """Calls at an even pace, three at a time; how many there were, and what those were told that failed."""
    calls, failed = 0, []
    end = house.time + seconds
    while house.time < end:
        began = house.time
        told = await asyncio.gather(*(one_call(house, f"Question {house.time} {turn}") for turn in range(AT_ONCE)))
        failed += [error for error in told if error is not None]
        calls += AT_ONCE
        house.time = began + EVERY
    return calls, failed


async def test_an_outage_of_an_hour_reaches_the_providers_at_most_one_point_two_times_and_ends_without_a_herd() -> None:
    power = Power()
    for providers in ({"one": Plugged(power)}, {"one": Plugged(power), "two": Plugged(power), "three": Plugged(power)}):
        power.on = True
        house = House(providers, patience=Patience(retries=1))
        for provider in providers.values():
            provider.clock = lambda house=house: house.time
        await run(house, 60.0)
        power.on = False
        began = house.time
        calls, failed = await run(house, HOUR)
        ended = house.time
        assert len(failed) == calls
        assert {(error.status, error.retry_after is not None) for error in failed} == {(503, True)}
        reached = sum(began <= at < ended for provider in providers.values() for at in provider.tried)
        assert reached <= 1.2 * calls
        power.on = True
        calls, failed = await run(house, 300.0)
        assert failed == [], "the least bad one is tried at once"
        after = [at for provider in providers.values() for at in provider.tried if at >= ended]
        assert len(after) <= 1.2 * calls
        assert max(after.count(at) for at in after) <= 1.2 * AT_ONCE, "nobody comes all at once"
        assert house.ledger.open_reservations() == 0
        rows = await house.ledger.usage(UsageQuery())
        assert sum(row.cost for row in rows) > 0


async def test_when_one_of_two_is_down_for_an_hour_callers_notice_nothing_and_it_gets_a_probe_at_a_time() -> None:
    power, mains = Power(), Power()
    broken, sound = Plugged(power), Plugged(mains)
    house = House({"one": broken, "two": sound})
    broken.clock = sound.clock = lambda: house.time
    power.on = False
    calls, failed = await run(house, HOUR)
    assert failed == []
    assert len(broken.tried) <= 0.05 * calls
    assert len(broken.tried) + len(sound.tried) <= 1.2 * calls
    power.on = True
    await run(house, 300.0)
    assert house.breakers.state("one") == "closed"
