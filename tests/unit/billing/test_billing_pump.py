"""The pump: order, repetition, patience, and what it sets aside. Time is a number here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from headgate.billing.billing import Delivery, Event, Place, event_id
from headgate.billing.memory import MemoryOutbox
from headgate.billing.pump import ALARM, LEASE, LOOK, POLL, Pump
from headgate.model.errors import Overloaded
from tests.unit.billing.scripted_sink import Journal, Killed, ScriptedSink, nobody
from tests.virtual_time import clock, in_virtual_time

HOUR = 3_600.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Setting:
    def __init__(self, sink: ScriptedSink, **more: object) -> None:
        self.sink = sink
        self.journal = Journal()
        self.outbox = MemoryOutbox()
        self.clock = Clock()
        self.more = more
        self.restart()

    def restart(self) -> None:
        self.pump = Pump(
            "s", self.sink, self.outbox, self.journal.feed, nobody, now=self.clock, draw=lambda: 1.0, **self.more
        )

    async def until_idle(self) -> None:
        while await self.pump.turn() == 0.0:
            pass

    async def parked(self) -> list[str]:
        return [event.reason for event in await self.outbox.parked("s", 100)]


async def test_every_row_is_delivered_once_and_free_ones_are_not() -> None:
    one = Setting(ScriptedSink())
    for billed in (5, 0, 7):
        one.journal.add("a", billed)
    assert await one.pump.turn() == 0.0
    assert await one.pump.turn() == POLL
    assert one.sink.taken == one.journal.billed("s")
    one.journal.add("a", 1, kind="hold")
    one.journal.add("a", 2, kind="note")
    await one.until_idle()
    assert sorted(one.sink.taken.values()) == [2, 5, 7]
    assert len(one.sink.sent) == 3


async def test_a_repetition_has_the_same_id_and_the_same_body() -> None:
    one = Setting(ScriptedSink(["lost", "late", "busy", "down"]))
    line = one.journal.add("a", 5)
    for _ in range(6):
        await one.until_idle()
        one.clock.now += HOUR / 2
    assert one.sink.sent == [("a", event_id("s", line), b"5")] * 5
    assert one.sink.taken == one.journal.billed("s")


async def test_ids_differ_by_sink_and_row_and_by_nothing_else() -> None:
    journal = Journal()
    first, second = journal.add("a", 1), journal.add("a", 1)
    assert event_id("s", first) == event_id("s", first)
    others = [replace(first, kind="note"), replace(first, attempt=1), second]
    ids = [event_id("s", first), event_id("t", first), *(event_id("s", other) for other in others)]
    assert len(set(ids)) == len(ids)
    assert event_id("s", replace(first, seq=99, at=5, billed=7)) == event_id("s", first)
    assert len(event_id("s", first)) <= 100


async def test_a_tenant_waits_for_its_own_event_and_no_other_tenant_with_it() -> None:
    one = Setting(ScriptedSink(["down"]))
    for tenant, billed in (("a", 1), ("b", 2), ("a", 3), ("b", 4)):
        one.journal.add(tenant, billed)
    await one.until_idle()
    assert [body for tenant, _, body in one.sink.sent if tenant == "a"] == [b"1"]
    assert [body for tenant, _, body in one.sink.sent if tenant == "b"] == [b"2", b"4"]
    one.clock.now += HOUR
    await one.until_idle()
    assert [body for tenant, _, body in one.sink.sent if tenant == "a"] == [b"1", b"1", b"3"]


async def test_waits_double_and_are_never_shorter_than_the_sink_asked_for() -> None:
    one = Setting(ScriptedSink(["down", "down", "down", "busy"]))
    one.journal.add("a", 1)
    times = []
    for _ in range(200):
        before = len(one.sink.sent)
        await one.until_idle()
        if len(one.sink.sent) > before:
            times.append(one.clock.now - 1_000_000.0)
        one.clock.now += 1.0
    assert times == [0.0, 2.0, 6.0, 14.0, 44.0]


async def test_a_success_makes_the_next_wait_short_again() -> None:
    one = Setting(ScriptedSink(["down", "down", "down", "ok", "down"]))
    one.journal.add("a", 1)
    for _ in range(3):
        await one.until_idle()
        one.clock.now += 60.0
    await one.until_idle()
    one.journal.add("a", 2)
    await one.until_idle()
    one.clock.now += 2.0
    await one.until_idle()
    assert one.sink.taken == one.journal.billed("s")


async def test_what_is_refused_is_parked_and_does_not_hold_up_the_rest() -> None:
    one = Setting(ScriptedSink(["poison"]))
    first, _ = one.journal.add("a", 1), one.journal.add("a", 2)
    await one.until_idle()
    assert await one.parked() == ["400"]
    assert list(one.sink.taken.values()) == [2]
    await one.outbox.retry("s")
    await one.until_idle()
    assert one.sink.taken == one.journal.billed("s")
    assert one.sink.sent[0][1] == one.sink.sent[2][1] == event_id("s", first)


async def test_a_tenant_without_a_customer_is_parked_until_it_has_one() -> None:
    one = Setting(ScriptedSink())
    one.sink.unknown = {"a"}
    one.journal.add("a", 1)
    one.journal.add("b", 2)
    await one.until_idle()
    assert (await one.parked(), list(one.sink.taken.values())) == (["a has no customer"], [2])
    await one.outbox.retry("s")
    await one.until_idle()
    assert await one.parked() == ["a has no customer"]
    one.sink.unknown = set()
    await one.outbox.retry("s")
    await one.until_idle()
    assert (await one.parked(), one.sink.taken) == ([], one.journal.billed("s"))


async def test_nothing_is_repeated_by_itself_once_the_sink_may_have_forgotten_it() -> None:
    one = Setting(ScriptedSink(["lost"] * 1_000, remembers=24 * HOUR))
    line = one.journal.add("a", 1)
    for _ in range(30):
        await one.until_idle()
        one.clock.now += HOUR
    tried = len(one.sink.sent)
    assert tried == 24
    (reason,) = await one.parked()
    assert event_id("s", line) in reason
    one.sink.answers = []
    await one.until_idle()
    assert len(one.sink.sent) == tried
    await one.outbox.retry("s")
    await one.until_idle()
    assert len(one.sink.sent) == tried + 1
    assert len({(id, body) for _, id, body in one.sink.sent}) == 1


async def test_what_was_never_tried_may_be_as_old_as_it_likes() -> None:
    one = Setting(ScriptedSink(remembers=24 * HOUR))
    one.journal.add("a", 1)
    one.clock.now += 100 * HOUR
    await one.until_idle()
    assert one.sink.taken == one.journal.billed("s")


async def test_the_alarm_is_told_once_until_the_sink_is_well_again(caplog: pytest.LogCaptureFixture) -> None:
    one = Setting(ScriptedSink(["down"] * 1_000))
    one.journal.add("a", 1)
    with caplog.at_level(logging.ERROR):
        for hour in range(24):
            await one.until_idle()
            assert one.pump.oldest() == hour * HOUR
            assert len(caplog.records) == (hour * HOUR >= ALARM)
            one.clock.now += HOUR
        one.sink.answers = []
        await one.until_idle()
        one.clock.now += HOUR
        await one.until_idle()
    assert one.pump.oldest() == 0.0
    assert len(caplog.records) == 1
    assert "connection refused" in caplog.text


async def test_an_event_that_breaks_a_batching_sink_ends_up_alone() -> None:
    class Breaks(ScriptedSink):
        async def deliver(self, events, mark):
            if any(event.tenant == "bad" for event in events):
                self.answers.insert(0, "down")
            return await super().deliver(events, mark)

    one = Setting(Breaks(batch=64))
    for number in range(100):
        one.journal.add("bad" if number == 50 else f"t{number}", number + 1)
    for _ in range(40):
        await one.until_idle()
        one.clock.now += 60.0
    assert one.sink.taken == one.journal.billed("s", {"bad"})


async def test_one_tenants_long_backlog_does_not_keep_the_others_waiting() -> None:
    one = Setting(ScriptedSink())
    for _ in range(3_000):
        one.journal.add("big", 1)
    await one.pump.turn()
    await one.pump.turn()
    await one.pump.turn()
    one.journal.add("small", 2)
    await one.pump.turn()
    assert 2 in one.sink.taken.values()
    assert len(one.sink.taken) < 3_001
    await one.until_idle()
    assert one.sink.taken == one.journal.billed("s")


async def test_rows_before_a_day_are_left_out_when_the_operator_says_so() -> None:
    one = Setting(ScriptedSink(), since=100.0)
    one.journal.add("a", 1, at=99.9)
    one.journal.add("a", 2, at=100.0)
    await one.until_idle()
    assert list(one.sink.taken.values()) == [2]


async def test_a_process_that_dies_after_the_sink_has_taken_an_event_repeats_it() -> None:
    one = Setting(ScriptedSink())

    def kill() -> None:
        raise Killed

    one.journal.add("a", 1)
    one.sink.kill = kill
    with pytest.raises(BaseExceptionGroup) as died:
        await one.pump.turn()
    assert died.group_contains(Killed)
    one.sink.kill = lambda: None
    one.restart()
    await one.until_idle()
    assert len(one.sink.sent) == 2
    assert one.sink.taken == one.journal.billed("s")


async def test_an_exporter_that_breaks_is_told_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    one = Setting(ScriptedSink())

    def broken() -> None:
        raise RuntimeError("bug")

    one.journal.add("a", 1)
    one.sink.kill = broken
    await one.until_idle()
    assert "bug" in caplog.text
    one.sink.kill = lambda: None
    one.clock.now += HOUR
    await one.until_idle()
    assert one.sink.taken == one.journal.billed("s")


async def test_an_event_whose_row_is_gone_stays_parked_and_says_so() -> None:
    one = Setting(ScriptedSink(["poison"]))
    one.journal.add("a", 1)
    await one.until_idle()
    one.journal.lines.clear()
    await one.outbox.retry("s")
    await one.pump._lane(await one.outbox.pending("s", 10), 1)
    assert await one.parked() == ["there is nothing to be sent for its row any more"]


async def test_a_replaced_journal_stops_it_once_and_visibly_and_the_right_one_lets_it_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = Setting(ScriptedSink(["down"]))
    for billed in (1, 2, 3):
        one.journal.add("a", billed)
    await one.until_idle()
    old = list(one.journal.lines)
    one.clock.now += HOUR
    for _ in range(5):
        one.journal.lines.append(replace(one.journal.add("a", 7), id=f"new-{len(one.journal.lines)}"))
    one.journal.lines = one.journal.lines[3:]
    one.restart()
    for _ in range(3):
        assert await one.pump.turn() == LOOK
    assert [record.getMessage() for record in caplog.records] == ["billing sink s has stopped: another journal"]
    assert one.pump.standing.stopped == "another journal"
    assert len(one.sink.sent) == 1
    one.journal.lines = old
    await one.until_idle()
    assert (one.pump.standing.stopped, one.sink.taken) == ("", one.journal.billed("s"))


async def test_it_goes_on_from_where_it_was_put_back_to() -> None:
    one = Setting(ScriptedSink())
    for billed in (1, 2, 3):
        one.journal.add("a", billed)
    await one.until_idle()
    told = dict(one.sink.taken)
    one.journal.lines.pop()
    one.journal.lines.append(replace(one.journal.add("a", 7), id="new"))
    one.journal.lines.pop(2)
    assert await one.pump.turn() == LOOK
    assert await one.outbox.rewind("s", await one.outbox.place("s"), [], one.journal.place(2))
    await one.until_idle()
    assert one.sink.taken == {**told, **one.journal.billed("s")}
    assert len(one.sink.sent) == 4


async def test_another_row_at_the_place_of_an_events_own_is_not_sent_for_it() -> None:
    one = Setting(ScriptedSink(["poison"]))
    one.journal.add("a", 1)
    await one.until_idle()
    one.journal.lines[0] = replace(one.journal.lines[0], id="another")
    await one.outbox.rewind("s", await one.outbox.place("s"), [], Place(1))
    one.restart()
    await one.outbox.retry("s")
    await one.until_idle()
    assert await one.parked() == ["there is nothing to be sent for its row any more"]
    assert one.sink.taken == {}


async def test_when_it_has_read_is_kept_with_its_place() -> None:
    one = Setting(ScriptedSink())
    one.journal.add("a", 1)
    await one.until_idle()
    one.clock.now += HOUR
    await one.until_idle()
    assert await one.outbox.place("s") == replace(one.journal.place(1), at=1_000_000.0)


class Replica:
    """One process' way to an outbox that several share, as PostgresOutbox is one; nothing passes while it is cut off."""

    def __init__(self, outbox: MemoryOutbox, lease: dict[str, tuple[str, float]], name: str) -> None:
        self._outbox = outbox
        self._lease = lease
        self._name = name
        self.cut_off = False

    async def claim(self, sink: str, seconds: float) -> bool:
        self._reach()
        holder, until = self._lease.get(sink, ("", 0.0))
        ours = holder == self._name or until <= clock()
        if ours:
            self._lease[sink] = self._name, clock() + seconds
        return ours

    async def release(self, sink: str) -> None:
        self._reach()
        if self._lease[sink][0] == self._name:
            self._lease[sink] = "", 0.0

    def __getattr__(self, name: str) -> Any:
        async def method(*given: Any) -> Any:
            self._reach()
            if name in ("add", "rendered", "trying", "resolve", "park") and self._lease["s"][0] != self._name:
                raise Overloaded("Another process sends.")
            return await getattr(self._outbox, name)(*given)

        return method

    def _reach(self) -> None:
        if self.cut_off:
            raise Overloaded("It does not answer.")


