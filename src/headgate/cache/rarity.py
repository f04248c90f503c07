"""Rarity: how much a piece of the model's vocabulary tells, from how often it is met.

The one invariant: a function of the vocabulary alone, between 0 (in every sentence) and 1 (rare). The vocabulary lists its words from
the most frequent on, so a word's rank gives its share p of all text by Zipf's law, and a / (a + p) its weight (smooth inverse frequency:
Arora, Liang and Ma, 2017, "A Simple but Tough-to-Beat Baseline for Sentence Embeddings").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

SMOOTHING: Final = 1e-3
"""The share of all text at which a piece weighs one half: about that of the hundredth word."""

FIRST_WORD: Final = "the"
"""Where the list by frequency begins; before it are marks that no text has, and single characters by their code."""

_MARK_RANK: Final = 1
_CHARACTER_RANK: Final = 100
_WORDS_OF_ONE_CHARACTER: Final = {"a": 5, "i": 10, "s": 10, "t": 20}
"""Their ranks in English text; the last two are what is left of "it's" and "don't"."""


def rarities(vocabulary: Sequence[str]) -> NDArray[np.float32]:
    """The rarity of each piece, shape (V,). ValueError when the vocabulary has no list by frequency.

    Punctuation counts as the most frequent word, a lone Latin letter or digit as the hundredth (the few that are words by their
    own rank), and what stands before the list otherwise (other scripts' characters, the model's own marks) as rarer than any word.
    """
    first = vocabulary.index(FIRST_WORD)
    ranks = np.arange(len(vocabulary)) - first + 1
    ranks[:first] = len(vocabulary)
    for number, piece in enumerate(vocabulary):
        bare = piece.removeprefix("##")
        if len(bare) == 1 and bare.isascii():
            usual = _CHARACTER_RANK if bare.isalnum() else _MARK_RANK
            ranks[number] = _WORDS_OF_ONE_CHARACTER.get(piece, usual)
    harmonic = np.log(len(vocabulary)) + np.euler_gamma
    shares = 1.0 / (ranks * harmonic)
    found: NDArray[np.float32] = (SMOOTHING / (SMOOTHING + shares)).astype(np.float32)
    return found
