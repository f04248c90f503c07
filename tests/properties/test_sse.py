"""The SSE parser gives the same events however the stream is cut, and fails in one way only."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headgate.model.errors import Malformed
from headgate.providers.sse import SseEvent, SseParser

ENDS = st.sampled_from(["\n", "\r", "\r\n"])
WORDS = st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]), max_size=12)
LINES = st.one_of(
    st.builds("data: {}".format, WORDS),
    st.builds("data:{}".format, WORDS),
    st.builds("event: {}".format, WORDS),
    st.builds("id: {}".format, WORDS),
    st.builds("retry: {}".format, st.integers(0, 9999)),
    st.builds(":{}".format, WORDS),
    st.just("data"),
    st.just(""),
    st.just(""),
    WORDS,
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    bom = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    lines = draw(st.lists(st.tuples(LINES, ENDS), max_size=20))
    return bom + "".join(line + end for line, end in lines).encode()


def parse(pieces: list[bytes], *, max_event: int = 2**20) -> tuple[list[SseEvent], SseParser] | None:
    parser, events = SseParser(max_event=max_event), []
    try:
        for piece in pieces:
            events += parser.feed(piece)
    except Malformed:
        return None
    return events, parser


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    ends = sorted(place % (len(stream) + 1) for place in places)
    return [stream[a:b] for a, b in zip([0, *ends], [*ends, len(stream)], strict=True)]


def reference(stream: bytes) -> list[SseEvent]:
    """The same rules, line by line over the whole text, as the standard tells them."""
    events, rows, kind = [], [], b""
    lines = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    for line in lines[:-1]:
        name, colon, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if not line:
            if rows:
                events.append(SseEvent(b"\n".join(rows), kind or b"message"))
            rows, kind = [], b""
        elif colon and not name:
            continue
        elif name == b"data":
            rows.append(value)
        elif name == b"event":
            kind = value
    return events


@given(streams(), st.lists(st.integers(0, 10_000), max_size=12))
def test_any_cut_gives_the_events_of_the_standard(stream: bytes, places: list[int]) -> None:
    whole, pieces = parse([stream]), parse(cut(stream, places))
    assert whole is not None
    assert pieces is not None
    assert pieces[0] == whole[0] == reference(stream)
    assert (pieces[1].last_id, pieces[1].retry) == (whole[1].last_id, whole[1].retry)


@given(streams())
def test_single_bytes_give_the_same_events(stream: bytes) -> None:
    pieces = parse([stream[i : i + 1] for i in range(len(stream))])
    assert pieces is not None
    assert pieces[0] == reference(stream)


@given(st.lists(WORDS, min_size=1, max_size=8), st.lists(st.integers(0, 10_000), max_size=6))
def test_the_short_way_and_the_long_way_agree(words: list[str], places: list[int]) -> None:
    """Chunks of whole events take a short way; the same events in pieces take the long one."""
    stream = "".join(f"data: {word}\n\n" for word in words).encode()
    whole, pieces = parse([stream]), parse(cut(stream, places))
    assert whole is not None
    assert pieces is not None
    assert whole[0] == pieces[0] == [SseEvent(word.encode()) for word in words]


@given(st.lists(st.binary(max_size=200), max_size=10), st.integers(1, 300))
def test_arbitrary_bytes_raise_nothing_but_malformed(chunks: list[bytes], limit: int) -> None:
    whole, pieces = parse([b"".join(chunks)], max_event=limit), parse(chunks, max_event=limit)
    assert (whole is None) == (pieces is None)
