"""The parts that a shelf is made of, each against the plain Python that it does without: register, ranking, calendar, roster, packing."""

from __future__ import annotations

from array import array
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.cache.cache import Entry
from headgate.cache.ends import WIDTH, Ends
from headgate.cache.eviction import Ranking, priority
from headgate.cache.kept import Make
from headgate.cache.packing import digest, ends, id_of, opened, packed, worth
from headgate.cache.register import Register
from headgate.cache.roster import Roster
from headgate.cache.slab import SHEET, Slab
from headgate.model.tenancy import Key, Namespace


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(0, 5)), max_size=300), st.booleans())
def test_a_register_finds_what_a_dictionary_would(steps: list[tuple[bool, int, int]], reserved: bool) -> None:
    """Hashes of few kinds, so that they meet; the same one for several slots, too."""
    hashes: dict[int, int] = {}
    register = Register(hashes.__getitem__)
    if reserved:
        register.reserve(10)
    for adds, slot, kind in steps:
        if adds and slot not in hashes:
            hashes[slot] = -(kind << 60) - kind % 2
            register.add(hashes[slot], slot)
        elif not adds and slot in hashes:
            register.remove(hashes.pop(slot), slot)
    for slot, hash in hashes.items():
        assert register.find(hash, lambda one, slot=slot: one == slot) == slot
        assert sorted(register.every(hash, lambda _: True)) == sorted(one for one in hashes if hashes[one] == hash)
        assert register.find(hash, lambda _: False) is None
    assert register.find(123, lambda _: True) is None


def test_a_register_of_many_is_small() -> None:
    register = Register(lambda slot: hash(str(slot)))
    for slot in range(50_000):
        register.add(hash(str(slot)), slot)
    for slot in range(0, 50_000, 2):
        register.remove(hash(str(slot)), slot)
    for slot in range(1_000):
        found = register.find(hash(str(slot)), lambda one, slot=slot: one == slot)
        assert found == (slot if slot % 2 else None)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "remove", "raise"]), st.integers(0, 15), st.integers(0, 6)), max_size=120
    )
)
def test_a_ranking_is_always_sorted(steps: list[tuple[str, int, int]]) -> None:
    priorities, numbers, places = array("d", [0.0] * 16), array("Q", range(16)), array("I", [0] * 16)
    ranking = Ranking(priorities, numbers, places)
    held: set[int] = set()
    for what, slot, value in steps:
        if what == "add" and slot not in held:
            priorities[slot] = value
            ranking.add(slot)
            held.add(slot)
        elif what == "remove" and slot in held:
            ranking.remove(slot)
            held.remove(slot)
        elif what == "raise" and slot in held:
            priorities[slot] += value
            ranking.raised(slot)
        assert len(ranking) == len(held)
        assert set(ranking.slots()) == held
        if held:
            assert ranking.first() == min(held, key=lambda one: (priorities[one], numbers[one]))


def test_priority_is_of_greedy_dual_size_frequency() -> None:
    assert priority(2.0, 3, 999, 100) == 2.0 + 3 * 1_000 / 100


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 9), st.integers(0, 500)),
            st.tuples(st.just("remove"), st.integers(0, 9), st.just(0)),
            st.tuples(st.just("wait"), st.integers(0, 200), st.just(0)),
        ),
        max_size=80,
    )
)
def test_ends_come_within_a_minute_and_never_early(steps: list[tuple[str, int, int]]) -> None:
    calendar, held, now = Ends(), dict[int, float](), 0.0
    for what, number, life in steps:
        if what == "add" and number not in held:
            held[number] = now + life
            calendar.add(number, held[number])
        elif what == "remove" and number in held:
            calendar.remove(number, held.pop(number))
        elif what == "wait":
            now += number
        while (slot := calendar.due(now)) is not None:
            assert held[slot] <= now
            calendar.remove(slot, held.pop(slot))
        assert all(when + WIDTH > now for when in held.values())


def test_a_roster_calls_a_thing_by_one_number_while_anybody_holds_it() -> None:
    roster: Roster[str] = Roster()
    one, two = roster.take("one"), roster.take("two")
    assert roster.take("one") == one
    assert (roster[one], roster[two], len(roster)) == ("one", "two", 2)
    assert not roster.give(one)
    assert roster.number("one") == one
    assert roster.give(one)
    assert roster.number("one") is None
    assert roster.take("three") == one
    assert roster[one] == "three"


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(1, 90_000)), max_size=150), st.randoms())
def test_a_slab_holds_what_a_dictionary_would(steps: list[tuple[bool, int, int]], random: Random) -> None:
    slab, held = Slab(array("Q", [0] * 31)), dict[int, bytes]()
    for adds, slot, size in steps:
        if adds and slot not in held:
            held[slot] = random.randbytes(8) * (size // 8 + 1)
            slab.put(slot, held[slot])
        elif not adds and slot in held:
            slab.drop(slot)
            del held[slot]
        assert [one for one in range(31) if slab.holds(one)] == sorted(held)
    for slot, pack in held.items():
        assert slab.get(slot) == pack
        assert slab.size(slot) == len(pack)
        sheet, start = slab.find(slot)
        assert sheet.startswith(pack, start)


def test_a_slab_takes_little_more_than_what_it_holds() -> None:
    """However much comes and goes."""
    random = Random(1)
    slab, held, used = Slab(array("Q", [0] * 3_000)), dict[int, int](), 0
    for _ in range(20_000):
        slot = random.randrange(3_000)
        if slot in held:
            slab.drop(slot)
            used -= held.pop(slot)
        else:
            held[slot] = random.randrange(200, 3_000)
            slab.put(slot, bytes(held[slot]))
            used += held[slot]
    assert slab.memory < 1.3 * used
    for slot in held:
        slab.drop(slot)
    assert slab.memory <= SHEET


TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
TIMES = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None)
@given(
    st.builds(
        Entry,
        id=st.one_of(
            st.text(st.sampled_from("0123456789abcdef"), max_size=40), st.text(st.sampled_from("Aa0é"), max_size=30)
        ),
        key=st.builds(Key, st.builds(Namespace, TEXT, TEXT), st.binary(min_size=32, max_size=32)),
        answer=st.binary(max_size=300),
        stored=TIMES,
        expires=TIMES,
        worth=st.integers(-(2**63), 2**63 - 1),
        deployment=TEXT,
        model=TEXT,
        user=st.one_of(st.none(), TEXT),
        tags=st.lists(TEXT, max_size=4).map(tuple),
        partition=st.one_of(st.none(), st.binary(max_size=40)),
        text=st.one_of(st.none(), TEXT),
        semantic_until=TIMES,
    )
)
def test_a_pack_is_the_whole_entry_but_its_vector(entry: Entry) -> None:
    pack = packed(entry)
    assert opened(pack, entry.key.namespace, entry.partition, Make(entry.deployment, entry.model)) == entry
    assert digest(pack) == entry.key.digest
    assert id_of(pack) == entry.id.encode()
    assert worth(pack) == entry.worth
    assert ends(pack) == (entry.expires, min(entry.expires, entry.semantic_until))


@pytest.mark.parametrize("length", [0, 1, 100])
def test_a_pack_is_little_more_than_its_text_and_answer(length: int) -> None:
    text, answer = "x" * length, b"y" * length
    entry = Entry(
        id="0123456789abcdef" * 2,
        key=Key(Namespace("acme"), bytes(32)),
        answer=answer,
        stored=1e9,
        expires=2e9,
        text=text,
    )
    assert len(packed(entry)) - len(text) - len(answer) <= 100
