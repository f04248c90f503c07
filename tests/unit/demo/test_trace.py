"""The bundled traffic keeps the promises that the demo's figures rest on."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from headgate.demo.trace import BUDGET_TENANT, KINDS, MIDDLE, SECONDS, TENANTS, TraceRequest, load

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def trace() -> list[TraceRequest]:
    return load()


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("rebuilt")
    packed = []
    for name in ("first.gz", "second.gz"):
        command = [sys.executable, str(ROOT / "tools" / "build_trace.py"), "--out", str(folder / name)]
        subprocess.run(command, check=True)
        packed.append((folder / name).read_bytes())
    return packed


def asked_per_answer(trace: list[TraceRequest]) -> Counter[str]:
    return Counter(request.answer for request in trace)


def test_the_trace_is_large_and_in_the_order_of_time(trace: list[TraceRequest]) -> None:
    moments = [request.t for request in trace]
    assert len(trace) >= 2_000
    assert moments == sorted(moments)
    assert 0.0 <= moments[0] < moments[-1] <= SECONDS


def test_traffic_flows_on_around_the_middle(trace: list[TraceRequest]) -> None:
    """An outage that a driver puts there must meet requests on both sides, and no burst."""
    around = [request for request in trace if MIDDLE - 1 <= request.t <= MIDDLE + 2]
    assert {request.tenant for request in around} == set(TENANTS)
    assert all(request.kind != "burst" for request in around)
    assert max(b.t - a.t for a, b in pairwise(around)) < 0.1


def test_the_same_words_have_the_same_answer_within_a_tenant(trace: list[TraceRequest]) -> None:
    """Case and surrounding spaces do not make another wording."""
    answers = defaultdict(set)
    for request in trace:
        answers[request.tenant, " ".join(request.text.casefold().split())].add(request.answer)
    assert [key for key, labels in answers.items() if len(labels) > 1] == []


def test_every_answer_belongs_to_one_tenant(trace: list[TraceRequest]) -> None:
    assert all(request.answer.startswith(f"{request.tenant}:") for request in trace)
    assert {request.tenant for request in trace} == set(TENANTS)


def test_a_tenant_has_one_system_prompt(trace: list[TraceRequest]) -> None:
    assert len({(request.tenant, request.system) for request in trace}) == len(TENANTS)


def test_the_same_words_are_asked_at_several_tenants(trace: list[TraceRequest]) -> None:
    tenants = defaultdict(set)
    for request in trace:
        tenants[request.text].add(request.tenant)
    assert sum(len(names) > 1 for names in tenants.values()) >= 30


def test_every_kind_occurs(trace: list[TraceRequest]) -> None:
    count = Counter(request.kind for request in trace)
    assert set(count) == set(KINDS)
    assert min(count.values()) >= 40
    assert sum(number for kind, number in count.items() if kind.startswith("lookalike")) >= 250


def test_kinds_say_what_happened_before(trace: list[TraceRequest]) -> None:
    """A repeat was seen, new words were not, and a look-alike has a sibling with another answer."""
    texts: set[tuple[str, str]] = set()
    answers: set[str] = set()
    siblings: defaultdict[str, set[str]] = defaultdict(set)
    for request in trace:
        seen = (request.tenant, request.text) in texts
        if request.kind == "exact_repeat":
            assert seen
        elif request.kind == "reworded":
            assert not seen
            assert request.answer in answers
        elif request.kind == "novel":
            assert request.answer not in answers
        elif request.kind.startswith("lookalike"):
            assert not seen
            assert siblings[request.family] - {request.answer}
        texts.add((request.tenant, request.text))
        answers.add(request.answer)
        siblings[request.family].add(request.answer)


def test_both_sides_of_many_families_return(trace: list[TraceRequest]) -> None:
    count = asked_per_answer(trace)
    sides = defaultdict(list)
    for answer, number in count.items():
        if "/" in answer:
            sides[answer.partition("/")[0]].append(number)
    returning = [family for family, numbers in sides.items() if sum(number >= 2 for number in numbers) >= 2]
    assert len(returning) >= 40
    assert {family.partition(":")[0] for family in returning} == set(TENANTS)


def test_bursts_are_many_requests_at_one_instant(trace: list[TraceRequest]) -> None:
    groups = defaultdict(list)
    for request in trace:
        if request.kind == "burst":
            groups[request.t].append(request)
    assert len(groups) >= 10
    for group in groups.values():
        assert 10 <= len(group) <= 40
        assert len({request.answer for request in group}) == 1
        alike = Counter(request.text for request in group).most_common(1)[0][1]
        assert len(group) / 2 <= alike < len(group)
        assert {request.stream for request in group} == {True, False}


def test_about_a_sixth_is_streamed_and_few_name_a_model(trace: list[TraceRequest]) -> None:
    assert 0.12 <= sum(request.stream for request in trace) / len(trace) <= 0.20
    assert 10 <= sum(request.model != "auto" for request in trace) <= len(trace) // 20


def test_popularity_falls_steeply(trace: list[TraceRequest]) -> None:
    """The top tenth of the questions makes a third of the requests or more."""
    count = sorted(asked_per_answer(trace).values(), reverse=True)
    assert sum(count[: len(count) // 10]) > len(trace) / 3


def test_hard_questions_are_long_and_most_come_from_one_tenant(trace: list[TraceRequest]) -> None:
    hard = [request for request in trace if request.kind == "hard"]
    assert all(60 <= len(request.text.split()) <= 270 for request in hard)
    assert Counter(request.tenant for request in hard).most_common(1)[0][0] == BUDGET_TENANT
    assert len({request.answer for request in hard if request.tenant == BUDGET_TENANT}) >= 40


def test_the_builder_gives_the_same_bytes_twice(rebuilt: list[bytes]) -> None:
    assert rebuilt[0] == rebuilt[1]


def test_the_shipped_trace_is_what_the_builder_writes(rebuilt: list[bytes]) -> None:
    """Compared unpacked, because another version of zlib may pack the same lines otherwise."""
    shipped = (ROOT / "src" / "headgate" / "demo" / "trace.jsonl.gz").read_bytes()
    assert gzip.decompress(rebuilt[0]) == gzip.decompress(shipped)
    assert len(shipped) < 300_000