class SlowSink(ScriptedSink):
    """Takes so many seconds for a delivery, and notes how many were under way at the same time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.now = self.most = 0

    async def deliver(self, events: Sequence[Event], mark: int) -> Delivery:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.seconds)
            return await super().deliver(events, mark)
        finally:
            self.now -= 1


class Replicas:
    """Two processes with a pump each, of one sink and one journal; both run."""

    def __init__(self, sink: ScriptedSink) -> None:
        self.journal = Journal()
        self.outbox = MemoryOutbox()
        lease: dict[str, tuple[str, float]] = {}
        self.ways = [Replica(self.outbox, lease, name) for name in "ab"]
        self.pumps = [Pump("s", sink, way, self.journal.feed, nobody, now=clock) for way in self.ways]

    async def __aenter__(self) -> Replicas:
        self.tasks = [asyncio.create_task(pump.run()) for pump in self.pumps]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@in_virtual_time
async def test_of_two_processes_one_sends_and_tells_where_the_sink_stands() -> None:
    sink = SlowSink(2.0)
    async with Replicas(sink) as both:
        for _ in range(5):
            both.journal.add("a", 5)
        await asyncio.sleep(100)
        assert (sink.taken, len(sink.sent), sink.most) == (both.journal.billed("s"), 5, 1)
        assert [pump.standing.delivered for pump in both.pumps] == [5, 0]


@in_virtual_time
async def test_when_the_one_that_sends_is_stopped_the_other_goes_on_soon() -> None:
    sink = ScriptedSink()
    async with Replicas(sink) as both:
        both.journal.add("a", 5)
        await asyncio.sleep(1)
        both.tasks[0].cancel()
        both.journal.add("a", 6)
        await asyncio.sleep(LOOK + POLL)
        assert sink.taken == both.journal.billed("s")
        assert len(sink.sent) == 2


@in_virtual_time
async def test_one_that_is_cut_off_in_mid_delivery_stops_before_the_other_begins_and_moves_nothing_later() -> None:
    sink = SlowSink(50.0)
    async with Replicas(sink) as both:
        for billed in (5, 6):
            both.journal.add("a", billed)
        await asyncio.sleep(1)
        both.ways[0].cut_off = True
        await asyncio.sleep(LEASE + LOOK)
        assert (sink.now, sink.most) == (1, 1), "the other sends"
        both.ways[0].cut_off = False
        await asyncio.sleep(200)
        assert (sink.taken, sink.most) == (both.journal.billed("s"), 1)
        assert [body for _, _, body in sink.sent] == [b"5", b"6"]


@in_virtual_time
async def test_an_outbox_that_cannot_be_claimed_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    sink = ScriptedSink()
    async with Replicas(sink) as both:
        for way in both.ways:
            way.cut_off = True
        both.journal.add("a", 5)
        await asyncio.sleep(LOOK + 1)
        assert sink.sent == []
        for way in both.ways:
            way.cut_off = False
        await asyncio.sleep(LOOK)
        assert len(sink.sent) == 1
    assert "billing sink s cannot be claimed; it is tried again" in caplog.text
