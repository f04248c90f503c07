"""A whole gateway in memory, with scripted providers: what every scenario starts from."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from headgate.budget.allowances import Allowances, Desk
from headgate.budget.budget import Ledger, UsageQuery, UsageRow
from headgate.budget.memory import MemoryLedger
from headgate.budget.reservation import Budget
from headgate.cache.cache import CacheStore
from headgate.cache.checks import Checks, Ration
from headgate.cache.judge import ExactJudge, Judge
from headgate.cache.labels_memory import MemoryLabels
from headgate.cache.learning import Learning
from headgate.cache.memory import MemoryStore
from headgate.cache.tiers import Cache
from headgate.cache.treatment import CachePolicy, RoutePolicy
from headgate.checking import Checking
from headgate.coalesce.coalesce import Flights
from headgate.coalesce.patience import Patience as FirstPart
from headgate.coalesce.relay import Relay
from headgate.coalesce.sharing import Sharing
from headgate.coalesce.starts import Starts
from headgate.dispatch import Dispatch, Patience
from headgate.limits.limits import Limits
from headgate.limits.memory import MemoryCounters
from headgate.model.chat import ChatRequest
from headgate.model.deployment import Deployment
from headgate.model.money import Price
from headgate.model.record import CallRecord
from headgate.model.tenancy import Caps, Policy, Principal, Window
from headgate.pipeline import Gateway
from headgate.providers.provider import Provider
from headgate.providers.scripted import ScriptedProvider
from headgate.routing.breaker import Breakers
from headgate.routing.deciders import Deciders
from headgate.routing.fleet import Fleet
from headgate.routing.retries import RetryBudget
from headgate.routing.route import DeciderName
from headgate.routing.routing import Route, Routing, Tier
from headgate.routing.sticking import Sticking
from headgate.telemetry.telemetry import Telemetry
from tests.nearness import Near

USD = 1_000_000_000
PRICE = Price(input=1 * USD, output=2 * USD)
CALLER = Principal(tenant="acme", key="key-1")


class Notes:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[CallRecord] = []

    def record(self, record: CallRecord) -> None:
        self.records.append(record)

    def close(self) -> None:
        return None


class House:
    """The gateway, and everything a scenario wants to look at."""

    def __init__(
        self,
        providers: Mapping[str, Provider] | None = None,
        *,
        store: CacheStore | None = None,
        ledger: Ledger | None = None,
        embedder: Any = None,
        verdict: Any = None,
        reader: Any = None,
        stage: Any = None,
        embedding_patience: float = 2.0,
        cache: CachePolicy | None = None,
        route: RoutePolicy | None = None,
        ration: Ration | None = None,
        judge: Judge | None = None,
        learning: Learning | None = None,
        now: Callable[[], float] = lambda: 1_000_000.0,
        patience: Patience | None = None,
        follower_patience: float = 5.0,
        sharing: Sharing | None = None,
        drain: float = 30.0,
        flights: Mapping[str, Any] | None = None,
        clock: Callable[[], float] | None = None,
        caps: Caps | None = None,
        prices: Mapping[str, Price | None] | None = None,
        tiers: dict[Tier, tuple[str, ...]] | None = None,
        deciders: Deciders | None = None,
        deciding: tuple[DeciderName, ...] = ("rules", "features"),
        stick: float = 0.0,
        routed: Mapping[str, Any] | None = None,
        deployed: Mapping[str, Mapping[str, Any]] | None = None,
        sees: Callable[[Policy], bool] = lambda _: True,
        max_output: int = 100,
        context_window: int = 128_000,
        grace: float = 1.0,
        hedges: Mapping[str, RetryBudget] | None = None,
        relay: Relay | None = None,
    ) -> None:
        """`reader` tells what conversations are about; `stage` spares the embedder; `prices` by provider, the usual one for the rest; `tiers` of `auto`, all providers in each by default, `deciders` who
        choose one of them, those that `deciding` names, and `stick` how long conversations are remembered; `routed`: its further fields; `deployed`: what is
        different of a provider's deployment; `sees`: of whom the embedder may see questions; `route`: what it
        says of the cache; `ration`: what checks may cost, none by default; `judge`: who compares answers, by their letters
        by default; `learning`: what the verdict asks, where it asks any; `flights`: what else flights are told; `relay`: through what those of other houses are joined; `clock`: the time
        of durations, where it is not `time`, which passes only when the house sleeps."""
        self._now = now
        self.provider = ScriptedProvider()
        self.providers = dict(providers or {"one": self.provider})
        self.notes = Notes()
        self.ledger = ledger or MemoryLedger(now=now)
        self.allowances = Allowances(caps)
        self.time = 0.0
        self.breakers = Breakers(clock=lambda: self.time)
        self.fleet = Fleet(self.breakers, clock=lambda: self.time)
        deployments = {
            name: Deployment(
                name=name,
                provider=name,
                model=f"{name}-1",
                **{
                    "price": (prices or {}).get(name, PRICE),
                    "max_output": max_output,
                    "context_window": context_window,
                    **(deployed or {}).get(name, {}),
                },
            )
            for name in self.providers
        }
        names = tuple(deployments)
        routes = {
            "auto": Route(
                "auto",
                tiers or {"low": names, "medium": names, "high": names},
                deciders=deciding,
                stick=stick,
                **(routed or {}),
            )
        }
        ids = itertools.count(1)
        self.slept: list[float] = []
        tiered = Cache(
            store or MemoryStore(now=now, stale_for=3_600.0),
            embedder,
            verdict or Near(0.92),
            cache or CachePolicy(),
            routes={} if route is None else {"auto": route},
            reader=reader,
            stage=stage,
            sees=sees,
            now=now,
            patience=embedding_patience,
        )
        sticking = Sticking(clock=lambda: self.time)
        routing = Routing(deployments, routes, fleet=self.fleet, deciders=deciders, sticking=sticking)
        budget = Budget(self.ledger, self.allowances, now=now)
        dispatch = Dispatch(
            self.providers,
            self.fleet,
            RetryBudget(clock=lambda: self.time),
            patience,
            hedges=hedges,
            clock=lambda: self.time,
            sleep=self._sleep,
            chance=random.Random(1),
        )
        self.labels = MemoryLabels()
        self.outcomes: list[str] = []
        self.checking = Checking(
            learning=learning or Learning(),
            checks=Checks(ration or Ration(share=0.0), now=now),
            judge=judge or ExactJudge(),
            quick=judge or ExactJudge(),
            cache=tiered,
            routing=routing,
            budget=budget,
            dispatch=dispatch,
            labels=self.labels,
            tell=self.outcomes.append,
            now=now,
            new_id=lambda: f"check-{next(ids)}",
        )
        self.gateway = Gateway(
            limits=Limits(MemoryCounters()),
            cache=tiered,
            flights=Flights(
                drain=drain,
                patience=FirstPart(follower_patience),
                **{"starts": Starts(sleep=self._sleep), "clock": clock or (lambda: self.time), **(flights or {})},
            ),
            routing=routing,
            budget=budget,
            dispatch=dispatch,
            checking=self.checking,
            telemetry=Telemetry([self.notes]),
            now=now,
            clock=clock or time.monotonic,
            new_id=lambda: f"id-{next(ids)}",
            sharing=sharing,
            relay=relay,
            grace=grace,
        )

    async def _sleep(self, seconds: float) -> None:
        """Time passes only here."""
        self.slept.append(seconds)
        self.time += seconds

    async def allow(self, account: str, cap: int | None, window: Window = "hour", **more: Any) -> None:
        """Let an account spend so much from now on."""
        desk = Desk(self.allowances, self.ledger, self.ledger, now=self._now)
        await desk.set(account, window, cap, **more)
        await self.gateway.budget.refresh()

    async def settled(self) -> int:
        """Nano-USD in the journal."""
        return sum(row.cost for row in await self.ledger.usage(UsageQuery()))

    async def journal(self, *names: str) -> list[UsageRow]:
        """The journal, summed by these names."""
        return await self.ledger.usage(UsageQuery(group_by=names))

    async def flown(self) -> None:
        """Wait until no flight is under way, nor anything that nobody waits for."""
        await self.gateway.refreshes.idle()
        await self.gateway.flights.idle()
        await self.gateway.relaying.idle()
        await self.checking.idle()


def ask(text: str = "Where is my parcel?", **more: Any) -> ChatRequest:
    """A chat request."""
    return ChatRequest.parse({"model": "auto", "messages": [{"role": "user", "content": text}], **more})


def caller(**policy: Any) -> Principal:
    """A caller of the tenant `acme` under this policy."""
    return Principal(tenant="acme", key="key-1", policy=Policy(**policy))
