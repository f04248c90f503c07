"""One answer for several: nothing of it is lost, given out twice or given to another."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.model.money import Rare, Usage
from headgate.providers.shares import apportioned, split, split_usage, taken_apart
from headgate.providers.usage import normalised

weights = st.lists(st.integers(1, 10_000), min_size=1, max_size=40)
counts = st.integers(0, 2**31)


@given(counts, weights)
def test_shares_sum_to_the_count_and_none_is_a_whole_token_off(count: int, by: list[int]) -> None:
    shares = apportioned(count, by)
    assert sum(shares) == count
    for share, weight in zip(shares, by, strict=True):
        assert count * weight // sum(by) <= share <= -(-count * weight // sum(by))


@given(counts, st.integers(1, 40))
def test_equals_get_equal_shares_but_for_one_token(count: int, callers: int) -> None:
    shares = apportioned(count, [7] * callers)
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True)


def test_the_largest_remainders_get_what_is_left() -> None:
    assert apportioned(10, [1, 1, 1]) == [4, 3, 3]
    assert apportioned(10, [15, 25, 60]) == [2, 2, 6]
    assert apportioned(1, [1, 5, 3]) == [0, 1, 0]
    assert apportioned(0, [1, 2]) == [0, 0]


@given(counts, weights)
def test_what_each_pays_for_sums_to_what_the_provider_counted(count: int, by: list[int]) -> None:
    for reported in ({"prompt_tokens": count, "total_tokens": count}, {"input_tokens": count, "output_tokens": 0}):
        each = [normalised(share) for share in split(reported, by)]
        assert sum(used.prompt_tokens for used in each if used is not None) == count
        assert sum(used.completion_tokens for used in each if used is not None) == 0


def test_details_are_split_too_and_what_is_no_count_is_said_to_all() -> None:
    reported = {
        "prompt_tokens": 5,
        "details": {"cached_tokens": 3, "kind": "text"},
        "cost": 0.5,
        "tier": None,
        "odd": -1,
    }
    one, other = split(reported, [1, 1])
    assert one == {
        "prompt_tokens": 3,
        "details": {"cached_tokens": 2, "kind": "text"},
        "cost": 0.25,
        "tier": None,
        "odd": -1,
    }
    assert other["prompt_tokens"] == 2
    assert other["details"]["cached_tokens"] == 1


@given(counts, counts, weights)
def test_usage_that_was_read_already_is_split_alike(prompt: int, images: int, by: list[int]) -> None:
    used = Usage(prompt_tokens=prompt, estimated=True, rare=Rare(image_input=images))
    each = split_usage(used, by)
    assert sum(share.prompt_tokens for share in each) == prompt
    assert sum(share.rare.image_input for share in each if share.rare is not None) == images
    assert all(share.estimated for share in each)


def rows(*indexes: Any) -> dict[str, Any]:
    return {"data": [{"index": index, "embedding": [place]} for place, index in enumerate(indexes)], "model": "m"}


def test_rows_go_by_their_index_to_whose_they_are() -> None:
    one, other = taken_apart(rows(2, 0, 1), [1, 2], [1, 1]) or []
    assert one == {"data": [{"index": 0, "embedding": [1]}], "model": "m"}
    assert other["data"] == [{"index": 0, "embedding": [2]}, {"index": 1, "embedding": [0]}]


def test_rows_without_an_index_go_as_they_came() -> None:
    one, other = taken_apart(rows(None, None), [1, 1], [1, 1]) or []
    assert [one["data"][0]["embedding"], other["data"][0]["embedding"]] == [[0], [1]]


@pytest.mark.parametrize(
    "answer",
    [
        rows(0),
        rows(0, 1, 2),
        rows(0, 0),
        rows(0, 2),
        rows(0, None),
        rows(0, True),
        rows(0, "1"),
        rows(0, [1]),
        {},
        {"data": 2},
    ],
)
def test_an_answer_without_a_vector_for_each_input_is_given_to_nobody(answer: dict[str, Any]) -> None:
    assert taken_apart(answer, [1, 1], [1, 1]) is None
