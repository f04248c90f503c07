"""Headgate as several processes: real replicas on one Redis and one PostgreSQL, a simulated provider behind them, a load balancer's callers before.

Invariant: what a fleet started ends with it, and no replica is asked for anything but over HTTP.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Self

import msgspec
import psycopg

import headgate
from headgate.model.money import NANO_PER_USD
from tests.servers.postgres import PostgresServer
from tests.servers.server import Server

ADMIN_KEY = "hg-admin-of-the-fleet"
PATIENCE = 30.0
PRICE = {"input": "1", "output": "2"}
NANO_IN, NANO_OUT = 1_000, 2_000
MOST_OUTPUT = 200
CAP = 25_000_000
"""Nano-USD that each capped tenant may spend: some hundred calls."""
SLOW = {"slow": "sim-slow-first-byte:1", "doomed": "sim-slow-first-byte:3"}
"""Routes whose provider waits for some seconds, and what it is asked for there."""
SCENES = 20
"""Scenes for which there are tenants and models."""


class Program(Server):
    """A `headgate` command that listens. It runs what is tested, wherever that is imported from."""

    def __init__(self, *words: str, ready: str) -> None:
        """Returns when `GET ready` is answered with 200."""
        super().__init__(f"headgate-{words[0]}")
        self._words = words
        self._ready = ready
        self._start()

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, body: Any = None, *, key: str = ADMIN_KEY) -> Any:
        """A JSON call, as the operator if nobody else is named. Raises OSError when it is refused or not answered."""
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        sent = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=sent, headers=headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            text = answer.read()
        return json.loads(text) if text.startswith((b"{", b"[")) else text.decode()

    def told(self) -> list[str]:
        """The lines of its log."""
        return self.log.read_text().splitlines()

    def _command(self) -> list[str]:
        source = Path(next(iter(headgate.__path__))).parent
        environ = [f"PYTHONPATH={source}", f"HEADGATE_ADMIN_KEY={ADMIN_KEY}", "HEADGATE_SECRET=of-the-fleet"]
        return ["env", *environ, sys.executable, "-m", "headgate", *self._words, f"--port={self.port}"]

    def _answers(self) -> bool:
        self.ask(self._ready)
        return True


class Tenant(msgspec.Struct, frozen=True):
    """A tenant, a key of it, and the route that its callers ask; `capped`: whether it may spend CAP only."""

    id: str
    key: str
    route: str
    capped: bool = False


class Fleet:
    """Replicas that share a Redis and a PostgreSQL."""

    def __init__(
        self, folder: Path, redis: str, postgres: PostgresServer, size: int, *, scenes: int = SCENES, **said: Any
    ) -> None:
        """`redis` is its URL, and `said` what else its section of the configuration says; there are tenants for so many `scenes`."""
        self._config = folder / "headgate.yaml"
        self._postgres = postgres
        self.replicas: list[Program] = []
        with ExitStack() as opened:
            self.provider = opened.enter_context(
                Program("simulate", "--latency-ms=20", "--tokens-per-s=2000", ready="/_sim/stats")
            )
            self.database = postgres.database()
            opened.callback(self._end)
            said = settings(self.provider.url, scenes, storage={"url": self.database}, redis={"url": redis, **said})
            self._config.write_text(json.dumps(said))
            migrated(self._config)
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda _: self.join(), range(size)))
            self._tenants = self._enrolled(scenes)
            self._opened = opened.pop_all()

    def join(self) -> Program:
        """Start another replica; returns when it is ready."""
        replica = Program("serve", f"--config={self._config}", "--data=data", ready="/readyz")
        self.replicas.append(replica)
        return replica

    def bury(self, replica: Program) -> None:
        """One that was killed gets no calls any more."""
        self.replicas.remove(replica)
        replica.close()

    def tenant(self, route: str, **said: Any) -> Tenant:
        """A new tenant, as the body of `POST /admin/tenants` describes it."""
        first = self.replicas[0]
        name = f"{route}-{len(first.ask('/admin/tenants')['data'])}"
        id = first.ask("/admin/tenants", {"name": name, **said})["id"]
        key = first.ask("/admin/keys", {"tenant": id})["key"]
        return Tenant(id, key, route, capped="budget" in said)

    def tenants(self) -> tuple[Tenant, Tenant, Tenant]:
        """Three of whom nobody has heard anything yet: one with a cap, and two without, who ask the same."""
        return next(self._tenants)

    def billed(self, *routes: str) -> int:
        """What the provider has counted for these routes, in nano-USD."""
        found = [self._counts(route) for route in routes]
        return sum(one.get("prompt_tokens", 0) * NANO_IN + one.get("completion_tokens", 0) * NANO_OUT for one in found)

    def calls(self, route: str) -> int:
        """How often the provider was called for a route."""
        return self._counts(route).get("calls", 0)

    def _counts(self, route: str) -> dict[str, int]:
        return dict(self.provider.ask("/_sim/stats")["by_model"].get(SLOW.get(route, route), {}))

    def spent(self, *tenants: Tenant) -> tuple[int, int]:
        """What the journal says that they have spent, and what it holds to be lost; nano-USD."""
        query = (
            "SELECT coalesce(sum(amount) FILTER (WHERE kind IN ('charge', 'settle')), 0),"
            " coalesce(sum(amount) FILTER (WHERE kind = 'lost'), 0) FROM headgate_journal WHERE tenant = ANY(%s)"
        )
        with psycopg.connect(self.database) as connection:
            row = connection.execute(query, ([tenant.id for tenant in tenants],)).fetchone()
        assert row is not None
        return int(row[0]), int(row[1])

    def lost_at(self, tenant: Tenant) -> float:
        """When the last of its calls was settled as lost; unix seconds."""
        query = "SELECT coalesce(max(at), 0) FROM headgate_journal WHERE tenant = %s AND kind = 'lost'"
        with psycopg.connect(self.database) as connection:
            row = connection.execute(query, (tenant.id,)).fetchone()
        assert row is not None
        return float(row[0]) / 1e6

    def budget(self, tenant: Tenant) -> list[dict[str, Any]]:
        """What it may spend, has spent and holds in all, as each replica says."""
        shown = [replica.ask(f"/admin/budgets/tenant:{tenant.id}") for replica in self.replicas]
        return [one["windows"]["total"] for one in shown]

    def open(self) -> float:
        """Reservations that are open in the replicas."""
        return sum(
            float(line.rpartition(" ")[2])
            for replica in self.replicas
            for line in replica.ask("/metrics").splitlines()
            if line.startswith("headgate_reservations_open")
        )

    def readiness(self) -> list[dict[str, Any]]:
        """What each replica says at `/readyz`."""
        with ThreadPoolExecutor() as pool:
            return list(pool.map(_readiness, self.replicas))

    def close(self) -> None:
        """End all."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _enrolled(self, scenes: int) -> Iterator[tuple[Tenant, Tenant, Tenant]]:
        """Tenants for all scenes, whose caps every replica knows."""
        cap = {"total": f"{CAP / NANO_PER_USD:.9f}"}
        made = [
            (self.tenant(f"c{scene}", budget=cap), self.tenant(f"f{scene}"), self.tenant(f"f{scene}"))
            for scene in range(scenes)
        ]
        last = made[-1][0]
        for replica in self.replicas:
            replica.wait_until(partial(self._knows, replica, last), "knows the caps")
        return iter(made)

    def _knows(self, replica: Program, tenant: Tenant) -> bool:
        total = replica.ask(f"/admin/budgets/tenant:{tenant.id}")["windows"]["total"]
        return total["cap_usd"] is not None

    def _end(self) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(Server.close, self.replicas))
        self._postgres.drop(self.database)


