"""Embeddings through OpenAI's SDK, many at once: everybody gets its own, and the provider is called less often than it is asked."""

from __future__ import annotations

import array
import asyncio
import base64

import openai
import pytest

from headgate.simulator.embeddings import embed
from tests.contract.house import House, Tenant

CALLERS = 48
DIMENSIONS = 8
_KEYS = ("headgate_embedding_batch_callers_sum", "headgate_embedding_batch_callers_count")


def expected(text: str) -> list[float]:
    return embed(text, DIMENSIONS).tolist()


@pytest.fixture
def crowd(house: House) -> list[openai.AsyncOpenAI]:
    """Two tenants, whose callers ask at the same time."""
    tenants = [house.tenant() for _ in range(2)]
    return [openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=one.key, max_retries=0) for one in tenants]


async def test_of_many_at_once_everybody_gets_its_own_vectors_in_its_own_order(
    house: House, crowd: list[openai.AsyncOpenAI]
) -> None:
    before, asked = [house.metric(key) for key in _KEYS], house.calls().calls

    async def one(number: int) -> None:
        texts = [f"caller {number} text {index}" for index in range(1 + number % 4)]
        format = "float" if number % 5 == 0 else "base64"
        answer = await crowd[number % 2].embeddings.create(
            model="embedding", input=texts, dimensions=DIMENSIONS, encoding_format=format
        )
        assert [row.index for row in answer.data] == list(range(len(texts)))
        for row, text in zip(answer.data, texts, strict=True):
            found = row.embedding
            if isinstance(found, str):  # asked for by hand, base64 is not decoded by the SDK
                found = array.array("f", base64.b64decode(found)).tolist()
            assert found == pytest.approx(expected(text))
        assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0

    await asyncio.gather(*map(one, range(CALLERS)))
    for client in crowd:
        await client.close()
    callers, calls = (house.metric(key) - old for key, old in zip(_KEYS, before, strict=True))
    assert callers == CALLERS
    assert calls == house.calls().calls - asked <= CALLERS


async def test_what_callers_are_told_they_used_sums_to_what_the_provider_counted(
    house: House, later: openai.AsyncOpenAI, tenant: Tenant
) -> None:
    before = house.calls().prompt_tokens
    texts = [f"text {'word ' * number}" for number in range(40)]
    answers = await asyncio.gather(*(later.embeddings.create(model="embedding", input=text) for text in texts))
    told = sum(answer.usage.prompt_tokens for answer in answers)
    assert told == house.calls().prompt_tokens - before
    usage = house.request("GET", "/v1/usage", key=tenant.key).json["total"]
    assert usage["prompt_tokens"] == told
    assert usage["requests"] == len(texts)


async def test_tokens_by_number_go_together_too(later: openai.AsyncOpenAI) -> None:
    inputs: list[list[int] | list[list[int]]] = [[1, 2, 3], [[4], [5, 6]], [[7, 8]], [9]]
    answers = await asyncio.gather(
        *(later.embeddings.create(model="embedding", input=one, dimensions=DIMENSIONS) for one in inputs)
    )
    for answer, words in zip(answers, (["1 2 3"], ["4", "5 6"], ["7 8"], ["9"]), strict=True):
        assert [row.embedding for row in answer.data] == [pytest.approx(expected(text)) for text in words]


async def test_what_is_refused_to_one_concerns_nobody_else(later: openai.AsyncOpenAI) -> None:
    async def ask(number: int) -> list[float]:
        dimensions = 1_000_000 if number == 7 else DIMENSIONS
        answer = await later.embeddings.create(model="embedding", input=f"text {number}", dimensions=dimensions)
        return answer.data[0].embedding

    answers = await asyncio.gather(*map(ask, range(12)), return_exceptions=True)
    assert isinstance(answers[7], openai.BadRequestError)
    assert [answer for number, answer in enumerate(answers) if number != 7] == [
        pytest.approx(expected(f"text {number}")) for number in range(12) if number != 7
    ]
