"""Prior: how probable it is that two questions have the same answer, before anything is known of the tenant who asks.

The one invariant: a prior is used only with the evidence that it was fitted to; another version of it is refused when it is loaded.

The evidence goes through gradient-boosted trees (Friedman 2001), monotone where reason demands it: no pair becomes more probable by
lying further apart. `tools/fit_prior.py` fits them and writes down what they were worth on labelled questions that they had not seen: how
many answers they would have served above each probability, and how many of these were wrong. From that follows the bar for a rate of
error that may not be exceeded.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from headgate.cache.evidence import FEATURES
from headgate.cache.evidence import VERSION as EVIDENCE
from headgate.cache.guards.guards import VERSION as GUARDS
from headgate.cache.trees import Trees

SHIPPED: Final = Path(__file__).parent / "prior"
NEVER: Final = 2.0
"""A bar that nothing reaches."""


class PriorUnavailable(Exception):
    """The fitted prior cannot be used: a file is missing, altered, or was fitted to other evidence."""


class Served(msgspec.Struct, frozen=True, gc=False):
    """What serving everything above one probability would have meant: how many answers, and how many of them wrong."""

    above: float
    answers: int
    wrong: int


class Sight(msgspec.Struct, frozen=True, gc=False):
    """What a reader sees of pairs up to a similarity: the `usual` value of each of `evidence.SEEN`, and the `best` that was ever met."""

    similarity: float
    usual: tuple[float, ...]
    best: tuple[float, ...]


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What a prior was fitted to, and what it was worth: `served` among neighbours, `served_alone` without a look at them; `sights` are
    of the pairs that it was fitted to, by similarity; `sha256` is of the trees' file."""

    version: str
    evidence: str
    guards: str
    features: tuple[str, ...]
    served: tuple[Served, ...]
    served_alone: tuple[Served, ...]
    sha256: str
    sights: tuple[Sight, ...] = ()


class Prior:
    """Fitted trees. Pure."""

    def __init__(self, card: Card, trees: Trees) -> None:
        """`trees` give log-odds."""
        self.identity = f"{card.version}-{card.sha256[:12]}"
        self._card = card
        self._trees = trees

    @classmethod
    def load(cls, folder: Path = SHIPPED) -> Prior:
        """Read and check a fitted prior. Raises PriorUnavailable."""
        try:
            card = msgspec.json.decode((folder / "card.json").read_bytes(), type=Card)
            raw = (folder / "trees.npz").read_bytes()
            if hashlib.sha256(raw).hexdigest() != card.sha256:
                raise PriorUnavailable(f"{folder / 'trees.npz'} is not the file that its card describes")
            with np.load(folder / "trees.npz", allow_pickle=False) as stored:
                trees = Trees({name: stored[name].tolist() for name in stored.files})
        except (OSError, ValueError, msgspec.DecodeError) as error:
            raise PriorUnavailable(f"the prior in {folder} cannot be read: {error}") from error
        if (card.evidence, card.guards, card.features) != (EVIDENCE, GUARDS, FEATURES):
            raise PriorUnavailable(
                f"the prior in {folder} was fitted to other evidence; fit it anew with tools/fit_prior.py"
            )
        return cls(card, trees)

    def probabilities(self, rows: Sequence[Sequence[float]]) -> list[float]:
        """For each row of evidence (see `evidence.row`), the probability that the two questions have the same answer."""
        found: list[float] = (1.0 / (1.0 + np.exp(-self._trees.sums(rows)))).tolist()
        return found

    def sight(self, similarity: float) -> Sight | None:
        """What a reader would see of a pair with this similarity, by the pairs that the prior was fitted to; None where that is not
        known."""
        return next((sight for sight in self._card.sights if similarity <= sight.similarity), None)

    def bar(self, error_rate: float) -> float:
        """The lowest probability above which, of what is served by meaning, no more than `error_rate` is wrong.

        By conformal risk control (Angelopoulos et al. 2022): the next answer may be wrong whatever was seen, so one more error is
        counted than there was, and the expected share of wrong answers stays under the rate on traffic like the labelled. NEVER when
        the labelled questions were too few, or too ambiguous, to promise so little.
        """
        return _bar(self._card.served, error_rate)

    def bar_alone(self, error_rate: float) -> float:
        """The same for a candidate that nothing else is near to, of which the prior knows less."""
        return _bar(self._card.served_alone, error_rate)


@functools.lru_cache(maxsize=4_096)
def _bar(served: tuple[Served, ...], error_rate: float) -> float:
    fitting = (one.above for one in served if one.wrong + 1 <= error_rate * (one.answers + 1))
    return min(fitting, default=NEVER)


def write(folder: Path, card: Card, trees: dict[str, Any]) -> None:
    """Write a fitted prior to a folder; the card's digest is set here."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "trees.npz").open("wb") as file:
        np.savez_compressed(file, **trees)
    digest = hashlib.sha256((folder / "trees.npz").read_bytes()).hexdigest()
    told = msgspec.to_builtins(msgspec.structs.replace(card, sha256=digest))
    (folder / "card.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
