"""What processes tell each other of deployments."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from headgate.routing.breaker import Breakers
from headgate.routing.hearsay import Word, shared


class Replicas:
    """Processes that hear each other at once, on one clock; chance is in the middle."""

    def __init__(self, number: int = 2, known: tuple[str, ...] = ("a", "b")) -> None:
        self.now = 1_000.0
        self.told: list[bytes] = []
        self.ends = self.now
        self.all = [Breakers(clock=lambda: self.now, random=lambda: 0.5) for _ in range(number)]
        self.hears = [shared(one, known, self._teller(index)) for index, one in enumerate(self.all)]

    def _teller(self, index: int):
        def tell(body: bytes) -> None:
            self.told.append(body)
            for other, heard in enumerate(self.hears):
                if other != index:
                    heard(body)

        return tell


def fail(breakers: Breakers, name: str = "a", times: int = 5) -> None:
    for _ in range(times):
        breakers.observe(name, failed=True)


def test_a_provider_that_is_down_for_one_is_left_alone_by_all() -> None:
    replicas = Replicas(4)
    fail(replicas.all[0])
    assert [one.state("a") for one in replicas.all] == ["open"] * 4
    assert [one.state("b") for one in replicas.all] == ["closed"] * 4


def test_a_retry_after_that_one_is_given_counts_for_all() -> None:
    one, other = Replicas().all
    one.observe("a", failed=True, retry_after=30)
    assert other.cooling("a") == 30
    assert not other.allow("a")


def test_a_storm_of_the_same_retry_after_is_told_once() -> None:
    replicas = Replicas()
    for _ in range(100):
        replicas.all[0].observe("a", failed=False, retry_after=30)
        replicas.now += 0.001
    assert len(replicas.told) == 1


def test_what_was_heard_is_not_told_on() -> None:
    replicas = Replicas(3)
    fail(replicas.all[0])
    replicas.all[0].observe("b", failed=False, retry_after=10)
    replicas.all[1].observe("b", failed=False, retry_after=10)
    assert len(replicas.told) == 2


def test_a_provider_that_wants_money_is_shut_for_all_even_after_a_success() -> None:
    replicas = Replicas()
    replicas.all[1].observe("a", failed=False)
    replicas.all[0].shut("a", 1_800)
    assert replicas.all[1].state("a") == "open"
    replicas.now += 1_801
    assert replicas.all[1].state("a") == "half_open"


def test_it_opens_for_no_longer_than_it_was_told() -> None:
    replicas = Replicas()
    fail(replicas.all[0])
    replicas.now += 5.5
    assert replicas.all[0].state("a") == "half_open"
    assert replicas.all[1].state("a") == "half_open"


def test_each_closes_by_a_probe_of_its_own() -> None:
    replicas = Replicas()
    one, other = replicas.all
    fail(one)
    replicas.now += 5.5
    assert one.allow("a")
    one.observe("a", failed=False)
    assert (one.state("a"), other.state("a")) == ("closed", "half_open")
    assert other.allow("a")
    assert not other.allow("a"), "one probe at a time"
    other.observe("a", failed=False)
    assert other.state("a") == "closed"


def test_a_success_elsewhere_lets_a_process_look_at_once() -> None:
    replicas = Replicas()
    one, other = replicas.all
    other.heard("a", "open", 100)
    fail(one)
    replicas.now += 6
    assert (one.state("a"), other.state("a")) == ("half_open", "open")
    one.observe("a", failed=False)
    assert other.state("a") == "half_open"


def test_a_process_whose_own_calls_succeed_does_not_believe_one_that_has_lost_its_way() -> None:
    replicas = Replicas()
    one, other = replicas.all
    other.observe("a", failed=False)
    fail(one)
    assert (one.state("a"), other.state("a")) == ("open", "closed")


def test_a_probe_that_is_out_decides_and_not_what_is_heard_meanwhile() -> None:
    replicas = Replicas()
    one, other = replicas.all
    fail(other)
    replicas.now += 5.5
    assert other.allow("a")
    one.observe("a", failed=True)
    assert (one.state("a"), other.state("a")) == ("open", "half_open")
    other.observe("a", failed=False)
    assert other.state("a") == "closed"


def test_openings_that_were_heard_do_not_lengthen_those_of_ones_own() -> None:
    replicas = Replicas()
    one = replicas.all[0]
    for _ in range(10):
        one.heard("a", "open", 1)
        replicas.now += 3
    fail(one)
    replicas.now += 5.5
    assert one.state("a") == "half_open"


def test_a_deployment_that_this_process_does_not_have_is_not_learnt_of() -> None:
    replicas = Replicas(known=("a",))
    fail(replicas.all[0], "b")
    assert replicas.all[1].state("b") == "closed"


@given(st.binary(max_size=40))
def test_what_cannot_be_read_changes_nothing(body: bytes) -> None:
    replicas = Replicas()
    replicas.hears[0](body)
    assert replicas.all[0].state("a") == "closed"


@given(st.sampled_from([float("inf"), float("nan"), -1.0, 1e300]))
def test_no_word_shuts_a_deployment_for_good(seconds: float) -> None:
    replicas = Replicas()
    for met in ("open", "shut", "cooling"):
        replicas.hears[0](msgspec.msgpack.encode(Word("a", met, seconds)))
    replicas.now += 1_801
    assert replicas.all[0].allow("a")


@given(st.lists(st.sampled_from(["fail", "succeed", "throttled", "shut", "wait", "probe"]), max_size=80), st.data())
def test_who_only_hears_never_refuses_for_longer_than_it_was_told(moves: list[str], data: st.DataObject) -> None:
    replicas = Replicas()
    one, other = replicas.all
    for move in moves:
        before = len(replicas.told)
        if move == "fail":
            fail(one, times=data.draw(st.integers(1, 6)))
        elif move == "succeed":
            one.observe("a", failed=False)
        elif move == "throttled":
            one.observe("a", failed=True, retry_after=data.draw(st.floats(0.1, 60)))
        elif move == "shut":
            one.shut("a", data.draw(st.floats(0.1, 60)))
        elif move == "probe" and one.state("a") == "half_open" and one.allow("a"):
            one.observe("a", failed=data.draw(st.booleans()))
        elif move == "wait":
            replicas.now += data.draw(st.floats(0, 30))
        until = [replicas.now + msgspec.msgpack.decode(body, type=Word).seconds for body in replicas.told[before:]]
        replicas.ends = max([replicas.ends, *until])
        if other.rank("a"):
            assert replicas.now < replicas.ends
