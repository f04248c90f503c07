"""Logs of several makes: what can be used becomes a request, and what cannot is counted and harms nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headgate.evaluation.evaluation import Request
from headgate.evaluation.files import BadFile
from headgate.evaluation.logs import Log, read_log
from headgate.model.money import Price, from_usd

PRICES = {"small": Price(input=from_usd("1"), output=from_usd("2"))}
"""USD for a million tokens."""

PLAIN = {"t": 10, "text": "When do you close?", "answer": "At six in the evening."}


def read(folder: Path, *lines: dict[str, Any] | str) -> Log:
    path = folder / "log.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return read_log(path, PRICES.get)


def one(folder: Path, **line: Any) -> Request:
    return read(folder, {**PLAIN, **line}).requests[0]


def test_a_time_a_question_and_an_answer_are_enough(tmp_path: Path) -> None:
    request = one(tmp_path)
    assert (request.at, request.tenant, request.chat.question) == (10.0, "default", "When do you close?")
    assert (request.answer.text, request.answer.label, request.cost) == ("At six in the evening.", False, None)


@pytest.mark.parametrize(
    ("name", "value", "seconds"),
    [
        ("at", 1_795_176_000.5, 1_795_176_000.5),
        ("timestamp", 1_795_176_000_500, 1_795_176_000.5),
        ("timestamp", "2026-11-20T12:00:00Z", 1_795_176_000.0),
        ("timestamp", "2026-11-20T13:00:00+01:00", 1_795_176_000.0),
        ("timestamp", "2026-11-20 12:00:00", 1_795_176_000.0),
    ],
)
def test_times_come_in_several_forms(tmp_path: Path, name: str, value: object, seconds: float) -> None:
    line = {key: held for key, held in PLAIN.items() if key != "t"}
    assert read(tmp_path, {**line, name: value}).requests[0].at == seconds


@pytest.mark.parametrize(
    "question",
    [
        {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Now?"}]},
        {"prompt": "Now?"},
        {"request": {"model": "auto", "messages": [{"role": "user", "content": "Now?"}]}},
        {"body": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Now?"}]}]}},
    ],
)
def test_questions_come_in_several_forms(tmp_path: Path, question: dict[str, Any]) -> None:
    line = {"t": 1, "answer": "Not yet, I fear.", **question}
    assert read(tmp_path, line).requests[0].chat.question == "Now?"


@pytest.mark.parametrize(
    "answer",
    [
        "Not yet, I fear.",
        {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Not yet, I fear."}}]},
        {"content": [{"type": "text", "text": "Not yet, "}, {"type": "text", "text": "I fear."}]},
        {"role": "assistant", "content": "Not yet, I fear."},
    ],
)
def test_answers_come_in_several_forms(tmp_path: Path, answer: object) -> None:
    assert read(tmp_path, {"t": 1, "text": "Now?", "response": answer}).requests[0].answer.text == "Not yet, I fear."


def test_answers_of_one_word_throughout_are_labels(tmp_path: Path) -> None:
    lines = [{**PLAIN, "answer": answer} for answer in ("closing/6", "closing/7", 8)]
    assert all(request.answer.label for request in read(tmp_path, *lines).requests)


def test_a_short_answer_among_texts_is_a_text(tmp_path: Path) -> None:
    assert not any(one.answer.label for one in read(tmp_path, PLAIN, {**PLAIN, "answer": "Yes."}).requests)


def test_requests_are_taken_in_the_order_of_time(tmp_path: Path) -> None:
    found = read(tmp_path, {**PLAIN, "t": 3}, {**PLAIN, "t": 1}, {**PLAIN, "t": 2})
    assert [request.at for request in found.requests] == [1, 2, 3]


@pytest.mark.parametrize("cost", [0.0015, "0.0015", "$0.0015"])
def test_a_cost_is_in_dollars(tmp_path: Path, cost: object) -> None:
    assert one(tmp_path, cost=cost).cost == 1_500_000


def test_our_own_log_tells_nano_dollars_and_what_an_answer_from_stock_saved(tmp_path: Path) -> None:
    assert one(tmp_path, event="call", cost=700, saved=0).cost == 700
    assert one(tmp_path, event="call", source="exact", saved=900).cost == 900


def test_without_a_cost_the_price_of_the_model_counts(tmp_path: Path) -> None:
    usage = {"prompt_tokens": 1_000, "completion_tokens": 500}
    request = one(tmp_path, model="small", usage=usage)
    assert (request.cost, request.tokens) == (2_000_000, 1_500)


def test_without_usage_tokens_are_estimated(tmp_path: Path) -> None:
    request = one(tmp_path, model="small")
    assert request.tokens > 5
    assert 0 < (request.cost or 0) < 100_000


def test_what_nobody_knows_the_cost_of_is_counted(tmp_path: Path) -> None:
    assert read(tmp_path, {**PLAIN, "model": "small"}, {**PLAIN, "model": "unheard-of"}, PLAIN).unpriced == 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"t": 1, "text": ', "not JSON"),
        ("[1, 2]", "not a JSON object"),
        ({"event": "records_dropped", "count": 3}, "no answer"),
        ({"t": 1, "answer": "x y"}, "no messages, text or prompt"),
        ({"text": "x", "answer": "x y"}, "no time (t, at, timestamp)"),
        ({**PLAIN, "t": True}, "no time (t, at, timestamp)"),
        ({**PLAIN, "t": 10**400}, "no time (t, at, timestamp)"),
        ({**PLAIN, "t": "soon"}, "the time is not a date"),
        ({**PLAIN, "messages": [{"role": "ghost"}], "text": None}, "the messages are not a chat request"),
        ({**PLAIN, "status": 503}, "the call had failed"),
        ({**PLAIN, "cost": "a lot"}, "the cost is not an amount in USD"),
        ({**PLAIN, "cost": -1}, "the cost is not an amount in USD"),
        ({**PLAIN, "cost": "1e999999999"}, "the cost is not an amount in USD"),
        ({**PLAIN, "cost": "NaN"}, "the cost is not an amount in USD"),
    ],
)
def test_a_line_that_cannot_be_used_is_counted_and_harms_none(tmp_path: Path, line: Any, reason: str) -> None:
    found = read(tmp_path, PLAIN, line, PLAIN, line)
    assert (len(found.requests), found.skipped) == (2, {reason: (2, 2)})


def test_a_log_without_any_usable_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="no line of it can be used: line 1: not JSON; line 2: no answer"):
        read(tmp_path, "hello", {"t": 1, "text": "x"}, "hello")
    with pytest.raises(BadFile, match="the file is empty"):
        read(tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = [
    "t",
    "at",
    "timestamp",
    "tenant",
    "messages",
    "text",
    "request",
    "answer",
    "response",
    "cost",
    "model",
    "usage",
]


@given(line=st.dictionaries(st.sampled_from([*NAMES, "event", "status", "temperature"]), json_values))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_line_breaks_the_reading_of_the_others(line: dict[str, Any], tmp_path: Path) -> None:
    found = read(tmp_path, PLAIN, {**PLAIN, **line}, line)
    assert len(found.requests) + sum(count for count, _ in found.skipped.values()) == 3
