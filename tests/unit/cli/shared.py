"""A configuration with stores that processes share, and what a server would write into them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import yaml

from headgate.budget.budget import Entry, Hold, Scope
from headgate.budget.windows import window_id
from headgate.cache.cache import Entry as Answer
from headgate.config import Config
from headgate.fittings_stores import opened
from headgate.model.chat import Completion
from headgate.model.money import Usage
from headgate.model.tenancy import WINDOWS, Key, Namespace
from headgate.routing.outcomes import Outcome
from headgate.routing.outcomes_behind import OutcomesBehind
from headgate.stores import Stores
from tests.unit.cli.conftest import Headgate

FAR = 4_000_000_000.0
USAGE = Usage(prompt_tokens=100, completion_tokens=50)


class Shared:
    """One such configuration, in a file that commands read; a server's data directory, if any, is `elsewhere`."""

    def __init__(self, folder: Path, headgate: Headgate, **config: Any) -> None:
        """`config`: what it says beyond a quiet log. A database is prepared."""
        self.config = Config.model_validate({"telemetry": {"log": "off"}, **config})
        self.path = folder / "shared.yaml"
        self.path.write_text(yaml.safe_dump({"telemetry": {"log": "off"}, **config}))
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()
        self._headgate = headgate
        if self.config.storage.postgres is not None:
            self.run("migrate")

    def run(self, *args: str, **more: Any) -> Any:
        """One command line; its result."""
        return self._headgate(*args, "--config", str(self.path), **more)

    def serving(self, work: Callable[[Stores], Awaitable[None]], data: Path | None = None) -> None:
        """What a serving process does with its stores, until it ends."""

        async def serve() -> None:
            async with opened(self.config, data or self.elsewhere, lambda _: None) as stores:
                try:
                    await work(stores)
                finally:
                    await stores.durable.ledger.close()
                    await stores.quick.entries.close()

        asyncio.run(serve())

    def spend(self, tenant: str, amount: int) -> None:
        """One settled call, in nano-USD."""

        async def call(stores: Stores) -> None:
            ledger = stores.durable.ledger
            scopes = tuple(Scope(f"tenant:{tenant}", window_id(window, time.time())) for window in WINDOWS)
            entry = Entry(tenant=tenant, model="m", deployment="m", amount=amount, usage=USAGE)
            await ledger.reserve(Hold(id="a", scopes=scopes, amount=amount, least=amount, lease=60.0, entry=entry))
            await ledger.dispatched("a")
            ledger.settle("a", [entry])

        self.serving(call)

    def answer(self, tenant: str, *ids: str) -> None:
        """Answers in stock."""
        self.serving(lambda stores: keep(stores, tenant, *ids))

    def outcome(self, id: str) -> None:
        """What came of a call."""

        async def learn(stores: Stores) -> None:
            kept = await OutcomesBehind.open(stores.durable.outcomes)
            kept.keep(
                Outcome(id=id, at=1.0, tenant="t", route="auto", candidates={"low": ("m",)}, tier="low", propensity=1.0)
            )
            await kept.close()

        self.serving(learn)


async def keep(stores: Stores, tenant: str, *ids: str) -> None:
    """Put answers into stock."""
    said = Completion(
        model="m", choices=[{"message": {"role": "assistant", "content": "Here."}}], usage=USAGE, reported={}
    )
    for id in ids:
        key = Key(Namespace(tenant), id.encode().ljust(32))
        entry = Answer(id=id, key=key, answer=msgspec.msgpack.encode(said), stored=time.time(), expires=FAR)
        assert await stores.quick.entries.put(entry, epoch=0)
