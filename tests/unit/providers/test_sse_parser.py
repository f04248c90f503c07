"""Cases of the SSE parser that are worth a name."""

from __future__ import annotations

import pytest

from headgate.model.errors import Malformed
from headgate.providers.sse import SseEvent, SseParser


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [SseEvent(b"a")]),
        (b"data:a\n\n", [SseEvent(b"a")]),
        (b"data:  a\n\n", [SseEvent(b" a")]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [SseEvent(b"a"), SseEvent(b"b")]),
        (b"data: a\r\rdata: b\r\r", [SseEvent(b"a"), SseEvent(b"b")]),
        (b"data: a\ndata: b\n\n", [SseEvent(b"a\nb")]),
        (b"data\n\ndata\ndata\n\n", [SseEvent(b""), SseEvent(b"\n")]),
        (b"event: ping\ndata: {}\n\n", [SseEvent(b"{}", b"ping")]),
        (b"event: ping\n\ndata: {}\n\n", [SseEvent(b"{}")]),
        (b": keep-alive\n\ndata: a\n\n", [SseEvent(b"a")]),
        (b"\xef\xbb\xbfdata: a\n\n", [SseEvent(b"a")]),
        (b"data: a\n\n\n\n\ndata: b\n\n", [SseEvent(b"a"), SseEvent(b"b")]),
        (b"data: a", []),
        (b"data: a\n", []),
        (b"nonsense\n\n", []),
    ],
)
def test_a_stream_is_read_as_the_standard_says(stream: bytes, events: list[SseEvent]) -> None:
    assert SseParser().feed(stream) == events


def test_a_carriage_return_at_the_end_of_a_chunk_may_belong_to_the_next() -> None:
    parser = SseParser()
    assert parser.feed(b"data: a\r") == []
    assert parser.feed(b"\n\r") == [SseEvent(b"a")]
    assert parser.feed(b"\ndata: b\r\n\r\n") == [SseEvent(b"b")]


def test_the_last_id_and_the_retry_time_are_kept() -> None:
    parser = SseParser()
    parser.feed(b"id: 7\nretry: 2500\n\nid: a\0b\nretry: soon\n\n")
    assert (parser.last_id, parser.retry) == (b"7", 2500)


@pytest.mark.parametrize("chunks", [[b"data: " + b"a" * 100 + b"\n\n"], [b"a"] * 101, [b"data: aaaa\n"] * 21])
def test_a_line_or_an_event_that_is_too_long_is_malformed(chunks: list[bytes]) -> None:
    parser = SseParser(max_event=100)
    for chunk in chunks[:-1]:
        assert parser.feed(chunk) == []
    with pytest.raises(Malformed, match="too long"):
        parser.feed(chunks[-1])
