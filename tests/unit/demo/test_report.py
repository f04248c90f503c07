"""The demo's report: what is counted as wrong, who was refused, and that the figures are the ones of the providers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from headgate.demo.demo import as_json
from headgate.demo.replay import Outcome, body_of
from headgate.demo.report import Spend, lines, make_report
from headgate.demo.setting import BUDGET_USD, CHEAP, RICH, budget_of, config, nano
from headgate.demo.trace import BUDGET_TENANT, Kind, TraceRequest

SPEND = Spend(without=1_000, without_cache=500, with_headgate=200, journal=230, lost=30)


def request(answer: str, kind: Kind = "novel", tenant: str = "kilnbase", **more: Any) -> TraceRequest:
    return TraceRequest(t=0.0, tenant=tenant, text=f"{answer}?", system="s", answer=answer, kind=kind, **more)


def outcome(asked: TraceRequest, content: str, source: str = "live", **more: Any) -> Outcome:
    return Outcome(request=asked, content=content, source=source, **{"status": 200, "seconds": 0.1, **more})


def report_of(*outcomes: Outcome, straight: tuple[Outcome, ...] = ()) -> Any:
    return make_report(outcomes, straight, spend=SPEND, provider_calls=3, seconds=2.0, died=False)


def test_an_answer_is_right_when_the_provider_says_it_to_any_wording_of_that_label() -> None:
    straight = (outcome(request("a"), "A"), outcome(request("a"), "A, worded otherwise"), outcome(request("b"), "B"))
    report = report_of(
        outcome(request("a"), "A"),
        outcome(request("a", "reworded"), "A, worded otherwise", "semantic"),
        outcome(request("b", "lookalike_number"), "A", "semantic"),
        outcome(request("b", "exact_repeat"), "B", "exact"),
        straight=straight,
    )
    assert report.wrong == {"lookalike_number": 1}
    assert report.lookalikes == 1
    assert report.by_source == {"live": 1, "coalesced": 0, "coalesced-semantic": 0, "exact": 1, "semantic": 2}
    assert report.from_stock == 3


def test_another_tenants_right_answer_is_a_wrong_one() -> None:
    straight = (outcome(request("a"), "A"),)
    assert report_of(outcome(request("a", tenant="tollgrove"), "A", "exact"), straight=straight).wrong == {"novel": 1}


def test_an_answer_that_a_budget_has_shortened_is_right_as_far_as_it_goes_and_counted() -> None:
    straight = (outcome(request("a"), "A long answer.\n [ref 1]"),)
    report = report_of(
        outcome(request("a"), "A long", shortened=True),
        outcome(request("a"), "A long ans\n [ref 1]", shortened=True),
        outcome(request("a", "hard"), "A short\n [ref 1]", shortened=True),
        outcome(request("a", "reworded"), "A long\n [ref 2]", shortened=True),
        outcome(request("a", "exact_repeat"), "A long", "exact"),
        straight=straight,
    )
    assert report.shortened == 4
    assert report.wrong == {"hard": 1, "reworded": 1, "exact_repeat": 1}
    assert "4 answers cut short" in "\n".join(lines(report, cap=BUDGET_USD))


def test_what_was_not_answered_is_neither_right_nor_wrong() -> None:
    report = report_of(
        outcome(request("a"), "", "", status=402, error="budget_exceeded"),
        outcome(request("a"), "", "", status=402, error="budget_held"),
        outcome(request("a"), "", "", status=0, error="connection refused"),
        outcome(request("a"), "", "", status=503),
        outcome(request("a"), "half of", broken=True),
    )
    assert report.requests == 5
    assert report.answered == 0
    assert report.wrong == {}
    assert report.budget_refusals == 2
    assert report.errors == {"connection refused": 1, "status 503": 1, "status 200": 1}


def test_percentiles_are_of_the_answers_of_each_source() -> None:
    straight = (outcome(request("a"), "A"),)
    outcomes = [outcome(request("a"), "A", "exact", seconds=number / 1_000) for number in range(1, 101)]
    latency = report_of(*outcomes, straight=straight).latency
    assert (latency["exact"].requests, latency["exact"].p50, latency["exact"].p95, latency["exact"].p99) == (
        100,
        51.0,
        96.0,
        100.0,
    )
    assert latency["live"].requests == 0


def test_the_text_says_what_was_saved_and_what_was_lost() -> None:
    report = msgspec.structs.replace(report_of(), gateway_died=True)
    text = "\n".join(lines(report, cap=BUDGET_USD))
    assert "80.0% of the first, 60.0% of the second" in text
    assert "(difference 0.00000003, of which 0.00000003 are holds of lost calls)" in text
    assert "The gateway died during the replay" in text
    assert msgspec.json.decode(as_json(report))["spend"]["lost"] == 30


def test_a_report_of_nothing_divides_by_nothing() -> None:
    nothing = Spend(without=0, without_cache=0, with_headgate=0, journal=0, lost=0)
    assert "  saved" in "\n".join(lines(msgspec.structs.replace(report_of(), spend=nothing), cap=BUDGET_USD))


@pytest.mark.parametrize(("model", "price"), [(CHEAP, 150 + 2 * 600), (RICH, 2_500 + 2 * 10_000)])
def test_tokens_are_priced_as_the_configuration_says(model: str, price: int) -> None:
    assert nano(model, 1, 2) == price
    assert config(dict.fromkeys((CHEAP, RICH), "http://127.0.0.1:1"))["models"][model]["max_output"] == 512


def test_one_tenant_has_a_budget_to_run_into() -> None:
    assert budget_of(BUDGET_TENANT) == {"hour": BUDGET_USD}
    assert budget_of("tollgrove") == {"hour": "10.00"}


def test_a_request_of_the_trace_becomes_a_body_with_what_it_names() -> None:
    assert body_of(request("a")) == {
        "model": "auto",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a?"}],
    }
    assert body_of(request("a", stream=True, max_tokens=5), "m") == {
        **body_of(request("a")),
        "model": "m",
        "stream": True,
        "max_tokens": 5,
    }
