"""Conversations that outgrow a model's window: pruned, condensed, sent to a larger model; always told, and never kept as another's."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from headgate.model.chat import ChatRequest
from headgate.model.errors import Unavailable
from headgate.model.tenancy import Policy, Principal
from headgate.providers.scripted import ScriptedProvider, answer
from headgate.routing.route import Overflow
from tests.scenarios.house import CALLER, House

OTHER = Principal(tenant="globex", key="key-2")
SMALL = {"context_window": 2_000}


def conversation(turns: int, last: str = "And now?") -> ChatRequest:
    said = [
        {"role": ("user", "assistant")[at % 2], "content": f"turn {at:03} " + "x" * 400}
        for at in range(2 * (turns // 2))
    ]
    opening = {"role": "system", "content": "Be brief."}
    return ChatRequest.parse({"model": "auto", "messages": [opening, *said, {"role": "user", "content": last}]})


class Alike:
    """An embedder to which all texts mean the same."""

    identity = "alike"
    dimensions = 2

    def fits(self, text: str) -> bool:
        return True

    async def embed(self, text: str) -> Any:
        return np.array([1.0, 0.0], dtype=np.float32)

    async def close(self) -> None:
        return None


def house(
    *ways: Overflow,
    tiers: tuple[str, ...] = ("small",),
    deployed: dict[str, Any] | None = None,
    embedder: Any = None,
    **providers: ScriptedProvider,
) -> House:
    found = {
        "small": ScriptedProvider(),
        "large": ScriptedProvider(),
        "scribe": ScriptedProvider(answer("They agreed.")),
    }
    found |= providers
    condenser = "scribe" if "condense" in ways else None
    return House(
        found,
        tiers={"low": tiers, "medium": tiers, "high": tiers},
        routed={"overflow": ways, "condenser": condenser},
        deployed=deployed or {"small": SMALL},
        embedder=embedder,
    )


async def called(one: House, request: ChatRequest, who: Principal = CALLER, **wishes: Any) -> Any:
    async with await one.gateway.chat(who, request) as reply:
        await reply.completion()
    await one.flown()
    return one.notes.records[-1]


def sent(provider: ScriptedProvider) -> list[str]:
    return [one.content[:20] for one in provider.calls[-1].request.messages if isinstance(one.content, str)]


async def test_the_oldest_turns_are_pruned_and_the_record_says_how_many() -> None:
    one = house("prune")
    record = await called(one, conversation(30))
    said = sent(one.providers["small"])
    assert said[0] == "Be brief."
    assert said[-1] == "And now?"
    assert said[1].startswith("turn ")
    assert record.overflow == f"pruned:{30 + 2 - len(said)}"


async def test_an_answer_to_a_shortened_conversation_is_not_kept_for_the_whole_one() -> None:
    one = house("prune")
    records = [await called(one, conversation(30)) for _ in range(2)]
    assert [record.source for record in records] == ["live", "live"]
    assert len(one.providers["small"].calls) == 2


async def test_an_answer_of_a_larger_model_to_the_whole_conversation_is_kept() -> None:
    one = house("larger", tiers=("small", "large"))
    records = [await called(one, conversation(30)) for _ in range(2)]
    assert [record.source for record in records] == ["live", "exact"]
    assert (records[0].deployment, records[0].overflow) == ("large", "larger")


async def test_a_fallback_to_a_smaller_model_is_never_a_blind_cut() -> None:
    one = house("larger", "prune", tiers=("small", "large"), large=ScriptedProvider((Unavailable("down"),)))
    record = await called(one, conversation(30))
    assert record.deployment == "small"
    assert record.overflow.startswith("pruned:")
    assert sent(one.providers["small"])[-1] == "And now?"


async def test_a_summary_takes_the_place_of_the_oldest_turns_and_is_in_the_journal() -> None:
    one = house("condense")
    record = await called(one, conversation(30))
    said = [message.content for message in one.providers["small"].calls[-1].request.messages]
    assert said[0] == "Be brief."
    assert said[1] == "[What was said before, summed up:]\nThey agreed."
    assert said[-1] == "And now?"
    assert record.overflow == f"condensed:{30 + 3 - len(said)}"
    rows = {row.group["feature"]: row for row in await one.journal("feature")}
    assert rows["condense"].cost > 0
    material = one.providers["scribe"].calls[0].request.messages[-1].content
    assert "turn 000" in material
    assert "And now?" not in material
    assert one.ledger.open_reservations() == 0


async def test_the_turns_that_follow_find_the_same_summary() -> None:
    one = house("condense")
    for turns in (30, 32, 34):
        await called(one, conversation(turns))
    assert len(one.providers["scribe"].calls) == 1
    assert len(one.providers["small"].calls) == 3


async def test_the_next_summary_begins_with_the_last() -> None:
    one = house("condense")
    await called(one, conversation(30))
    await called(one, conversation(60))
    first, second = (call.request.messages[-1].content for call in one.providers["scribe"].calls)
    assert '"role":"summary","text":"They agreed."' in second
    assert "turn 000" in first
    assert "turn 000" not in second


async def test_a_summary_serves_no_other_tenant() -> None:
    one = house("condense")
    await called(one, conversation(30))
    await called(one, conversation(30), OTHER)
    assert len(one.providers["scribe"].calls) == 2


async def test_a_summary_that_cannot_be_had_costs_the_turns_and_not_the_call() -> None:
    for scribe in (
        ScriptedProvider((Unavailable("down"),)),
        ScriptedProvider(answer("cut", finish="length")),
        ScriptedProvider(answer(" ")),
    ):
        one = house("condense", scribe=scribe)
        record = await called(one, conversation(30))
        assert (record.status, record.overflow[:7]) == (200, "pruned:")
        assert one.ledger.open_reservations() == 0


async def test_a_caller_who_leaves_takes_an_unfinished_summary_along() -> None:
    one = house("condense", scribe=ScriptedProvider((asyncio.Event(),)))
    impatient = Principal(tenant="acme", key="key-1", policy=Policy(abandoned="cancel"))
    reply = await one.gateway.chat(impatient, conversation(30))
    waiting = asyncio.ensure_future(reply.completion())
    while not one.providers["scribe"].calls:
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    reply.close()
    await one.flown()
    assert one.providers["small"].calls == []
    assert one.ledger.open_reservations() == 0


async def test_a_summary_is_not_written_outside_the_tenants_regions() -> None:
    one = house("condense", deployed={"small": {**SMALL, "region": "eu"}})
    record = await called(one, conversation(30), Principal(tenant="acme", key="k", policy=Policy(residency=("eu",))))
    assert record.overflow.startswith("pruned:")
    assert one.providers["scribe"].calls == []
    await called(one, conversation(30), OTHER)
    assert len(one.providers["scribe"].calls) == 1


async def test_who_asks_the_same_in_other_words_does_not_share_the_answer_to_a_shortened_conversation() -> None:
    for ways, calls in ((("prune",), 2), (("larger",), 1)):
        gate = asyncio.Event()
        slow = ScriptedProvider([gate, *answer("Soon.")])
        one = house(*ways, tiers=("small", "large"), small=slow, large=slow, embedder=Alike())
        questions = [conversation(30, last) for last in ("How long does delivery take?", "how long does delivery take")]
        replies = [await one.gateway.chat(CALLER, question) for question in questions]
        waiting = [asyncio.ensure_future(reply.completion()) for reply in replies]
        while not slow.calls:
            await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*waiting)
        for reply in replies:
            reply.close()
        await one.flown()
        assert len(slow.calls) == calls


async def test_who_does_not_share_such_an_answer_does_not_share_its_price_either() -> None:
    gate = asyncio.Event()
    slow = ScriptedProvider([gate, *answer("Soon.")])
    one = house("prune", tiers=("small", "large"), small=slow, large=slow, embedder=Alike())
    split = Principal(tenant="acme", key="k", policy=Policy(shares="split"))
    questions = [conversation(30, last) for last in ("How long does delivery take?", "how long does delivery take")]
    replies = [await one.gateway.chat(split, question) for question in questions]
    waiting = [asyncio.ensure_future(reply.completion()) for reply in replies]
    while not slow.calls:
        await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*waiting)
    for reply in replies:
        reply.close()
    await one.flown()
    assert [reply.source for reply in replies] == ["live", "live"]
    (row,) = await one.journal("source")
    assert (row.requests, row.shared, row.billed) == (2, 0, row.cost)
