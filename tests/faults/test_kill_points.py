"""Kill -9 at every named point of money's path: the journal is right about the provider's bill to the last token.

What must hold after each kill is in `lane.check`: of each worker, what was settled is what the provider billed, except for calls that
were under way, which are marked as lost and counted at their holds, which is never less. No account has spent more than its cap,
nothing is held, the file proves itself right, and starting once more changes nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from headgate.model.money import from_usd
from tests.chaos import times
from tests.faults.endpoint import Endpoint
from tests.faults.lane import KILLS_PER_DIRECTORY, Lane, open_lane

KILLS = times(20, 1_000)
LANES = 2
MOST_PASSINGS = {
    "after_reserve": 120,
    "after_dispatched": 120,
    "mid_stream": 1_500,
    "after_answer": 100,
    "before_settle": 100,
    "during_commit": 700,
    "after_commit": 120,
    "during_export": 60,
}
"""How far into the traffic a kill may come, in passings of the point."""
SPENDING = [point for point in MOST_PASSINGS if point != "during_export"]


@pytest.fixture(scope="module")
def lanes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Lane]]:
    folder = tmp_path_factory.mktemp("kills")
    with ExitStack() as stack:
        yield [stack.enter_context(open_lane(folder / str(number))) for number in range(LANES)]


def kill_all(lanes: list[Lane], kill: Callable[[Lane, int], None]) -> None:
    """All kills, side by side in the lanes."""

    def turns(place: int) -> int:
        numbers = range(place, KILLS, LANES)
        for number in numbers:
            kill(lanes[place], number)
        return len(numbers)

    with ThreadPoolExecutor(LANES) as threads:
        assert sum(threads.map(turns, range(LANES))) == KILLS


@pytest.mark.parametrize("point", SPENDING)
def test_no_kill_loses_a_cent_or_spends_one_too_many(lanes: list[Lane], point: str) -> None:
    kill_all(lanes, lambda lane, number: lane.kill(point, number, MOST_PASSINGS[point]))


def test_no_kill_bills_a_tenant_twice_or_for_less_than_it_owes(lanes: list[Lane]) -> None:
    """Between an endpoint's taking its events and the outbox's hearing of it. An event that comes again has the same id and says the
    same; counted once, all of them are what the journal says; a file holds every line once."""
    endpoints: dict[tuple[Lane, int], Endpoint] = {}

    def kill(lane: Lane, number: int) -> None:
        place = (lane, number // KILLS_PER_DIRECTORY)
        if place not in endpoints:
            endpoints[place] = stack.enter_context(Endpoint())
        endpoint = endpoints[place]
        data = lane.kill("during_export", number, MOST_PASSINGS["during_export"], endpoint.url)
        lane.drain(data, endpoint.url, lambda: all_told(data, endpoint))

    with ExitStack() as stack:
        kill_all(lanes, kill)
    assert not any(endpoint.contradictions for endpoint in endpoints.values())
    assert all(endpoint.repeats for endpoint in endpoints.values())


def all_told(data: Path, endpoint: Endpoint) -> bool:
    """Whether everybody has been told all that is owed. Nobody is ever told more."""
    with closing(sqlite3.connect(data / "headgate.db")) as connection:
        ((owed,),) = connection.execute(
            "SELECT sum(billed) FROM journal WHERE kind IN ('charge', 'settle', 'lost', 'note')"
        )
    file = data / "lines.jsonl"
    written = file.read_bytes() if file.exists() else b""
    lines = [json.loads(line) for line in written.splitlines()] if written.endswith(b"\n") else []
    assert len({line["id"] for line in lines}) == len(lines)
    sums = [endpoint.sum("meter"), endpoint.sum("hook"), sum(from_usd(line["billed_usd"]) for line in lines)]
    assert max(sums) <= owed
    return min(sums) == owed
