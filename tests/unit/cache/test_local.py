"""Models run by a library beside the gateway. The libraries themselves are optional: objects of their form stand in for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import Unigram, WordLevel
from tokenizers.pre_tokenizers import Whitespace

from headgate.cache.local import LocalEmbedder, load, of_fastembed, of_sentence_transformers, whole
from headgate.cache.reading import EmbedderUnavailable

WORDS = {"[UNK]": 0, "how": 1, "do": 2, "i": 3, "reset": 4, "it": 5}


def tokenizer(longest: int = 4) -> Tokenizer:
    made = Tokenizer(WordLevel(WORDS, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.enable_truncation(longest)
    made.enable_padding()
    return made


def vectors(texts: Sequence[str], *, turned: bool = False) -> list[np.ndarray]:
    """A vector of the lengths of the text's words, of no particular length."""
    return [np.array([len(text) + 1.0, text.count(" ") + 1.0][:: -1 if turned else 1], np.float32) for text in texts]


class Sentences:
    """Of the form of a SentenceTransformer."""

    def __init__(self) -> None:
        self.tokenizer = self
        self.backend_tokenizer = tokenizer()
        self.max_seq_length = 4
        self.batches: list[list[str]] = []

    def encode(self, texts: list[str], **_options: Any) -> np.ndarray:
        self.batches.append(texts)
        return np.stack(vectors(texts))


class Fast:
    """Of the form of fastembed's TextEmbedding."""

    def __init__(self) -> None:
        self.model = self
        self.tokenizer = tokenizer()
        self.batch_sizes: set[int] = set()

    def embed(self, texts: list[str], batch_size: int) -> Iterator[np.ndarray]:
        self.batch_sizes.add(batch_size)
        yield from vectors(texts)


async def test_sentence_transformers_gives_unit_vectors_in_batches() -> None:
    library = Sentences()
    embedder = of_sentence_transformers(library, model="m@1")
    one, _ = await asyncio.gather(embedder.embed("how do"), embedder.embed("how"))
    assert one.tolist() == pytest.approx((np.array([7, 2]) / 53**0.5).tolist())
    assert library.batches[1:] == [["how do", "how"]]
    assert embedder.identity.startswith("sentence-transformers:m@1/2-")
    await embedder.close()


async def test_fastembed_reads_each_text_by_itself() -> None:
    """Many of its models would let the texts of a batch change each other's vectors."""
    library = Fast()
    embedder = of_fastembed(library, model="m")
    await asyncio.gather(embedder.embed("how do"), embedder.embed("how"))
    assert library.batch_sizes == {1}
    assert embedder.identity.startswith("fastembed:m/2-")
    assert embedder.fits("how do i reset")
    assert not embedder.fits("how do i reset it")
    await embedder.close()


async def test_a_name_that_means_other_weights_tomorrow_is_another_identity() -> None:
    ours = [
        LocalEmbedder(encode, bool, name="m")
        for encode in (vectors, vectors, lambda texts: [-v for v in vectors(texts)])
    ]
    assert ours[0].identity == ours[1].identity != ours[2].identity
    for one in ours:
        await one.close()


async def test_one_texts_nonsense_is_not_its_neighbours() -> None:
    def encode(texts: Sequence[str]) -> list[np.ndarray]:
        return [np.full(2, np.nan) if text == "bad" else np.ones(2) for text in texts]

    embedder = LocalEmbedder(encode, bool, name="m")
    bad, good = await asyncio.gather(embedder.embed("bad"), embedder.embed("good"), return_exceptions=True)
    assert isinstance(bad, EmbedderUnavailable)
    assert good == pytest.approx([0.5**0.5] * 2)
    await embedder.close()


def test_a_model_that_answers_nonsense_is_none() -> None:
    with pytest.raises(ValueError, match="without a direction"):
        LocalEmbedder(lambda texts: [np.zeros(2) for _ in texts], bool, name="m")


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("how do i reset", True),
        ("how do i reset it", False),
        ("how do you", False),
        ("", True),
        ("how " * 100_000, False),
        ("\ud800", False),
    ],
)
def test_a_text_fits_when_all_its_pieces_are_seen_and_known(text: str, fits: bool) -> None:
    assert whole(tokenizer(), 4)(text) is fits


def test_a_vocabulary_of_scores_has_its_unknown_piece_by_number() -> None:
    fits = whole(Tokenizer(Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0)), 8)
    assert fits("aa")
    assert not fits("ab")


@pytest.mark.parametrize("library", ["sentence-transformers", "fastembed"])
def test_a_library_that_is_not_there_or_cannot_load_the_model_says_so(library: Any, tmp_path: Any) -> None:
    """Whether it is installed here or not."""
    with pytest.raises(EmbedderUnavailable, match=r"pip install 'headgate\[|cannot load"):
        load(library, "no-such-model", path=str(tmp_path / "absent"))
