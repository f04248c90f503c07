"""Which questions gain by the better model: the measures, the fit, and the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headgate.routing.uplift import Uplift, UpliftUnavailable
from headgate.routing.uplift_curves import Graded, apgr, cpt, qualities
from headgate.routing.uplift_fit import ANYWHERE, TooFew, fitted


def graded(cheap, rich, *, weight=None, kind=None) -> Graded:
    count = len(cheap)
    return Graded(
        np.array(cheap, float),
        np.array(rich, float),
        np.ones(count) if weight is None else np.array(weight, float),
        np.zeros(count, np.int64) if kind is None else np.array(kind, np.int64),
        np.full(count, 100.0),
    )


def test_an_order_that_knows_nothing_gains_half_and_a_perfect_one_gains_first() -> None:
    rows = graded([0, 1, 0, 1], [1, 1, 1, 1])
    assert apgr(np.zeros(4), rows) == pytest.approx(0.5)
    perfect = np.array([1.0, 0, 1, 0])
    assert qualities(perfect, rows).tolist() == [0.5, 0.75, 1.0, 1.0, 1.0]
    assert apgr(perfect, rows) == pytest.approx(0.7)
    assert (cpt(perfect, rows, 0.5), cpt(perfect, rows, 0.8)) == (0.25, 0.5)
    assert apgr(-perfect, rows) == pytest.approx(0.3)


def test_ties_get_the_mean_of_all_their_orders() -> None:
    rows = graded([0, 1], [1, 1])
    assert qualities(np.zeros(2), rows).tolist() == [0.5, 0.75, 1.0]


def test_where_neither_is_better_there_is_nothing_to_measure() -> None:
    assert apgr(np.arange(3.0), graded([1, 0, 1], [0, 1, 1])) is None


def test_one_known_answer_a_row_weighted_by_its_propensity_tells_the_same_as_both() -> None:
    chance = np.random.default_rng(1)
    count = 40_000
    order = chance.random(count)
    cheap, rich = (chance.random(count) < 0.7 - 0.4 * order), chance.random(count) < 0.8
    shown = chance.random(count) < 0.2
    whole = graded(cheap, rich)
    partial = graded(
        np.where(shown, np.nan, cheap), np.where(shown, rich, np.nan), weight=np.where(shown, 1 / 0.2, 1 / 0.8)
    )
    assert apgr(order, partial) == pytest.approx(apgr(order, whole), abs=0.03)


def questions(count: int, size: int, *, seed: int, transfers: bool) -> tuple[Graded, np.ndarray]:
    """Twelve kinds around centres of their own; what gains lies along one direction, which is the same in all kinds or one for each."""
    chance = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(12, size)) * 0.6
    kind = chance.integers(12, size=count)
    within = chance.normal(size=(count, size)) * 0.35
    side = within[:, 0] if transfers else within[np.arange(count), kind % size] * np.where(kind % 2, 1, -1)
    vectors = centres[kind] + within
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cheap = (chance.random(count) > 1 / (1 + np.exp(-6 * side))).astype(float)
    return graded(cheap, np.ones(count), kind=kind), vectors.astype(np.float32)


def test_a_model_orders_new_questions_and_judges_everywhere_where_that_holds_for_kinds_left_out() -> None:
    rows, vectors = questions(1_500, 24, seed=1, transfers=True)
    model = fitted(rows, vectors, "e")
    assert model.file.floor == ANYWHERE
    new, there = questions(600, 24, seed=2, transfers=True)
    order = np.array([model.estimate(vector, 100) for vector in there])
    assert apgr(order, new) > 0.62


def test_a_model_of_one_kind_says_nothing_of_what_is_unlike_it() -> None:
    rows, vectors = questions(1_500, 24, seed=1, transfers=False)
    one = rows.kind == 0
    model = fitted(
        Graded(*(getattr(rows, name)[one] for name in ("cheap", "rich", "weight", "kind", "characters"))),
        vectors[one],
        "e",
    )
    assert model.estimate(-vectors[one][0], 100) is None
    judged = np.mean([model.estimate(vector, 100) is not None for vector in vectors[one]])
    assert judged > 0.8


def test_too_few_rows_are_told() -> None:
    rows, vectors = questions(40, 24, seed=1, transfers=True)
    with pytest.raises(TooFew, match="50"):
        fitted(rows, vectors, "e")


def test_the_same_rows_give_the_same_file_and_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows, vectors = questions(300, 24, seed=1, transfers=True)
    first, second = fitted(rows, vectors, "e"), fitted(rows, vectors, "e")
    assert first.file == second.file
    first.save(tmp_path / "uplift.json")
    again = Uplift.load(tmp_path / "uplift.json", "e")
    assert again.file == first.file
    assert again.estimate(vectors[0], 100) == first.estimate(vectors[0], 100)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no uplift model"),
        (b"{}", "no uplift model"),
        (b'{"format": 2}', "no uplift model"),
        (None, "No such file"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_reason(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "uplift.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UpliftUnavailable, match=why):
        Uplift.load(path, "e")


def test_a_file_of_another_embedder_or_with_parts_that_do_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "uplift.json"
    rows, vectors = questions(300, 24, seed=1, transfers=True)
    fitted(rows, vectors, "e").save(path)
    with pytest.raises(UpliftUnavailable, match="fitted with e"):
        Uplift.load(path, "other")
    path.write_bytes(path.read_bytes().replace(b'"dimensions":24', b'"dimensions":23'))
    with pytest.raises(UpliftUnavailable, match="23 dimensions"):
        Uplift.load(path, "e")
