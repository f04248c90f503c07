"""What headers say of a provider's limits, in every vendor's words, and what comes of headers that make no sense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.model.chat import ChatRequest
from headgate.model.clearance import Clearance
from headgate.model.deployment import Deployment
from headgate.model.errors import Throttled
from headgate.model.quota import Quota, Room
from headgate.providers.anthropic import Anthropic
from headgate.providers.endpoint import Endpoint
from headgate.providers.openai import OpenAI
from headgate.providers.quotas import LONGEST_WAIT, quota
from tests.unit.providers.rawserver import Visit, raw_server

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z
NAMES = [
    *(f"x-ratelimit-{what}-{kind}" for what in ("remaining", "reset") for kind in ("requests", "tokens")),
    *(f"anthropic-ratelimit-{kind}-{what}" for what in ("remaining", "reset") for kind in ("requests", "tokens")),
]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-tokens": "149984",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            Quota(Room(59, 1.0), Room(149_984, 360.0)),
        ),
        (
            {
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2026-01-01T00:00:30Z",
                "anthropic-ratelimit-tokens-remaining": "12000",
                "anthropic-ratelimit-tokens-reset": "2025-12-31T23:59:59Z",
            },
            Quota(Room(0, 30.0), Room(12_000, 0.0)),
        ),
        ({"x-ratelimit-remaining-requests": "3"}, None),
        ({"x-ratelimit-remaining-requests": "-1", "x-ratelimit-reset-requests": "1s"}, None),
        ({"x-ratelimit-remaining-tokens": "many", "x-ratelimit-reset-tokens": "1s"}, None),
        ({"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "soon"}, None),
        ({"anthropic-ratelimit-tokens-remaining": "5", "anthropic-ratelimit-tokens-reset": "Tomorrow"}, None),
        ({}, None),
    ],
)
def test_each_vendors_headers_are_read_and_what_makes_no_sense_says_nothing(
    headers: dict[str, str], expected: Quota | None
) -> None:
    assert quota(headers.get, NOW) == expected


@given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=40) | st.integers(-5, 10**18).map(str)))
def test_whatever_headers_hold_what_comes_out_is_bounded(headers: dict[str, str]) -> None:
    found = quota(headers.get, NOW)
    for room in () if found is None else (found.requests, found.tokens):
        assert room is None or (room.remaining >= 0 and 0 <= room.reset <= LONGEST_WAIT)


@pytest.mark.parametrize("kind", [OpenAI, Anthropic])
async def test_a_provider_writes_it_into_the_clearance_also_when_it_refuses(kind: type[OpenAI | Anthropic]) -> None:
    async def play(visit: Visit) -> None:
        await visit.request()
        headers = "x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 12s\r\n"
        await visit.answer(b"{}", status="429 Too Many Requests", headers=headers)

    async with raw_server(play) as server:
        provider = kind(Endpoint(name="acme", base_url=server.url, api_key="any", allow_private=True))
        clearance = Clearance("r", 10)
        deployment = Deployment(name="m", provider="acme", model="m")
        request = ChatRequest.parse({"model": "m", "messages": [{"role": "user", "content": "Hi"}]})
        with pytest.raises(Throttled) as throttled:
            async for _ in provider.send(deployment, request, clearance, timeout=5.0):
                pass
        await provider.close()
    assert throttled.value.retry_after == 12.0
    assert clearance.quota == Quota(requests=Room(0, 12.0))
