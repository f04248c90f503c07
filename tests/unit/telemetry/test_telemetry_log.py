"""One line for each call, and nobody waits for the disk."""

from __future__ import annotations

import io
import json
import threading

import msgspec

from headgate.model.money import Usage
from headgate.model.record import Attempt, CallRecord
from headgate.telemetry.log import LogSink
from headgate.telemetry.telemetry import Telemetry

CALL = CallRecord(
    id="r1",
    at=1.5,
    tenant="acme",
    route="auto",
    status=200,
    source="live",
    attempts=(Attempt(deployment="small", outcome="ok", seconds=0.4, usage=Usage(prompt_tokens=3)),),
    cost=2_500,
)
AS_LINE = {"event": "call", **json.loads(msgspec.json.encode(CALL))}


class Gate(io.BytesIO):
    """A stream that takes nothing until it is opened, as a full pipe."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.open = threading.Event()

    def write(self, lines) -> int:
        self.reached.set()
        self.open.wait(10)
        return super().write(lines)


class Broken(io.BytesIO):
    """A disk that is full for the first write."""

    def __init__(self) -> None:
        super().__init__()
        self.failed = threading.Event()

    def write(self, lines) -> int:
        if not self.failed.is_set():
            self.failed.set()
            raise OSError(28, "No space left on device")
        return super().write(lines)


def lines(stream: io.BytesIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_each_record_is_one_json_line_with_all_its_fields() -> None:
    stream = io.BytesIO()
    log = LogSink(stream)
    log.record(CALL)
    log.record(msgspec.structs.replace(CALL, id="r2"))
    log.close()
    first, second = lines(stream)
    assert first == AS_LINE
    assert second["id"] == "r2"


def test_closing_writes_what_is_still_queued_in_order() -> None:
    stream = io.BytesIO()
    log = LogSink(stream, linger=60)
    for number in range(1_000):
        log.record(msgspec.structs.replace(CALL, id=str(number)))
    log.close()
    assert [line["id"] for line in lines(stream)] == [str(number) for number in range(1_000)]
    assert log.dropped == 0


def test_a_stream_that_takes_nothing_drops_records_instead_of_delaying_calls_and_says_so() -> None:
    stream = Gate()
    log = LogSink(stream, most=10, linger=0)
    log.record(CALL)
    assert stream.reached.wait(10)
    for _ in range(25):
        log.record(CALL)
    assert log.dropped == 15
    stream.open.set()
    log.close()
    written = lines(stream)
    assert sum(line["event"] == "call" for line in written) == 11
    assert [line for line in written if line["event"] != "call"] == [{"event": "records_dropped", "count": 15}]


def test_a_write_that_fails_is_counted_and_said_at_the_next_chance() -> None:
    stream = Broken()
    log = LogSink(stream, linger=60)
    log.record(CALL)
    log.close()
    assert log.dropped == 1
    assert lines(stream) == [{"event": "records_dropped", "count": 1}]


def test_the_log_goes_on_after_a_failed_write() -> None:
    stream = Broken()
    log = LogSink(stream, linger=0)
    log.record(CALL)
    assert stream.failed.wait(10)
    log.record(msgspec.structs.replace(CALL, id="r2"))
    log.close()
    assert lines(stream) == [
        {**AS_LINE, "id": "r2"},
        {"event": "records_dropped", "count": 1},
    ]


def test_text_that_is_not_unicode_costs_only_its_own_line() -> None:
    stream = io.BytesIO()
    log = LogSink(stream)
    log.record(msgspec.structs.replace(CALL, user="\udcff"))
    log.record(CALL)
    log.close()
    assert [line["event"] for line in lines(stream)] == ["call", "records_dropped"]


def test_a_record_after_closing_is_dropped_quietly() -> None:
    stream = io.BytesIO()
    log = LogSink(stream)
    log.close()
    log.record(CALL)
    assert (stream.getvalue(), log.dropped) == (b"", 1)
    log.close()


def test_a_file_is_appended_to(tmp_path) -> None:
    path = tmp_path / "calls.jsonl"
    for _ in range(2):
        log = LogSink.to_file(path)
        Telemetry([log]).record(CALL)
        log.close()
    assert len(path.read_text().splitlines()) == 2
