"""What a provider does wrong after its answer has begun, or with how it is written, over real HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from headgate.model.chat import ChatRequest, Delta
from headgate.model.errors import Interrupted
from tests.faults.provider_house import CALLER, Place, Told, place


def said(told: Told) -> str:
    parts = (
        choice.get("delta", {}).get("content")
        for one in told.events
        if isinstance(one, Delta)
        for choice in one.choices
    )
    return "".join(part for part in parts if part)


async def broken_off(house: Place, fault: str) -> Told:
    house.breaks(fault)
    told = await house.ask(stream=True)
    assert isinstance(told.error, Interrupted), told.error
    assert said(told), "what was sent stays valid"
    assert [deployment for deployment, _ in told.tried] == ["a"], "nothing is begun again behind the caller's back"
    assert told.attempts[0].cost > 0
    assert told.attempts[0].usage.estimated
    assert house.engine.gateway.cache.size() == 0
    return told


async def test_a_stall_in_the_middle_ends_by_the_idle_timeout_with_an_error_and_a_settlement_of_what_came(
    tmp_path: Path,
) -> None:
    async with place(tmp_path) as house:
        told = await broken_off(house, "stall:3")
        assert told.attempts[0].outcome == "upstream_timeout"
        await house.settle()


async def test_a_trickle_that_never_falls_silent_ends_by_the_deadline_over_all(tmp_path: Path) -> None:
    async with place(tmp_path, total="0.5s") as house:
        told = await broken_off(house, "trickle:0.1")
        assert told.attempts[0].outcome == "upstream_timeout"
        assert told.attempts[0].seconds < 5
        await house.settle()


@pytest.mark.parametrize("fault", ["cut:3", "malformed-sse:3", "error-event:3"])
async def test_an_error_after_content_is_told_inside_the_stream_and_never_restarted(tmp_path: Path, fault: str) -> None:
    async with place(tmp_path) as house:
        await broken_off(house, fault)
        await house.settle()


@pytest.mark.parametrize("model", ["auto", "c"])
async def test_an_error_inside_an_answer_of_status_200_is_what_its_own_type_says(tmp_path: Path, model: str) -> None:
    """An overload, which blames the deployment, and not a rejection of the request."""
    async with place(tmp_path) as house:
        house.breaks("error-event:0")
        told = await house.ask(model, stream=True)
        assert told.attempts[0].outcome == "upstream_unavailable"
        assert told.tried[-1] == ("b", "ok")
        await house.settle()


@pytest.mark.parametrize("fault", ["odd-sse", "split-utf8"])
async def test_a_stream_written_in_any_way_that_the_standard_allows_is_read(tmp_path: Path, fault: str) -> None:
    async with place(tmp_path) as house:
        house.breaks(fault)
        told = await house.ask(stream=True)
        assert told.error is None
        assert told.tried == [("a", "ok")]
        assert not told.attempts[0].usage.estimated
        await house.settle()


@pytest.mark.parametrize(("fault", "stream"), [("endless-line:4", True), ("huge:20", False)])
async def test_a_line_without_end_and_a_body_beyond_all_bounds_are_given_up_and_settled(
    tmp_path: Path, *, fault: str, stream: bool
) -> None:
    async with place(tmp_path) as house:
        house.breaks(fault)
        told = await house.ask(stream=stream)
        assert told.attempts[0].outcome == "upstream_malformed"
        assert told.tried[-1] == ("b", "ok")
        assert told.attempts[0].cost > 0
        await house.settle()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_compressed_answer_is_refused_unread_and_made_good(tmp_path: Path, *, stream: bool) -> None:
    async with place(tmp_path) as house:
        house.breaks("gzip")
        told = await house.ask(stream=stream)
        assert told.attempts[0].outcome == "upstream_malformed"
        assert told.tried[-1] == ("b", "ok")
        await house.settle()


async def test_a_body_shorter_than_its_length_is_a_failure_settled_at_an_estimate_and_the_retry_is_an_attempt_of_its_own(
    tmp_path: Path,
) -> None:
    async with place(tmp_path) as house:
        house.breaks("truncated-json")
        told = await house.ask()
        assert told.tried == [("a", "upstream_unavailable")] * 2 + [("b", "ok")]
        assert all(attempt.usage.estimated and attempt.cost for attempt in told.attempts[:2])
        await house.settle()


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_without_a_count_is_counted_here_and_marked_as_an_estimate(
    tmp_path: Path, *, stream: bool
) -> None:
    async with place(tmp_path) as house:
        house.breaks("no-usage")
        told = await house.ask(stream=stream)
        assert told.tried == [("a", "ok")]
        assert told.attempts[0].usage.estimated
        assert told.attempts[0].cost > 0
        assert 'headgate_usage_estimated_total{deployment="a"} 1.0' in house.engine.metrics.render().decode()
        await house.settle()


async def test_a_slow_reader_holds_up_nobody_and_its_answer_is_whole_and_paid_once(tmp_path: Path) -> None:
    """The flight reads the provider at its own pace; a caller that does not read costs its own connection alone."""
    async with place(tmp_path) as house:
        house.breaks("huge:1")
        request = ChatRequest.parse({"model": "a", "stream": True, "messages": [{"role": "user", "content": "Much."}]})
        async with await house.engine.gateway.chat(CALLER, request) as slow:
            await slow.opened()
            assert (await house.ask("b")).text
            await house.engine.gateway.flights.idle()
            house.told.append(Told(attempts=slow.trail.attempts))
            assert len((await slow.completion()).text) > 2**20
        await house.settle()
