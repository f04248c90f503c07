"""Fault names and the fault script."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.simulator.faults import KINDS, Fault, UnknownFaultError, describe_faults, fault_of_model, parse_fault
from headgate.simulator.script import Script, ScriptError, read_rules


def outcomes(source: str, calls: int, *, model: str = "any", path: str = "/chat/completions") -> str:
    """Which of the first calls fail, as a row of marks."""
    script = Script(read_rules(source))
    return "".join("x" if script.next_fault(model, path) else "." for _ in range(calls))


def test_a_fault_has_a_default_amount_or_the_given_one() -> None:
    assert parse_fault("429") == Fault("429", 1)
    assert parse_fault(" slow-first-byte:0.5 ") == Fault("slow-first-byte", 0.5)


@pytest.mark.parametrize("text", ["", "nonsense", "429:", "429:soon", "429:-1", "429:nan", "hang:3", "cut:1e99"])
def test_a_wrong_fault_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(UnknownFaultError, match="fault"):
        parse_fault(text)


def test_a_model_name_may_ask_for_a_fault() -> None:
    assert fault_of_model("sim-cut:2") == Fault("cut", 2)
    assert fault_of_model("sim-large") is None
    assert fault_of_model("429") is None


def test_the_description_names_every_fault() -> None:
    lines = describe_faults().splitlines()
    assert [line.split()[0].removesuffix("[:N]") for line in lines] == list(KINDS)


@pytest.mark.parametrize(
    ("source", "row"),
    [
        ("[{fault: 500}]", "xxxxxx"),
        ("[{fault: 500, calls: {from: 2, to: 3}}]", ".xx..."),
        ("[{fault: 500, calls: {to: 2}}]", "xx...."),
        ("[{fault: 500, calls: {from: 5}}]", "....xx"),
        ("[{fault: 500, every: 3}]", "..x..x"),
        ("[{fault: 500, every: 2, calls: {from: 3}}]", "...x.x"),
        ("[{fault: 500, match: {model: 'gpt-*'}}]", "......"),
        ("[{fault: 500, match: {model: 'a?y', path: /v1/chat/completions}}]", "xxxxxx"),
        ("[{fault: 500, match: {path: /v1/messages}}]", "......"),
        ("[{fault: 500, probability: 0}, {fault: 529, probability: 1, every: 2}]", ".x.x.x"),
        ("", "......"),
    ],
)
def test_a_rule_chooses_its_calls(source: str, row: str) -> None:
    assert outcomes(source, 6) == row


def test_an_unquoted_fault_with_amount_is_not_a_base_60_number() -> None:
    assert Script(read_rules("- fault: 429:2")).next_fault("any", "/messages") == Fault("429", 2)


def test_the_first_rule_that_fires_decides_and_the_others_count_on() -> None:
    script = Script(read_rules("[{fault: 429, calls: {to: 1}}, {fault: 500, calls: {from: 2, to: 2}}]"))
    assert [script.next_fault("any", "/messages") for _ in range(3)] == [Fault("429", 1), Fault("500", 0), None]


def test_a_time_span_counts_from_the_start_of_the_script() -> None:
    now = [100.0]
    script = Script(read_rules("[{fault: 500, seconds: {from: 5, to: 7}}]"), now=lambda: now[0])
    row = []
    for now[0] in (104.9, 105.0, 106.9, 107.0):
        row.append(script.next_fault("any", "/messages") is not None)
    assert row == [False, True, True, False]
    script.restart()
    now[0] = 112.0
    assert script.next_fault("any", "/messages")


def test_chance_is_seeded_and_begins_again_on_restart() -> None:
    script = Script(read_rules("[{fault: 500, probability: 0.5}]"), seed=3)
    first = [script.next_fault("any", "/messages") for _ in range(50)]
    script.restart()
    assert first == [script.next_fault("any", "/messages") for _ in range(50)]
    assert 10 < sum(fault is not None for fault in first) < 40


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("[{fault: 500}, {fault: nonsense}]", r"\$\[1\]\.fault"),
        ("[{fault: 500, calls: {from: zero}}]", r"\$\[0\]\.calls\.from"),
        ("[{fault: 500, calls: {from: 0}}]", r"\$\[0\]\.calls\.from"),
        ("[{fault: 500, evry: 2}]", "evry"),
        ("[{match: {}}]", "fault"),
        ("fault: 500", "array"),
        ("[{fault: 500", "line 1"),
        ("[{fault: 500, probability: 2}]", r"\$\[0\]\.probability"),
    ],
)
def test_a_wrong_script_is_refused_naming_the_place(source: str, place: str) -> None:
    with pytest.raises(ScriptError, match=place):
        read_rules(source)


@given(st.binary(max_size=80))
def test_any_script_is_read_or_refused(source: bytes) -> None:
    try:
        read_rules(source)
    except ScriptError:
        return
