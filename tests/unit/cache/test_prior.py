"""The fitted prior: its files, its trees, and the bar for a rate of error."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.cache.evidence import FEATURES
from headgate.cache.prior import NEVER, SHIPPED, Card, Prior, PriorUnavailable, Served, write
from tests.priors import Node, Tree, arrays, card, near, planted, walked

VALUES = st.floats(-2.0, 2.0, width=32) | st.just(math.nan)
ROW = st.lists(VALUES, min_size=len(FEATURES), max_size=len(FEATURES))
LEAF = st.floats(-3.0, 3.0, width=32)
TREE: st.SearchStrategy[Tree] = st.recursive(
    LEAF,
    lambda under: st.builds(
        Node,
        feature=st.integers(0, len(FEATURES) - 1),
        threshold=st.floats(-2.0, 2.0, width=32),
        left=under,
        right=under,
        absent=st.booleans(),
    ),
    max_leaves=12,
)


def asks(trees: list[Tree]) -> bool:
    """Whether there is anything to ask a row for."""
    return any(isinstance(tree, Node) for tree in trees)


class TestTrees:
    @given(trees=st.lists(TREE, min_size=1, max_size=4).filter(asks), rows=st.lists(ROW, min_size=1, max_size=5))
    def test_all_rows_at_once_are_walked_as_one_after_the_other(
        self, trees: list[Tree], rows: list[list[float]]
    ) -> None:
        said = planted(trees).probabilities(rows)
        assert said == pytest.approx([walked(trees, row) for row in rows], abs=1e-6)

    def test_what_is_at_the_threshold_goes_left_and_what_is_unknown_where_the_tree_says(self) -> None:
        for absent, unknown in ((True, 0.5), (False, 0.9)):
            tree = Node(0, 1.0, left=0.0, right=math.log(9.0), absent=absent)
            prior = planted([tree])
            rows = [[value, *[0.0] * (len(FEATURES) - 1)] for value in (1.0, 1.001, math.nan)]
            assert prior.probabilities(rows) == pytest.approx([0.5, 0.9, unknown])

    def test_the_shipped_trees_believe_nearer_pairs_more(self) -> None:
        """They are held to that where they are fitted; here in ten thousand rows of any kind."""
        chance = np.random.default_rng(7)
        rows = chance.uniform(-1.0, 2.0, (10_000, len(FEATURES))).astype(np.float32)
        nearer = rows.copy()
        nearer[:, FEATURES.index("similarity")] += chance.uniform(0.0, 1.0, len(rows)).astype(np.float32)
        prior = Prior.load()
        assert (
            np.array(prior.probabilities(nearer.tolist())) >= np.array(prior.probabilities(rows.tolist())) - 1e-9
        ).all()


class TestBar:
    def test_one_more_error_is_counted_than_there_was(self) -> None:
        prior = near(served=[Served(0.6, 199, 1)])
        assert prior.bar(0.01) == 0.6, "two errors of two hundred"
        assert prior.bar(0.0099) == NEVER

    def test_it_is_the_lowest_that_keeps_the_rate(self) -> None:
        prior = near(served=[Served(0.5, 1_000, 90), Served(0.7, 800, 20), Served(0.9, 400, 0)])
        assert [prior.bar(rate) for rate in (0.5, 0.05, 0.01, 0.001)] == [0.5, 0.7, 0.9, NEVER]

    def test_nothing_is_promised_from_nothing(self) -> None:
        assert near(served=[]).bar(0.5) == NEVER
        assert near(served=[Served(0.99, 0, 0)]).bar(0.99) == NEVER
        assert near().bar(0.0) == NEVER

    def test_what_stands_alone_has_a_bar_of_its_own(self) -> None:
        prior = near(served=[Served(0.6, 999, 9)], alone=[Served(0.6, 999, 99), Served(0.8, 999, 9)])
        assert (prior.bar(0.01), prior.bar_alone(0.01)) == (0.6, 0.8)

    @given(
        served=st.lists(st.builds(Served, st.floats(0.0, 1.0), st.integers(0, 9_999), st.integers(0, 99)), max_size=8),
        rates=st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)),
    )
    def test_a_stricter_promise_is_never_kept_by_a_lower_bar(
        self, served: list[Served], rates: tuple[float, float]
    ) -> None:
        prior = near(served=served)
        strict, lax = sorted(rates)
        assert prior.bar(strict) >= prior.bar(lax)

    def test_the_shipped_one_promises_what_was_seen_and_not_everything(self) -> None:
        prior = Prior.load()
        assert 0.5 <= prior.bar(0.05) <= prior.bar(0.02) < 1.0
        assert prior.bar(0.0001) == NEVER, "nobody labels so many questions"


class TestFiles:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        shutil.copytree(SHIPPED, tmp_path / "prior")
        return tmp_path / "prior"

    def test_the_shipped_one_has_a_name_for_what_it_is(self) -> None:
        assert Prior.load().identity == Prior.load().identity
        assert Prior.load().identity.startswith("p")

    def test_what_was_written_is_what_is_read(self, tmp_path: Path) -> None:
        tree = Node(3, 0.25, left=-1.0, right=Node(1, 0.5, left=0.0, right=2.0, absent=True))
        row = [math.nan] * len(FEATURES)
        write(tmp_path / "new", card([Served(0.5, 99, 0)]), arrays([tree]))
        prior = Prior.load(tmp_path / "new")
        assert prior.probabilities([row]) == pytest.approx([walked([tree], row)])
        assert prior.bar(0.01) == 0.5

    def test_other_trees_are_another_prior(self, tmp_path: Path) -> None:
        for name, leaf in (("one", 1.0), ("other", 2.0)):
            write(tmp_path / name, card(), arrays([Node(0, 0.0, left=0.0, right=leaf)]))
        assert Prior.load(tmp_path / "one").identity != Prior.load(tmp_path / "other").identity

    def test_altered_trees_are_refused(self, folder: Path) -> None:
        trees = bytearray((folder / "trees.npz").read_bytes())
        trees[len(trees) // 2] ^= 1
        (folder / "trees.npz").write_bytes(trees)
        with pytest.raises(PriorUnavailable, match="not the file that its card describes"):
            Prior.load(folder)

    @pytest.mark.parametrize("name", ["card.json", "trees.npz"])
    def test_a_missing_file_is_told(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        with pytest.raises(PriorUnavailable, match=name):
            Prior.load(folder)

    @pytest.mark.parametrize("written", [b"", b"{}", b"[1, 2]", b'{"version": 3}', b"\xff\xfe"])
    def test_a_card_that_is_none_is_told(self, folder: Path, written: bytes) -> None:
        (folder / "card.json").write_bytes(written)
        with pytest.raises(PriorUnavailable, match="cannot be read"):
            Prior.load(folder)

    @pytest.mark.parametrize(
        "otherwise",
        [
            lambda told: msgspec.structs.replace(told, evidence="e0"),
            lambda told: msgspec.structs.replace(told, guards="g0"),
            lambda told: msgspec.structs.replace(told, features=told.features[1:]),
            lambda told: msgspec.structs.replace(told, features=told.features[::-1]),
        ],
        ids=["evidence", "guards", "fewer", "reordered"],
    )
    def test_what_was_fitted_to_other_evidence_is_refused(
        self, folder: Path, otherwise: Callable[[Card], Card]
    ) -> None:
        told = msgspec.json.decode((folder / "card.json").read_bytes(), type=Card)
        (folder / "card.json").write_bytes(msgspec.json.encode(otherwise(told)))
        with pytest.raises(PriorUnavailable, match="fitted to other evidence"):
            Prior.load(folder)

    def test_the_shipped_card_counts_fewer_answers_and_errors_the_surer_they_must_be(self) -> None:
        told = msgspec.json.decode((SHIPPED / "card.json").read_bytes(), type=Card)
        for served in (told.served, told.served_alone):
            assert [one.above for one in served] == sorted(one.above for one in served)
            assert [one.answers for one in served] == sorted((one.answers for one in served), reverse=True)
            assert [one.wrong for one in served] == sorted((one.wrong for one in served), reverse=True)
