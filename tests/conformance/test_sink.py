"""What every Sink must do. To check your own: subclass SinkConformance and give it a `sink` fixture and what it `kept`."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headgate.model.money import Usage
from headgate.model.record import Attempt, CallRecord
from headgate.telemetry.log import LogSink
from headgate.telemetry.metrics import PrometheusSink
from headgate.telemetry.telemetry import Sink, Telemetry


def record(id: str = "1", **more: object) -> CallRecord:
    fields: dict[str, object] = {
        "id": id,
        "at": 1.0,
        "tenant": "acme",
        "route": "auto",
        "status": 200,
        "source": "live",
        "cache": "miss",
        "model": "m",
        "deployment": "small",
        "attempts": (Attempt(deployment="small", outcome="ok", seconds=0.1, first_token=0.05, cost=5),),
        "usage": Usage(prompt_tokens=3, completion_tokens=4),
        "cost": 5,
        "duration": 0.2,
        "route_reason": "tier",
        "route_confidence": 0.5,
    }
    return CallRecord(**{**fields, **more})  # type: ignore[arg-type]


ODD = [
    record(tenant="", route="", model=None, deployment=None, attempts=()),
    record(route="no such model", status=404, error="model_not_found", source="none", cache="bypass"),
    record(tenant='a"b\\c\nd', user="\ud800", feature="\x00"),
    record(cost=2**70, saved=2**70, duration=float("inf"), overhead=-1.0),
    record(duration=float("nan"), lookup=0.0, confidence=float("nan")),
    record(attempts=(Attempt(deployment="\ud800", outcome="x" * 10_000, seconds=-1.0),) * 100),
]

Kept = Callable[[], int]


class SinkConformance:
    """The guarantees in the docstring of Sink: it never blocks and never raises. `kept` counts the calls it knows of, once closed."""

    def test_what_is_recorded_is_kept(self, sink: Sink, kept: Kept) -> None:
        for number in range(50):
            sink.record(record(str(number)))
        sink.close()
        assert kept() == 50

    @pytest.mark.parametrize("odd", ODD)
    def test_no_record_makes_it_raise_or_lose_the_next(self, sink: Sink, kept: Kept, odd: CallRecord) -> None:
        sink.record(odd)
        sink.record(record())
        sink.close()
        assert kept() >= 1

    def test_recording_after_the_end_is_harmless(self, sink: Sink) -> None:
        sink.close()
        sink.record(record())
        sink.close()


class TestLogSink(SinkConformance):
    @pytest.fixture
    def stream(self) -> io.BytesIO:
        return io.BytesIO()

    @pytest.fixture
    def sink(self, stream: io.BytesIO) -> Iterator[Sink]:
        sink = LogSink(stream, linger=0.0)
        yield sink
        sink.close()

    @pytest.fixture
    def kept(self, stream: io.BytesIO) -> Kept:
        return lambda: sum(json.loads(line)["event"] == "call" for line in stream.getvalue().splitlines())

    def test_a_stream_that_takes_nothing_delays_no_call(self) -> None:
        """The writer waits inside `write` until the test lets it go; all records are taken meanwhile, or counted as dropped."""
        gate = threading.Event()

        class Stuck(io.BytesIO):
            def write(self, _lines: object) -> int:
                gate.wait()
                return 0

        sink = LogSink(Stuck(), most=10, linger=0.0)
        for _ in range(300):
            sink.record(record())
        assert sink.dropped >= 1
        gate.set()
        sink.close()


class TestPrometheusSink(SinkConformance):
    @pytest.fixture
    def sink(self) -> PrometheusSink:
        return PrometheusSink(routes=["auto"], deployments=["small"])

    @pytest.fixture
    def kept(self, sink: PrometheusSink) -> Kept:
        def count() -> int:
            families = text_string_to_metric_families(sink.render().decode())
            samples = (sample for family in families for sample in family.samples)
            return int(sum(sample.value for sample in samples if sample.name == "headgate_requests_total"))

        return count

    def test_every_record_can_be_scraped(self, sink: PrometheusSink) -> None:
        for odd in ODD:
            sink.record(odd)
        assert b"headgate_requests_total" in sink.render()


def test_telemetry_hands_every_record_to_every_sink_and_closes_them() -> None:
    class Notes:
        def __init__(self) -> None:
            self.kept: list[CallRecord] = []
            self.closed = 0

        def record(self, record: CallRecord) -> None:
            self.kept.append(record)

        def close(self) -> None:
            self.closed += 1

    sinks = [Notes(), Notes()]
    telemetry = Telemetry(sinks)
    telemetry.record(record("1"))
    telemetry.record(record("2"))
    telemetry.close()
    assert [[one.id for one in sink.kept] for sink in sinks] == [["1", "2"]] * 2
    assert [sink.closed for sink in sinks] == [1, 1]
