"""What a provider does wrong before its answer begins, over real HTTP: who is asked then, what the caller is told, and what it costs."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from headgate.assembly import open_engine
from headgate.config import Config
from headgate.simulator.script import CallSpan
from headgate.simulator.simulator import Simulator
from tests.faults.provider_house import Place, place, settings


async def test_a_storm_of_429_with_retry_after_falls_back_at_once_and_spares_the_deployment_for_all_callers(
    tmp_path: Path,
) -> None:
    async with place(tmp_path) as house:
        house.breaks("429:30")
        first = await house.ask()
        assert first.tried == [("a", "upstream_throttled"), ("b", "ok")]
        for _ in range(5):
            assert (await house.ask()).tried == [("b", "ok")]
        assert house.calls() == (1, 6)
        await house.settle()


async def test_a_429_of_the_only_deployment_is_waited_for_when_it_is_short_and_passed_on_with_its_time_when_it_is_long(
    tmp_path: Path,
) -> None:
    async with place(tmp_path) as house:
        house.breaks("429:0.05", calls=CallSpan(last=1))
        short = await house.ask("alone")
        assert short.tried == [("a", "upstream_throttled"), ("a", "ok")]
        house.breaks("429:60")
        long = await house.ask("alone")
        assert long.error is not None
        assert (long.error.status, long.error.code) == (429, "all_deployments_failed")
        assert long.error.retry_after == pytest.approx(60, abs=1)
        refused = await house.ask("alone")
        assert refused.error is not None
        assert refused.error.status == 429
        assert refused.attempts == [], "its time is honoured for all"
        assert house.calls() == (3, 0)
        await house.settle()


@pytest.mark.parametrize("model", ["auto", "c"])
async def test_an_account_without_money_is_tried_once_and_never_again_its_breaker_is_open_long_and_others_answer(
    tmp_path: Path, model: str
) -> None:
    """OpenAI says so by 429 and a code, Anthropic by 400 and words."""
    asked = "a" if model == "auto" else "c"
    async with place(tmp_path) as house:
        house.breaks("no-money")
        for _ in range(4):
            told = await house.ask(model)
            assert told.error is None
        assert [one.tried[0] for one in house.told] == [(asked, "upstream_out_of_money")] + [("b", "ok")] * 3
        assert house.state(asked) == "open"
        metrics = house.engine.metrics.render().decode()
        assert f'headgate_upstream_alarms_total{{deployment="{asked}",reason="upstream_out_of_money"}} 1.0' in metrics
        await house.settle()


@pytest.mark.parametrize("fault", ["500", "502", "503", "529"])
async def test_a_failing_deployment_is_retried_once_then_left_for_the_next_until_its_breaker_opens(
    tmp_path: Path, fault: str
) -> None:
    async with place(tmp_path) as house:
        house.breaks(fault)
        first = await house.ask()
        assert first.tried == [("a", "upstream_unavailable")] * 2 + [("b", "ok")]
        for _ in range(6):
            assert (await house.ask()).error is None
        assert house.state() == "open"
        assert house.calls()[0] == 5, "the breaker opens after five failures in a row"
        await house.settle()


@pytest.mark.parametrize("fault", ["400", "404", "413"])
async def test_a_bad_request_is_passed_on_with_its_own_status_not_retried_and_without_effect_on_the_breaker(
    tmp_path: Path, fault: str
) -> None:
    async with place(tmp_path) as house:
        house.breaks(fault)
        for _ in range(8):
            told = await house.ask()
            assert told.error is not None
            assert told.error.status == int(fault)
            assert len(told.attempts) == 1
        assert house.state() == "closed"
        assert house.calls() == (8, 0)
        await house.settle()


@pytest.mark.parametrize("fault", ["401", "403"])
async def test_refused_credentials_raise_an_alarm_are_not_retried_and_leave_the_breaker_closed(
    tmp_path: Path, fault: str
) -> None:
    async with place(tmp_path) as house:
        house.breaks(fault)
        for _ in range(8):
            assert (await house.ask()).tried == [("a", "upstream_refused"), ("b", "ok")]
        assert house.state() == "closed"
        metrics = house.engine.metrics.render().decode()
        assert 'headgate_upstream_alarms_total{deployment="a",reason="upstream_refused"} 1.0' in metrics
        await house.settle()


@pytest.mark.parametrize("away", ["http://127.0.0.1:9", "http://nowhere.invalid"])
async def test_a_refused_connection_and_a_name_that_does_not_resolve_cost_nothing_and_fall_back(
    tmp_path: Path, away: str
) -> None:
    async with Simulator().serve() as two:
        async with open_engine(Config.model_validate(settings(away, two.url)), tmp_path) as engine:
            house = Place(engine, two, two, tmp_path / "headgate.db")
            told = await house.ask()
            assert told.text
            assert told.tried[-1] == ("b", "ok")
            assert {outcome for _, outcome in told.tried[:-1]} == {"upstream_unavailable"}
            assert all(attempt.cost == 0 for attempt in told.attempts[:-1])
            assert engine.gateway.budget.ledger.open_reservations() == 0


async def test_a_connection_that_is_never_accepted_ends_by_the_connect_timeout_and_costs_nothing(
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        async with Simulator().serve() as two:
            async with open_engine(Config.model_validate(settings(url, two.url)), tmp_path) as engine:
                house = Place(engine, two, two, tmp_path / "headgate.db")
                told = await house.ask()
                assert told.tried == [("a", "upstream_timeout"), ("b", "ok")]
                assert told.attempts[0].cost == 0


async def test_silence_after_the_connection_ends_by_the_first_byte_timeout_and_is_charged_its_prompt(
    tmp_path: Path,
) -> None:
    async with place(tmp_path) as house:
        house.breaks("hang")
        told = await house.ask()
        assert told.tried == [("a", "upstream_timeout"), ("b", "ok")], "a timeout is not tried again at the same place"
        assert told.attempts[0].usage.estimated
        await house.settle()


async def test_when_all_run_out_of_time_the_status_is_504_and_every_attempt_is_listed(tmp_path: Path) -> None:
    async with place(tmp_path) as house:
        house.breaks("hang", also_two=True)
        told = await house.ask()
        assert told.error is not None
        assert told.error.status == 504
        assert [row["deployment"] for row in told.error.body()["error"]["attempts"]] == ["a", "b"]
        await house.settle()


async def test_when_all_throttle_the_status_is_429_with_the_shortest_retry_after(tmp_path: Path) -> None:
    async with place(tmp_path) as house:
        house.breaks("429:60", also_two=True)
        house.breaks("429:30")
        told = await house.ask()
        assert told.error is not None
        assert told.error.status == 429
        assert told.error.retry_after == pytest.approx(30, abs=1)
        await house.settle()


async def test_a_long_silence_before_the_first_token_is_waited_for_and_the_status_is_still_open_meanwhile(
    tmp_path: Path,
) -> None:
    async with place(tmp_path) as house:
        house.breaks("slow-first-byte:0.2")
        told = await house.ask(stream=True)
        assert told.tried == [("a", "ok")]
        assert told.attempts[0].first_token is not None
        assert told.attempts[0].first_token >= 0.2
        await house.settle()


@pytest.mark.parametrize("fault", ["error-event:0", "cut:0", "malformed-sse:0"])
@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_before_the_first_content_is_made_good_by_the_next_deployment_unseen_by_the_caller(
    tmp_path: Path, *, fault: str, stream: bool
) -> None:
    """Even after the role that opens a stream has come."""
    async with place(tmp_path) as house:
        house.breaks(fault)
        told = await house.ask(stream=stream)
        assert told.error is None
        assert told.tried[-1] == ("b", "ok")
        assert told.attempts[0].outcome != "ok"
        await house.settle()


async def test_an_error_before_the_first_content_of_all_is_a_status_and_no_empty_stream(tmp_path: Path) -> None:
    async with place(tmp_path) as house:
        house.breaks("error-event:0", also_two=True)
        told = await house.ask(stream=True)
        assert told.error is not None
        assert (told.error.status, told.error.code) == (503, "all_deployments_failed")
        assert told.events == []
        await house.settle()


async def test_what_headers_say_of_a_limit_is_kept_to_before_it_is_reached(tmp_path: Path) -> None:
    async with place(tmp_path) as house:
        house.breaks("quota:30")
        assert (await house.ask()).tried == [("a", "ok")]
        assert (await house.ask()).tried == [("b", "ok")], "no request is left there"
        assert house.calls() == (1, 1)
        await house.settle()


async def test_when_breakers_refuse_every_deployment_the_least_bad_one_is_tried_once_and_its_success_closes_it(
    tmp_path: Path,
) -> None:
    async with place(tmp_path) as house:
        house.breaks("500", also_two=True)
        while "closed" in (house.state("a"), house.state("b")):
            await house.ask()
        before = sum(house.calls())
        told = await house.ask()
        assert told.error is not None
        assert told.error.status == 503
        assert told.error.retry_after is not None
        assert sum(house.calls()) == before + 1
        house.heal()
        assert (await house.ask()).text
        assert "closed" in (house.state("a"), house.state("b"))
        await house.settle()


async def test_no_call_makes_more_than_three_attempts(tmp_path: Path) -> None:
    async with place(tmp_path, retries=5) as house:
        house.breaks("500", also_two=True)
        told = await house.ask()
        assert len(told.attempts) == 3
        await house.settle()
