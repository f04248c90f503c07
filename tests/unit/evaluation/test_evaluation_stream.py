"""Streams: what is counted when requests go through a cache one after the other, and what is learnt on the way."""

from __future__ import annotations

import msgspec
import pytest

from headgate.cache.learning import Learning
from headgate.evaluation.evaluation import Course
from headgate.evaluation.model import plain_request
from headgate.evaluation.report import stream_report
from headgate.model.chat import ChatRequest
from tests.unit.evaluation.laboratory import EVERY, SameWords, ask, went

HOUR = 3_600.0


def sources(course: Course) -> list[str]:
    return [one.source for one in course.outcomes]


async def test_the_same_request_again_is_an_exact_hit_and_what_exact_match_would_have_had() -> None:
    course = await went([ask("Open on Sunday?", 1), ask("Open on Sunday?", 1), ask("Any parking?", 2)])
    assert sources(course) == ["model", "exact", "model"]
    assert [one.repeat for one in course.outcomes] == [one.known for one in course.outcomes] == [False, True, False]


async def test_nothing_is_found_in_another_tenant() -> None:
    course = await went([ask("Open?", 1), ask("Open?", 1, tenant="farm")])
    assert sources(course) == ["model", "model"]
    assert [one.known for one in course.outcomes] == [False, False]


async def test_a_hit_by_meaning_is_right_when_the_label_is_the_same() -> None:
    aliases = {"When do you open?": ("Opening hours?", 0.95), "Do you open?": ("Opening hours?", 0.91)}
    course = await went([ask("Opening hours?", 1), ask("When do you open?", 1), ask("Do you open?", 2)], aliases)
    assert sources(course) == ["model", "semantic", "semantic"]
    assert [one.right for one in course.outcomes] == [True, True, False]
    assert [one.judged for one in course.outcomes] == [None, (0.95, True), (0.91, False)]
    assert course.outcomes[2].near == "Opening hours?"


async def test_what_was_served_by_meaning_is_not_stored_under_its_own_wording() -> None:
    aliases = {"When?": ("Hours?", 0.95)}
    course = await went([ask("Hours?", 1), ask("When?", 1), ask("When?", 1)], aliases)
    assert sources(course) == ["model", "semantic", "semantic"]
    assert course.outcomes[2].repeat


async def test_a_near_candidate_that_was_not_served_is_judged_too() -> None:
    course = await went([ask("Hours?", 1), ask("When?", 1)], {"When?": ("Hours?", 0.6)})
    assert course.outcomes[1].source == "model"
    assert course.outcomes[1].judged == (0.6, True)


async def test_a_perfect_cache_knows_an_answer_in_any_wording() -> None:
    course = await went([ask("Hours?", 1), ask("When do you open?", 1)])
    assert [(one.repeat, one.known) for one in course.outcomes] == [(False, False), (False, True)]


async def test_time_is_that_of_the_file_and_answers_expire_in_it() -> None:
    requests = [ask("Open?", 1, at=at) for at in (0.0, 0.9 * HOUR, 1.1 * HOUR, 1.2 * HOUR)]
    course = await went(requests, exact_ttl=HOUR, semantic_ttl=HOUR)
    assert sources(course) == ["model", "exact", "model", "exact"]
    assert (
        [one.repeat for one in course.outcomes] == [one.known for one in course.outcomes] == [False, True, False, True]
    )


async def test_time_never_goes_back() -> None:
    course = await went([ask("Open?", 1, at=100.0), ask("Open?", 1, at=-50.0)])
    assert sources(course) == ["model", "exact"]


async def test_a_checked_hit_costs_a_call_and_stores_the_questions_own_answer() -> None:
    aliases = {"When?": ("Hours?", 0.95)}
    requests = [ask("Hours?", 1), ask("When?", 2), ask("When?", 2)]
    course = await went(requests, aliases, ration=EVERY, learning=Learning())
    assert sources(course) == ["model", "semantic", "exact"]
    assert [one.checked for one in course.outcomes] == [False, True, False]
    assert [one.right for one in course.outcomes] == [True, False, True]


async def test_what_a_check_finds_is_learnt_and_a_wrong_entry_withdrawn() -> None:
    learning = Learning()
    await went([ask("Hours?", 1), ask("When?", 2)], {"When?": ("Hours?", 0.95)}, ration=EVERY, learning=learning)
    (state,) = learning.states()
    assert (state.labels, state.checked, state.wrong) == (1, 1, 1)
    assert learning.withdrawn(state.scope, "request-0")


async def test_a_miss_with_a_candidate_teaches_for_nothing() -> None:
    learning = Learning()
    course = await went([ask("Hours?", 1), ask("When?", 2)], {"When?": ("Hours?", 0.6)}, learning=learning)
    assert learning.states()[0].labels == 1
    assert not any(one.checked for one in course.outcomes)


async def test_without_learning_nothing_is_checked() -> None:
    course = await went([ask("Hours?", 1), ask("When?", 2)], {"When?": ("Hours?", 0.95)}, ration=EVERY)
    assert not any(one.checked for one in course.outcomes)


async def test_the_same_seed_checks_the_same_hits() -> None:
    aliases = {f"When {n}?": ("Hours?", 0.95) for n in range(50)}
    requests = [ask("Hours?", 1), *(ask(text, 1) for text in aliases)]
    runs = [await went(requests, aliases, ration=EVERY, learning=Learning()) for _ in range(2)]
    assert [one.checked for one in runs[0].outcomes] == [one.checked for one in runs[1].outcomes]


async def test_texts_of_answers_are_judged_and_some_stay_undecided() -> None:
    aliases = {"When?": ("Hours?", 0.95), "Close?": ("Hours?", 0.92), "Price?": ("Hours?", 0.91)}
    answers = ["from nine to six", "nine to six from", "until six", "twelve euros"]
    requests = [ask(text, answer) for text, answer in zip(["Hours?", *aliases], answers, strict=True)]
    course = await went(requests, aliases)
    assert [one.right for one in course.outcomes] == [True, True, False, None]
    report = stream_report(course, max_error_rate=0.01, learning=False)
    assert (report.estimated, report.undecided, report.wrong_of_hits) == (True, 1, 0.5)
    assert (report.perfect, report.semantic_recall) == (None, None)


async def test_texts_of_far_candidates_are_not_compared() -> None:
    judge = SameWords()
    await went([ask("Hours?", "from nine"), ask("Dogs?", "no dogs")], {"Dogs?": ("Hours?", 0.05)}, judge=judge)
    assert judge.asked == []


async def test_requests_that_ask_for_variety_are_neither_served_nor_stored() -> None:
    warm = ChatRequest.parse({**plain_request("Tell me a joke.").body, "temperature": 1.0})
    request = msgspec.structs.replace(ask("Tell me a joke.", 1), chat=warm)
    course = await went([request, request])
    assert sources(course) == ["model", "model"]
    assert course.entries == 0


async def test_bytes_are_counted_beside_texts_and_answers() -> None:
    short = await went([ask(f"Question {n}?", n) for n in range(40)])
    long = await went([ask(f"Question {n}?" + " and so on" * 4, "a long answer " * 500 + str(n)) for n in range(40)])
    assert short.entries == long.entries == 40
    assert long.weight == pytest.approx(short.weight, rel=0.1)


async def test_an_empty_question_is_asked_like_any_other() -> None:
    course = await went([ask("", 1), ask("", 1), ask(" ", 2)])
    assert sources(course) == ["model", "exact", "model"]
