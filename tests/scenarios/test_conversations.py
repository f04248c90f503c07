"""Questions within conversations: an answer crosses from one to another only where nothing that was said before can shape it."""

from __future__ import annotations

from typing import Any

from headgate.cache.treatment import CachePolicy, RoutePolicy
from headgate.model.chat import ChatRequest
from headgate.model.tenancy import CacheTerms, Policy, Principal
from headgate.providers.scripted import ScriptedProvider, answer
from tests.readings import Words
from tests.scenarios.house import CALLER, House

ACROSS = CachePolicy(conversation="context")
SHARKS = ("Which sharks live in Norway?", "Do sharks in Norway sleep?")
ALSO_SHARKS = ("Which sharks sleep in Norway?", "Where in Norway do sharks live?")
CHEESE = ("Which cheese melts well on pizza?", "Which oven melts cheese well?")
QUESTION = "What do sharks in Norway eat?"
REWORDED = "What do the sharks in Norway eat?"


def house(cache: CachePolicy = ACROSS, **more: Any) -> House:
    """Every answer is another one."""
    words = Words()
    answers = ScriptedProvider(*[answer(f"Answer {number}.") for number in range(20)])
    return House({"one": answers}, embedder=words, reader=words, cache=cache, **more)


async def told(house: House, *turns: str, system: str | None = None, by: Principal = CALLER) -> str:
    """The answer to the last of a user's turns."""
    said = [{"role": "system", "content": system}] if system else []
    for turn in turns:
        said += [{"role": "user", "content": turn}, {"role": "assistant", "content": f"Of {turn}"}]
    request = ChatRequest.parse({"model": "auto", "messages": said[:-1]})
    async with await house.gateway.chat(by, request) as reply:
        return (await reply.completion()).text


async def same(house: House, one: tuple[str, ...], other: tuple[str, ...], **more: Any) -> bool:
    """Whether the second conversation gets what the first got."""
    return await told(house, *one) == await told(house, *other, **more)


async def test_a_question_that_stands_alone_is_answered_from_a_conversation_about_nearly_the_same() -> None:
    assert await same(house(), (*SHARKS, QUESTION), (*ALSO_SHARKS, QUESTION))
    assert await same(house(), (*SHARKS, QUESTION), (*ALSO_SHARKS, REWORDED))


async def test_it_may_open_the_one_and_come_later_in_the_other() -> None:
    assert await same(house(), (QUESTION,), (*SHARKS, QUESTION))
    assert await same(house(), (*SHARKS, QUESTION), (QUESTION,))


async def test_without_the_option_earlier_turns_must_be_the_same() -> None:
    assert not await same(house(CachePolicy()), (*SHARKS, QUESTION), (*ALSO_SHARKS, QUESTION))
    assert await same(house(CachePolicy()), (*SHARKS, QUESTION), (*SHARKS, REWORDED))


async def test_a_route_may_say_otherwise() -> None:
    turns = (*SHARKS, QUESTION), (*ALSO_SHARKS, QUESTION)
    assert await same(house(CachePolicy(), route=RoutePolicy(conversation="context")), *turns)
    assert not await same(house(route=RoutePolicy(conversation="digest")), *turns)


async def test_a_conversation_about_something_else_gets_its_own_answer() -> None:
    assert not await same(house(), (*SHARKS, QUESTION), (*CHEESE, QUESTION))


async def test_a_question_that_leans_is_answered_from_the_same_earlier_turns_alone() -> None:
    for question in ("What do they eat?", "And in winter?", "What is the reason?", "Which is bigger?"):
        assert not await same(house(), (*SHARKS, question), (*CHEESE, question)), question
        assert not await same(house(), (*SHARKS, question), (*ALSO_SHARKS, question)), question
    assert await same(house(), (*SHARKS, "What do they eat?"), (*SHARKS, "What do they eat, please?"))


async def test_an_instruction_given_earlier_keeps_answers_to_its_own_conversation() -> None:
    for instruction in (
        "Answer in French.",
        "Be brief.",
        "I am allergic to sharks in Norway.",
        "Which sharks, in short?",
    ):
        assert not await same(house(), (*SHARKS, QUESTION), (instruction, *SHARKS, QUESTION)), instruction
        assert not await same(house(), (instruction, *SHARKS, QUESTION), (*SHARKS, QUESTION)), instruction


async def test_another_system_prompt_is_another_partition() -> None:
    assert not await same(house(), (*SHARKS, QUESTION), (*ALSO_SHARKS, QUESTION), system="Answer as a pirate.")


async def test_nothing_crosses_from_one_tenant_to_another() -> None:
    for policy in (Policy(), Policy(cache=CacheTerms())):
        stranger = Principal(tenant="beta", key="key-2", policy=policy)
        assert not await same(house(), (*SHARKS, QUESTION), (*SHARKS, REWORDED), by=stranger)


async def test_turns_are_read_once_and_a_reader_that_fails_costs_no_answer() -> None:
    class Silent(Words):
        async def read(self, text: str) -> Any:
            raise RuntimeError("silent")

    words = Words()
    broken = House(embedder=words, reader=Silent(), cache=ACROSS)
    assert await told(broken, *SHARKS, QUESTION)
    assert broken.gateway.cache.failures()[("embedder",)] == 1
