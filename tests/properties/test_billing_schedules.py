"""Whatever a billing service answers, and wherever this process dies: counted once for each id, the sum is the journal's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.billing.billing import event_id
from headgate.billing.memory import MemoryOutbox
from headgate.billing.pump import Pump
from tests.unit.billing.scripted_sink import Journal, Killed, ScriptedSink, nobody

ANSWERS = st.sampled_from(["ok", "lost", "late", "busy", "down", "poison"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("row"), st.tuples(st.sampled_from("abc"), st.integers(0, 2**63 - 1))),
        st.tuples(st.just("turn"), st.none()),
        st.tuples(st.just("wait"), st.floats(0, 90_000)),
        st.tuples(st.just("die"), st.sampled_from(["add", "trying", "deliver", "resolve", "rendered"])),
        st.tuples(st.just("retry"), st.none()),
    ),
    max_size=40,
)


class MortalOutbox(MemoryOutbox):
    """The process may die before or after each of its transactions."""

    def __init__(self) -> None:
        super().__init__()
        self.deadly = ""
        self.before = False

    def _die(self, name: str, *, before: bool) -> None:
        if self.deadly == name and self.before == before:
            self.deadly = ""
            raise Killed


def mortal(name: str) -> Callable:
    async def method(self, *args):
        self._die(name, before=True)
        found = await getattr(MemoryOutbox, name)(self, *args)
        self._die(name, before=False)
        return found

    return method


for each in ("add", "trying", "resolve", "rendered"):
    setattr(MortalOutbox, each, mortal(each))


@settings(max_examples=150, deadline=None)
@given(answers=st.lists(ANSWERS, max_size=40), steps=STEPS, batch=st.sampled_from([1, 2, 100]), before=st.booleans())
def test_counted_once_for_each_id_the_sum_is_the_journals(answers, steps, batch: int, before: bool) -> None:
    asyncio.run(play(answers, steps, batch, before))


async def play(answers, steps, batch: int, before: bool) -> None:
    sink, journal, outbox, now = (
        ScriptedSink(answers, batch=batch, remembers=86_400.0),
        Journal(),
        MortalOutbox(),
        [0.0],
    )
    outbox.before = before

    def pump() -> Pump:
        return Pump("s", sink, outbox, journal.feed, nobody, now=lambda: now[0], draw=lambda: 0.5)

    def die() -> None:
        sink.kill = lambda: None
        raise Killed

    running = pump()
    for step, argument in steps:
        if step == "row":
            journal.add(*argument)
        elif step == "wait":
            now[0] += argument
        elif step == "retry":
            await outbox.retry("s")
        elif step == "die" and argument == "deliver":
            sink.kill = die
        elif step == "die":
            outbox.deadly = argument
        else:
            try:
                await running.turn()
            except (Killed, BaseExceptionGroup):
                running = pump()
    await quiet(running, sink, outbox, now)
    assert sink.taken == journal.billed("s")
    assert orders(journal, sink)
    (standing,) = await outbox.standings() or [None]
    if standing is not None:
        assert (standing.pending, standing.parked) == (0, 0)
        assert standing.delivered_billed == sum(line.billed for line in journal.lines)


async def quiet(running: Pump, sink: ScriptedSink, outbox: MortalOutbox, now: list[float]) -> None:
    """Everything is well from now on, and an operator looks after what was parked."""
    sink.answers, outbox.deadly, sink.kill = [], "", lambda: None
    for _ in range(20):
        while await running.turn() == 0.0:
            pass
        await outbox.retry("s")
        now[0] += 400.0


def orders(journal: Journal, sink: ScriptedSink) -> bool:
    """Each id always had the same body, and only ids of the journal were sent."""
    bodies = {event_id("s", line): b"%d" % line.billed for line in journal.lines}
    return all(bodies[id] == body for _, id, body in sink.sent)