def settings(provider: str, scenes: int, **stores: dict[str, Any]) -> dict[str, Any]:
    """A route of its own for each kind of tenant in each scene, so that the provider's counts tell them apart. Besides, `meant` for
    questions that are found by their meaning too, `rates` for who is limited otherwise, and those that are SLOW."""
    names = [*(f"{kind}{scene}" for scene in range(scenes) for kind in "cf"), "meant", "rates", *SLOW]
    model = {"provider": "one", "price": PRICE, "max_output": MOST_OUTPUT}
    return {
        "providers": {"one": {"kind": "openai", "base_url": f"{provider}/v1", "allow_private": True}},
        "models": {name: {**model, "model": SLOW.get(name, name)} for name in names},
        "routes": {name: {"models": [name], "cache": {"mode": "on" if name == "meant" else "off"}} for name in names},
        "cache": {"semantic": {"checks": {"share": 0}}},
        "tenant_defaults": {"rpm": 1_000_000, "concurrency": 1_000, "budget": {"hour": "none"}},
        "telemetry": {"log": "off"},
        **stores,
    }


def migrated(config: Path) -> None:
    """Prepare the database as an operator does."""
    command = [sys.executable, "-m", "headgate", "migrate", f"--config={config}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _readiness(replica: Program) -> dict[str, Any]:
    try:
        return dict(replica.ask("/readyz"))
    except urllib.error.HTTPError as error:
        with error:
            return dict(json.load(error))
