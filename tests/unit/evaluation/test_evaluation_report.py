"""The figures of a report: what they are shares of, and what is said when there is nothing to count."""

from __future__ import annotations

import pytest

from headgate.cache.cache import Miss
from headgate.cache.verdict import Judgement
from headgate.evaluation.evaluation import Course, Outcome, Ruling, Source, stated
from headgate.evaluation.report import pairs_lines, pairs_report, stream_lines, stream_report
from tests.unit.evaluation.laboratory import ask


def outcome(
    source: Source, *, right: bool = True, repeat: bool = False, known: bool = False, checked: bool = False
) -> Outcome:
    judged = (0.95, right) if source == "semantic" else None
    return Outcome(
        request=ask("Open?", 1),
        source=source,
        right=right,
        repeat=repeat,
        known=known,
        judged=judged,
        checked=checked,
        seconds=0.002,
    )


def course(*outcomes: Outcome, entries: int = 10, weight: int = 7_000) -> Course:
    return Course(outcomes=list(outcomes), entries=entries, weight=weight)


def test_pairs_are_told_in_all_and_by_kind() -> None:
    rulings = [
        Ruling(True, 0.95, True, "reworded"),
        Ruling(False, 0.40, True, "reworded"),
        Ruling(False, 0.10, False, "number"),
        Ruling(True, 0.90, False),
    ]
    report = pairs_report(rulings, max_error_rate=0.01)
    assert (report.pairs, report.same, report.auc) == (4, 2, 0.75)
    assert (report.served_same, report.served_different) == (0.5, 0.5)
    assert {kind: (one.pairs, one.served_same, one.served_different) for kind, one in report.by_kind.items()} == {
        "number": (1, None, 0.0),
        "reworded": (2, 0.5, None),
    }


def test_calibration_is_of_the_pairs_that_a_probability_decided() -> None:
    rulings = [Ruling(True, 0.9, True, judged=True), Ruling(False, 0.0, True), Ruling(True, 1.0, True)]
    report = pairs_report(rulings, max_error_rate=0.01)
    assert (report.judged, report.calibration_error) == (1, pytest.approx(0.1))


@pytest.mark.parametrize(
    ("reason", "confidence"), [("confidence", 0.8), ("withdrawn", 0.8), ("script", 0.8), ("similarity", None)]
)
def test_what_was_not_read_has_no_probability(reason: str, confidence: float | None) -> None:
    judgement = Judgement(serve=False, confidence=0.8, reason=reason, prior=0.8)
    assert stated(Miss(judgement)) == confidence
    assert stated(Miss()) is None


def test_one_pair_has_no_area_and_a_wide_interval() -> None:
    report = pairs_report([Ruling(True, 0.95, True)], max_error_rate=0.01)
    assert (report.auc, report.served_different, report.served_different_interval) == (None, None, None)
    assert report.served_same_interval == (pytest.approx(0.025), 1.0)


def test_kinds_of_a_file_reach_no_terminal_unread() -> None:
    told = "\n".join(pairs_lines(pairs_report([Ruling(True, 0.9, True, "\x1b[2Jred")], max_error_rate=0.01)))
    assert "?[2Jred" in told
    assert "\x1b" not in told


def test_recall_is_of_what_meaning_alone_can_find() -> None:
    outcomes = [
        *(outcome("model") for _ in range(4)),
        *(outcome("exact", repeat=True, known=True) for _ in range(3)),
        outcome("semantic", known=True),
        outcome("model", known=True),
        outcome("semantic", right=False),
    ]
    report = stream_report(course(*outcomes), max_error_rate=0.01, learning=True)
    assert (report.requests, report.perfect, report.exact, report.hits) == (10, 0.5, 0.3, 0.5)
    assert (report.semantic_recall, report.recallable) == (0.5, 2)
    assert report.wrong_of_hits == 0.2
    assert (report.by_tier["exact"].hits, report.by_tier["semantic"].hits, report.by_tier["semantic"].wrong) == (
        3,
        2,
        1,
    )


def test_a_repetition_that_was_served_by_meaning_counts_as_what_exact_match_has() -> None:
    """A wording that is served by meaning is not stored: its repetitions are hits by meaning, and no more recall than exact."""
    outcomes = [outcome("model"), outcome("semantic", known=True), outcome("semantic", repeat=True, known=True)]
    report = stream_report(course(*outcomes), max_error_rate=0.01, learning=True)
    assert (report.semantic_recall, report.recallable) == (1.0, 1)


def test_checks_are_counted_as_calls() -> None:
    report = stream_report(course(outcome("semantic", checked=True)), max_error_rate=0.01, learning=True)
    assert report.shadow_calls == 1


def test_lookups_and_bytes_are_those_of_one() -> None:
    report = stream_report(course(outcome("model"), outcome("model")), max_error_rate=0.01, learning=True)
    assert report.lookups_per_s == pytest.approx(500)
    assert report.lookup_p50_ms == pytest.approx(2.0)
    assert report.bytes_per_entry == 700


def test_lookups_that_others_made_quicker_are_not_told() -> None:
    report = stream_report(course(outcome("model")), max_error_rate=0.01, learning=True, timed=False)
    assert (report.lookups_per_s, report.lookup_p50_ms) == (None, None)


def test_where_nothing_was_served_nothing_is_said_of_it() -> None:
    report = stream_report(course(outcome("model"), entries=0, weight=0), max_error_rate=0.01, learning=False)
    assert (report.wrong_of_hits, report.semantic_recall, report.calibration_error, report.bytes_per_entry) == (
        None,
    ) * 4
    assert "wrong, of hits             -" in "\n".join(stream_lines(report))
