"""Images, sound and files in a fingerprint: the same bytes are the same however they are written, and other bytes never are."""

from __future__ import annotations

import base64
import copy
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from headgate.cache.enclosed import refers
from headgate.cache.fingerprint import comparable, fingerprint
from headgate.model.chat import ChatRequest
from headgate.model.tenancy import Namespace

HOME = Namespace("acme")
TEXT = {"type": "text", "text": "What is this?"}
BYTES = bytes(range(256))


def asked(*parts: Any, **more: Any) -> ChatRequest:
    return ChatRequest.parse({"model": "auto", "messages": [{"role": "user", "content": [TEXT, *parts]}], **more})


def key(*parts: Any, **more: Any) -> bytes:
    return fingerprint(HOME, asked(*parts, **more)).digest


def written(content: bytes, head: str = "data:image/png;base64,") -> str:
    return head + base64.b64encode(content).decode()


def image(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def sound(text: str, format: str = "wav") -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": text, "format": format}}


def file(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "file", "file": {"file_data": text, **more}}


def video(url: str) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": url}}


ENCLOSING = {
    "image": lambda content: image(written(content)),
    "sound": lambda content: sound(written(content, "")),
    "file": lambda content: file(written(content, "data:application/pdf;base64,"), filename="a.pdf"),
    "bare file": lambda content: file(written(content, "")),
    "a kind of tomorrow": lambda content: video(written(content, "data:video/mp4;base64,")),
    "in a list": lambda content: {"type": "images", "all": [{"url": written(content)}, {"url": "data:,x"}]},
}

contents = st.binary(max_size=40)


@st.composite
def rewritten(draw: st.DrawFn, content: bytes, head: str = "data:image/png;base64,") -> str:
    """The same bytes as somebody else writes them."""
    kind, _, mark = head.rpartition(";")
    text = base64.b64encode(content).decode()
    if draw(st.booleans()):
        text = text.rstrip("=")
    for place in sorted(draw(st.sets(st.integers(0, len(text)), max_size=4)), reverse=True):
        text = text[:place] + draw(st.sampled_from(["\n", "\r\n", " ", "\t"])) + text[place:]
    cases = (str.upper, str.lower, str.title)
    return f"{draw(st.sampled_from(cases))(kind)};{draw(st.sampled_from(cases))(mark)}{text}" if head else text


@given(contents, st.data())
def test_the_same_bytes_are_the_same_however_they_are_written(content: bytes, data: st.DataObject) -> None:
    assert key(image(data.draw(rewritten(content)))) == key(image(written(content)))
    assert key(sound(data.draw(rewritten(content, "")))) == key(sound(written(content, "")))
    assert key(file(data.draw(rewritten(content)))) == key(file(written(content)))


@pytest.mark.parametrize("enclosing", ENCLOSING)
@given(contents.filter(bool), st.data())
def test_one_changed_byte_is_another_request(enclosing: str, content: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[place] ^= data.draw(st.integers(1, 255))
    part = ENCLOSING[enclosing]
    assert key(part(content)) != key(part(bytes(changed)))
    assert key(part(content)) != key(part(content + b"\x00"))
    assert key(part(content)) == key(part(content))


@given(contents, contents)
def test_where_a_content_is_matters(one: bytes, other: bytes) -> None:
    first, second = image(written(one)), image(written(other))
    assert (key(first, second) == key(second, first)) == (one == other)
    assert key(first) != key(first, first)
    assert key(image(written(one))) != key(video(written(one)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (image(written(BYTES)), image(written(BYTES, "data:image/jpeg;base64,"))),
        (image(written(BYTES)), image(written(BYTES, "data:;base64,"))),
        (image(written(BYTES)), image(written(BYTES, "data:image/png;name=a;base64,"))),
        (image(written(BYTES)), image(written(BYTES), detail="low")),
        (image(written(BYTES)), image(written(BYTES, "data:image/png,"))),
        (image(written(BYTES)), image(written(BYTES, "data:image/png;base64"))),
        (sound(written(BYTES, "")), sound(written(BYTES, ""), "mp3")),
        (sound(written(BYTES, "")), sound(written(BYTES, "data:audio/wav;base64,"))),
        (file(written(BYTES), filename="a"), file(written(BYTES), filename="b")),
        (file(written(BYTES)), file(written(BYTES), file_id="f-1")),
        (image("https://example.com/a.png"), image("https://example.com/b.png")),
        (image("data:text/plain,a b"), image("data:text/plain,ab")),
        (sound("-_-_"), sound("+/+/")),
    ],
)
def test_whatever_else_differs_is_another_request(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert key(one) != key(other)


def test_no_request_can_be_written_that_passes_for_a_digest() -> None:
    """What stands in place of a content can be sent by anybody, what names it cannot."""
    true = sound(written(BYTES, ""))
    empty = copy.deepcopy(true)
    empty["input_audio"]["data"] = None
    keys = {key(true), key(empty), key(empty, true), key(true, empty)}
    assert len(keys) == 4
    for odd in (["sha256"], {"digest": "0" * 64}, "0" * 64):
        empty["input_audio"]["data"] = odd
        assert key(empty) not in keys


@pytest.mark.parametrize("text", ["a b", "data:image/png;base64,QQ ==", "QQ =="])
def test_words_are_never_taken_for_a_content(text: str) -> None:
    closer = text.replace(" ", "")
    for part in (
        {"type": "text", "text": "{}"},
        {"type": "note", "note": {"words": "{}"}},
        {"type": "note", "data": "{}"},
    ):
        one, other = ({name: _filled(value, said) for name, value in part.items()} for said in (text, closer))
        assert key(one) != key(other)
    plain = [
        ChatRequest.parse({"model": "m", "messages": [{"role": "user", "content": said}]}) for said in (text, closer)
    ]
    assert fingerprint(HOME, plain[0]) != fingerprint(HOME, plain[1])


def _filled(value: Any, text: str) -> Any:
    return dict.fromkeys(value, text) if isinstance(value, dict) else value.replace("{}", text)


def test_a_tool_is_part_of_the_request_to_the_letter() -> None:
    tool = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}
    plain, found = key(), key(tools=[tool])
    assert plain != found
    for name, value in (("name", "fined"), ("description", "x"), ("parameters", {"type": "object"}), ("strict", True)):
        assert key(tools=[{**tool, "function": {**tool["function"], name: value}}]) not in {plain, found}
    assert key(tools=[tool, tool]) != found


words = st.text(min_size=1, max_size=8)


@given(st.dictionaries(words, words, min_size=1, max_size=4), st.data())
def test_one_changed_letter_of_a_tool_is_another_request(properties: dict[str, str], data: st.DataObject) -> None:
    def tool(described: dict[str, str]) -> dict[str, Any]:
        schema = {"properties": {name: {"type": "string", "description": text} for name, text in described.items()}}
        return {"type": "function", "function": {"name": "f", "parameters": schema}}

    name = data.draw(st.sampled_from(sorted(properties)))
    changed = data.draw(words)
    assume(changed != properties[name])
    assert key(tools=[tool(properties)]) != key(tools=[tool({**properties, name: changed})])


@given(contents, st.sampled_from(sorted(ENCLOSING)), st.booleans())
def test_what_encloses_anything_is_never_compared_by_meaning(content: bytes, enclosing: str, earlier: bool) -> None:
    part = ENCLOSING[enclosing](content)
    turns = [{"role": "user", "content": [TEXT, part]}]
    if earlier:
        turns += [{"role": "assistant", "content": "A picture."}, {"role": "user", "content": "Of what?"}]
    assert comparable(ChatRequest.parse({"model": "auto", "messages": turns})) is None


@pytest.mark.parametrize(
    ("part", "remote"),
    [
        (image("https://example.com/a.png"), True),
        (image("HTTP://example.com/a.png"), True),
        (image("gs://bucket/a.png"), True),
        (video("https://example.com/a.mp4"), True),
        ({"type": "input_file", "file_url": "https://example.com/a.pdf"}, True),
        ({"type": "file_data", "file_data": {"file_uri": "gs://bucket/a.pdf"}}, True),
        ({"type": "images", "all": [{"url": written(BYTES)}, {"url": "https://example.com/a.png"}]}, True),
        (image(written(BYTES)), False),
        (image("DATA:image/png;BASE64,QQ=="), False),
        (sound("QQ=="), False),
        (file("QQ=="), False),
        ({"type": "file", "file": {"file_id": "file-1"}}, False),
        ({"type": "text", "text": "What is behind https://example.com/a.png?"}, False),
    ],
)
def test_what_is_only_referred_to_is_known_by_its_address(part: dict[str, Any], remote: bool) -> None:
    assert refers(asked(part)) is remote


def test_a_text_refers_to_nothing() -> None:
    assert not refers(
        ChatRequest.parse({"model": "m", "messages": [{"role": "user", "content": "https://example.com"}]})
    )
