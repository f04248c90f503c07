"""Who is let in while nobody answers who that is."""

from __future__ import annotations

import asyncio

import pytest

from headgate.model.errors import Overloaded
from headgate.model.tenancy import Principal
from headgate.tenants.known import FRESH_SECONDS, STALE_SECONDS, Known, KnownKeys

ANN = Known(Principal(tenant="acme", user="ann"), None)


class Register:
    """Knows ann's key, unless it was revoked; answers while `open` is set, and in vain where it has a fault."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()
        self.fault: Exception | None = None
        self.revoked = False
        self.keys = KnownKeys(self._find, lambda: self.now, patience=0.0)

    async def _find(self, digest: str) -> Known | None:
        self.asked += 1
        await self.open.wait()
        if self.fault is not None:
            raise self.fault
        return ANN if digest == "ann" and not self.revoked else None

    async def hang(self) -> None:
        """Let ann in, and then hang until her word is old."""
        assert await self.keys.of("ann") is ANN
        self.open.clear()
        self.now += FRESH_SECONDS


async def test_who_was_let_in_lately_does_not_wait_for_a_register_that_hangs() -> None:
    register = Register()
    await register.hang()
    for _ in range(10):
        assert await register.keys.of("ann") is ANN
    assert register.asked == 2, "it is asked again, and once"


async def test_who_is_not_known_waits_for_it() -> None:
    register = Register()
    await register.hang()
    waiting = asyncio.create_task(register.keys.of("bob"))
    await asyncio.sleep(0)
    assert not waiting.done()
    register.fault = Overloaded("It does not answer.", retry_after=1.0)
    register.open.set()
    with pytest.raises(Overloaded):
        await waiting


async def test_what_it_says_late_counts_from_then_on() -> None:
    register = Register()
    await register.hang()
    assert await register.keys.of("ann") is ANN
    register.revoked = True
    register.open.set()
    while await register.keys.of("ann") is not None:
        await asyncio.sleep(0)
    assert register.asked == 2


async def test_an_old_word_is_no_longer_believed_after_an_hour() -> None:
    register = Register()
    await register.hang()
    register.now += STALE_SECONDS
    waiting = asyncio.create_task(register.keys.of("ann"))
    await asyncio.sleep(0)
    assert not waiting.done()
    register.open.set()
    assert await waiting is ANN
