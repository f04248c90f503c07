"""The static first stage: it spares the model where nothing is near, and is silent when in doubt."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.cache.reading import EmbedderUnavailable
from headgate.cache.shipped import SHIPPED
from headgate.cache.static import FirstStage, StaticEmbedder
from headgate.cache.wordpiece import WordPiece


@pytest.fixture(scope="module")
def shipped() -> StaticEmbedder:
    return StaticEmbedder.load()


def toy() -> StaticEmbedder:
    """Four words, each in its own direction."""
    return StaticEmbedder(
        WordPiece(["[CLS]", "[SEP]", "[UNK]", "a", "b", "c", "d"]),
        np.vstack([np.zeros((3, 4)), 100 * np.eye(4)]).astype(np.int8),
        "toy",
    )


def test_a_vector_has_length_one_and_sums_up_the_words(shipped: StaticEmbedder) -> None:
    one, turned = shipped.embed("the price of gold"), shipped.embed("gold of the price")
    assert one is not None
    assert turned is not None
    assert one.shape == (shipped.dimensions,)
    assert float(np.linalg.norm(one)) == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(one, turned, atol=1e-6)


def known(embedder: StaticEmbedder, *texts: str, **bounds: int) -> FirstStage:
    """A place that was seen empty, and what came there since."""
    stage = FirstStage(embedder, **bounds)
    stage.empty("here")
    for text in texts:
        stage.add("here", text)
    return stage


def test_a_text_without_words_has_no_vector_and_everything_may_be_near_it(shipped: StaticEmbedder) -> None:
    assert shipped.embed("") is None
    assert known(shipped, "How do I reset my password?").near("here", "")


def test_a_rewording_is_near_and_an_unrelated_question_is_not(shipped: StaticEmbedder) -> None:
    stage = known(shipped, "How do I reset my password?")
    assert stage.near("here", "I forgot my password, how can I reset it?")
    assert not stage.near("here", "Which mountain is the tallest in Europe?")


def test_nothing_is_near_in_a_place_that_is_empty() -> None:
    assert not known(toy()).near("here", "a")


def test_one_place_tells_nothing_of_another() -> None:
    stage = known(toy(), "a")
    stage.empty("there")
    assert not stage.near("there", "a")


def test_in_a_place_that_nobody_has_seen_empty_everything_is_near() -> None:
    stage = FirstStage(toy())
    assert stage.near("here", "a")
    stage.add("here", "b")
    assert stage.near("here", "a")


def test_what_came_before_a_place_was_called_empty_is_not_forgotten() -> None:
    """Who looked may have looked before it came, and say so after."""
    stage = FirstStage(toy())
    stage.add("here", "a")
    stage.empty("here")
    assert stage.near("here", "a")
    stage = known(toy(), "a")
    stage.empty("here")
    assert stage.near("here", "a")


def test_in_a_crowded_place_everything_is_near_and_takes_no_memory() -> None:
    stage = known(toy(), "a", most=1)
    assert not stage.near("here", "d")
    held = stage.bytes
    stage.add("here", "a")
    assert stage.near("here", "d")
    assert stage.bytes < held


def test_the_place_that_was_longest_without_a_question_makes_room_and_is_unknown_again() -> None:
    stage = known(toy(), "a", most_bytes=1_000)
    stage.empty("there")
    assert not stage.near("here", "b")
    stage.empty("elsewhere")
    assert not stage.near("here", "b")
    assert stage.near("there", "b")
    assert stage.bytes <= 1_000


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("xy"), st.sampled_from(["", "a", "b", "c", "d"])), max_size=40))
def test_it_finds_at_least_what_a_list_would_find_and_no_more_where_it_knows_the_place(
    plan: list[tuple[str, str]],
) -> None:
    """Any order of what comes, and of looks at a place that find nothing there (no text)."""
    stage, there, known = FirstStage(toy()), dict[str, set[str]](x=set(), y=set()), dict[str, bool]()
    for place, text in plan:
        if text:
            stage.add(place, text)
            there[place].add(text)
            known.setdefault(place, False)
        elif not there[place]:
            stage.empty(place)
            known.setdefault(place, True)
    for place, held in there.items():
        near = {text for text in "abcd" if stage.near(place, text)}
        assert near == (held if known.get(place) else set("abcd"))


def test_an_altered_table_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(SHIPPED, tmp_path / "model"))
    with (folder / "static.int8.npy").open("ab") as table:
        table.write(b"more")
    with pytest.raises(EmbedderUnavailable, match=r"static\.int8\.npy is altered"):
        StaticEmbedder.load(folder)
