"""Images, sound, files and tools: found exactly, by their content, and never by meaning, neither in stock nor in flight."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from headgate.model.chat import ChatRequest
from headgate.model.deployment import Deployment
from headgate.model.errors import NotCached
from headgate.model.tenancy import Wishes
from headgate.providers.scripted import ScriptedProvider, answer
from headgate.reply import Reply
from tests.readings import Words
from tests.scenarios.house import CALLER, PRICE, House, ask

CAT, DOG = base64.b64encode(b"the bytes of a cat").decode(), base64.b64encode(b"the bytes of a dog").decode()
TEXT = "What is in this picture?"
TOOL = {"type": "function", "function": {"name": "look"}}


def asked(*parts: Any, text: str = TEXT, **more: Any) -> ChatRequest:
    content = [{"type": "text", "text": text}, *parts]
    return ChatRequest.parse({"model": "auto", "messages": [{"role": "user", "content": content}], **more})


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def sound(text: str) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": text, "format": "wav"}}


def file(text: str) -> dict[str, Any]:
    return {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{text}", "filename": "a.pdf"}}


def inline(text: str) -> dict[str, Any]:
    return image(f"data:image/png;base64,{text}")


KINDS = {"image": inline, "sound": sound, "file": file}
REMOTE = image("https://example.com/a.png")


class Noting(Words):
    """An embedder that notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.embedded: list[str] = []

    async def embed(self, text: str) -> Any:
        self.embedded.append(text)
        return await super().embed(text)


def house_of(words: Words | None = None) -> House:
    """One that compares by meaning, and whose provider says another thing each time."""
    said = (answer(f"Answer {number}.") for number in range(1, 9))
    house = House({"one": ScriptedProvider(*said)}, embedder=words or Words())
    seeing = Deployment(
        name="one", provider="one", model="one-1", price=PRICE, capabilities=frozenset({"tools", "vision"})
    )
    house.gateway.routing.reprice({"one": seeing})
    return house


async def told(house: House, request: ChatRequest, wishes: Wishes | None = None) -> tuple[Reply, str]:
    async with await house.gateway.chat(CALLER, request, wishes) as reply:
        text = (await reply.completion()).text
    await house.flown()
    return reply, text


def calls(house: House) -> int:
    provider = house.providers["one"]
    assert isinstance(provider, ScriptedProvider)
    return len(provider.calls)


async def test_a_question_of_text_is_found_by_meaning_here() -> None:
    """What the others must not be."""
    house = house_of()
    await told(house, ask(TEXT))
    assert (await told(house, ask("what is in this picture")))[0].source == "semantic"


@pytest.mark.parametrize("kind", KINDS)
async def test_the_same_content_is_found_however_it_is_written_and_another_is_not(kind: str) -> None:
    house, part = house_of(), KINDS[kind]
    assert (await told(house, asked(part(CAT))))[1] == "Answer 1."
    again, text = await told(house, asked(part(f"{CAT[:8]}\r\n{CAT[8:]}".rstrip("="))))
    assert (again.source, text) == ("exact", "Answer 1.")
    other, text = await told(house, asked(part(DOG)))
    assert (other.source, text) == ("live", "Answer 2.")


@pytest.mark.parametrize("kind", [*KINDS, "tool"])
async def test_none_of_it_is_ever_compared_by_meaning(kind: str) -> None:
    more = {"tools": [TOOL]} if kind == "tool" else {}
    parts = [] if kind == "tool" else [KINDS[kind](CAT)]
    words = Noting()
    house = house_of(words)
    first, _ = await told(house, asked(*parts, **more))
    other, _ = await told(house, asked(*parts, text="what is in this picture", **more))
    plain, _ = await told(house, ask(TEXT))
    assert [reply.source for reply in (first, other, plain)] == ["live"] * 3
    together = [
        asked(*parts, text=text, **more)
        for text in ("Who is in this picture?", "who is in this picture", "Who is in this picture")
    ]
    replies = await asyncio.gather(*(told(house, request) for request in together))
    assert [reply.source for reply, _ in replies] == ["live"] * 3
    assert calls(house) == 6
    assert words.embedded == [TEXT], "only of the plain question was there ever a vector"


@pytest.mark.parametrize("kind", KINDS)
async def test_the_same_content_shares_a_call_in_flight(kind: str) -> None:
    house, part = house_of(), KINDS[kind]
    wrapped = f"{CAT[:4]}\n{CAT[4:]}"
    replies = await asyncio.gather(*(told(house, asked(part(text))) for text in (CAT, wrapped, DOG)))
    assert sorted(reply.source for reply, _ in replies) == ["coalesced", "live", "live"]
    assert replies[0][1] == replies[1][1] != replies[2][1]
    assert calls(house) == 2


async def test_what_lies_behind_an_address_is_asked_for_once_while_it_is_answered_and_never_kept() -> None:
    house = house_of()
    replies = await asyncio.gather(*(told(house, asked(REMOTE)) for _ in range(5)))
    assert sorted(reply.source for reply, _ in replies) == ["coalesced"] * 4 + ["live"]
    assert {(reply.trail.cache, reply.trail.cache_reason) for reply, _ in replies} == {("miss", "remote")}
    assert house.gateway.cache.size() == 0
    later, text = await told(house, asked(REMOTE))
    assert (later.source, text) == ("live", "Answer 2.")
    with pytest.raises(NotCached):
        await told(house, asked(REMOTE), Wishes(cache="only-if-cached"))
    with_cat, text = await told(house, asked(inline(CAT), REMOTE))
    assert (with_cat.source, text) == ("live", "Answer 3.")
    assert house.gateway.cache.size() == 0
