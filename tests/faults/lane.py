"""A lane of kills: a simulated provider, a fork server of gateways to kill, and what the books say after each kill."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import msgspec

from headgate.budget.proof import prove
from headgate.budget.sqlite import SqliteLedger
from tests.faults.spender import PRICES, WORKERS, Order, accounts

SPENDER = Path(__file__).with_name("spender.py")
PATIENCE = 30.0
KILLS_PER_DIRECTORY = 5
"""Kills that one data directory lives through, one process after the other."""
SIMULATE = ("simulate", "--port=0", "--latency-ms=1", "--tokens-per-s=20000")
FAULTS = [
    {"fault": 500, "every": 7, "match": {"model": "m*"}},
    {"fault": "429:0", "every": 11, "match": {"model": "m*"}},
    {"fault": "cut:0", "every": 3, "match": {"model": f"m{WORKERS - 1}"}},
]
"""Those that a provider does not bill, so that what every call cost is known to the token; of one worker also broken answers."""
BROKEN_ROUTE = f"w{WORKERS - 1}"


class Lane:
    """Kills one gateway at a time."""

    def __init__(self, folder: Path, provider: subprocess.Popen[bytes], spender: subprocess.Popen[bytes]) -> None:
        assert provider.stdout is not None
        self.url = next(word for word in provider.stdout.readline().decode().split() if word.startswith("http"))
        self._folder = folder
        self._spender = spender
        self.control("/_sim/script", FAULTS)

    def control(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(f"{self.url}{path}", data=data), timeout=20) as answer:
            return json.load(answer)

    def kill(self, point: str, number: int, most: int, endpoint: str = "") -> Path:
        """Let a gateway be killed at a seeded passing of a point, and look at what is left: its data directory."""
        passing = random.Random(f"{point} {number}").randint(1, most)
        data = self._folder / f"{point}-{number // KILLS_PER_DIRECTORY}"
        order = Order(data=str(data), provider=self.url, kill=number, failpoint=f"{point}:{passing}", endpoint=endpoint)
        self.control("/_sim/reset", {})
        self._begin(order)
        self._ended(order)
        check(order, billed_by_route(self.control("/_sim/stats")))
        return data

    def drain(self, data: Path, endpoint: str, told: Callable[[], bool]) -> None:
        """Open a gateway that only tells what is owed, until all of it is told; then kill that one too."""
        order = Order(data=str(data), provider=self.url, kill=0, endpoint=endpoint)
        pid = self._begin(order)
        due = time.monotonic() + PATIENCE
        while not told() and time.monotonic() < due:
            time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)
        self._ended(order)
        assert told()

    def _begin(self, order: Order) -> int:
        assert self._spender.stdin is not None
        self._spender.stdin.write(msgspec.json.encode(order) + b"\n")
        self._spender.stdin.flush()
        return self._line()

    def _ended(self, order: Order) -> None:
        assert self._line() == -signal.SIGKILL, f"{order} was not killed"

    def _line(self) -> int:
        assert self._spender.stdout is not None
        return int(self._spender.stdout.readline())


@contextmanager
def open_lane(folder: Path) -> Iterator[Lane]:
    folder.mkdir()
    simulate = [sys.executable, "-m", "headgate", *SIMULATE]
    with (folder / "log").open("wb") as log:
        with subprocess.Popen(simulate, stdout=subprocess.PIPE, stderr=log) as provider:
            pipe = subprocess.PIPE
            with subprocess.Popen([sys.executable, str(SPENDER)], stdin=pipe, stdout=pipe, stderr=log) as spender:
                try:
                    yield Lane(folder, provider, spender)
                finally:
                    provider.kill()
                    spender.kill()


def nano(letter: str, prompt: int, completion: int) -> int:
    """What tokens cost at a model's price."""
    input, output = (int(float(price) * 1_000) for price in PRICES[letter])
    return prompt * input + completion * output


def billed_by_route(stats: Any) -> dict[str, int]:
    """What the provider bills, by the worker who asked; embeddings by themselves."""
    billed: defaultdict[str, int] = defaultdict(int)
    for model, counts in stats["by_model"].items():
        route = model if model[0] == "e" else f"w{model[1:]}"
        billed[route] += nano(model[0], counts["prompt_tokens"], counts["completion_tokens"])
    assert len(billed) <= 2 * WORKERS
    return billed


def check(order: Order, billed: dict[str, int]) -> None:
    """All that must hold of the books after a kill, by calls, by accounts, and once more after another start."""
    path = Path(order.data) / "headgate.db"
    asyncio.run(_opened(path, order))
    with closing(sqlite3.connect(path)) as connection:
        assert prove(connection).holds
        written = connection.execute("SELECT count(*), max(seq) FROM journal").fetchone()
        _check_calls(connection, order, billed)
    assert asyncio.run(_opened(path, order)) == 0
    with closing(sqlite3.connect(path)) as connection:
        assert prove(connection).holds
        assert connection.execute("SELECT count(*), max(seq) FROM journal").fetchone() == written


def _check_calls(connection: sqlite3.Connection, order: Order, billed: dict[str, int]) -> None:
    """Of each worker's calls: what was settled is what the provider bills, but for estimates and for holds that were lost."""
    settled: defaultdict[str, int] = defaultdict(int)
    unsure: defaultdict[str, int] = defaultdict(int)
    for kind, route, estimated, amount in connection.execute(
        "SELECT kind, route, estimated, sum(amount) FROM journal WHERE tenant IN (?, ?)"
        " AND kind IN ('charge', 'settle', 'lost') GROUP BY kind, route, estimated",
        (f"capped{order.kill}", f"free{order.kill}"),
    ):
        assert kind == "lost" or not estimated or route == BROKEN_ROUTE, f"{order}: {route} was estimated"
        (unsure if estimated else settled)[route] += amount
    for route in billed.keys() | settled.keys() | unsure.keys():
        least, truth = settled[route], billed.get(route, 0)
        assert least <= truth <= least + unsure[route], f"{order}: {route} {least} {truth} {unsure[route]}"


async def _opened(path: Path, order: Order) -> int:
    """Open the ledger as a server would: nothing is held any more, and nobody has spent more than was allowed. How many calls
    had no end."""
    ledger = SqliteLedger(path)
    try:
        assert ledger.open_reservations() == 0
        for account, cap in accounts(order.kill).items():
            balance = await ledger.balance(account, "total")
            assert balance.held == 0, account
            assert balance.spent <= cap, f"{order}: {account} spent {balance.spent} of {cap}"
        return ledger.recovered
    finally:
        await ledger.close()
