"""What every Embedder must do. To check your own: subclass EmbedderConformance and give it an `embedder` fixture."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence

import msgspec
import numpy as np
import pytest

from headgate.cache.cache import Embedder
from headgate.cache.embedders import MiniLM, RemoteEmbedder
from headgate.cache.local import LocalEmbedder
from headgate.cache.reading import EmbedderUnavailable
from headgate.cache.shipped import Manifest
from headgate.cache.wordpiece import NORMALISER_VERSION, WordPiece

TEXTS = ("How do I reset my password?", "Where is my parcel?", "", "¿Dónde está?", "a" * 300)

ODD_TEXTS = (
    *("", " \n", "\U0001f600\U0001f3fd\u200d", "?!… —", "\x00\x1b[31m\x7f", "\ud800"),
    *("Привет, 世界 and مرحبا", "word " * 200_000, "x" * 1_000_000),
)
"""Nothing, blanks, emoji, punctuation, control characters, half a character, mixed scripts, and two texts of a megabyte."""


class EmbedderConformance:
    """The guarantees in the docstring of Embedder, each as a test."""

    async def test_a_vector_has_the_promised_size_and_length_one(self, embedder: Embedder) -> None:
        for text in TEXTS:
            vector = await embedder.embed(text)
            assert vector.shape == (embedder.dimensions,)
            assert vector.dtype == np.float32
            assert float(vector @ vector) == pytest.approx(1.0, abs=1e-3)

    async def test_the_same_text_has_the_same_vector_in_any_company(self, embedder: Embedder) -> None:
        alone = [await embedder.embed(text) for text in TEXTS]
        together = await asyncio.gather(*(embedder.embed(text) for text in TEXTS * 3))
        for one, other in zip(alone * 3, together, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)

    @pytest.mark.parametrize("text", ODD_TEXTS, ids=lambda text: ascii(text[:12]))
    async def test_a_text_of_any_kind_has_a_unit_vector_or_none(self, embedder: Embedder, text: str) -> None:
        assert embedder.fits(text) in (True, False)
        try:
            vector = await embedder.embed(text)
        except EmbedderUnavailable:
            return
        assert float(vector @ vector) == pytest.approx(1.0, abs=1e-3)

    async def test_other_texts_have_other_vectors(self, embedder: Embedder) -> None:
        one, other = await embedder.embed(TEXTS[0]), await embedder.embed(TEXTS[1])
        assert float(one @ other) < 0.95

    async def test_the_event_loop_goes_on_meanwhile(self, embedder: Embedder) -> None:
        """Something else gets its turn before the vector is there."""
        turns: list[str] = []

        async def vector() -> None:
            await embedder.embed(TEXTS[0])
            turns.append("vector")

        async def other() -> None:
            turns.append("other")

        await asyncio.gather(vector(), other())
        assert turns == ["other", "vector"]

    async def test_short_texts_fit_and_endless_ones_do_not(self, embedder: Embedder) -> None:
        assert embedder.fits(TEXTS[0])
        assert not embedder.fits("word " * 100_000)

    async def test_it_says_what_makes_its_vectors_and_how_long_they_are(self, embedder: Embedder) -> None:
        """The identity keeps vectors of different models apart."""
        assert embedder.identity
        assert embedder.dimensions > 0

    async def test_a_caller_that_leaves_disturbs_nobody(self, embedder: Embedder) -> None:
        calls = [asyncio.ensure_future(embedder.embed(text)) for text in TEXTS]
        await asyncio.sleep(0)
        calls[0].cancel()
        vectors = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(vectors[0], asyncio.CancelledError)
        np.testing.assert_allclose(vectors[1], await embedder.embed(TEXTS[1]), atol=1e-5)

    async def test_it_can_be_closed_twice(self, embedder: Embedder) -> None:
        await embedder.embed(TEXTS[0])
        await embedder.close()
        await embedder.close()


class TestMiniLM(EmbedderConformance):
    @pytest.fixture
    async def embedder(self) -> AsyncIterator[Embedder]:
        model = await asyncio.to_thread(MiniLM.load)
        yield model
        await model.close()

    async def test_after_closing_it_is_unavailable(self, embedder: Embedder) -> None:
        await embedder.close()
        with pytest.raises(EmbedderUnavailable):
            await embedder.embed("x")

    def test_another_model_size_or_normaliser_means_another_identity(self) -> None:
        """A cache keeps vectors of different identities apart."""

        def identity(version: str, digest: str) -> str:
            pieces = WordPiece(["[CLS]", "[SEP]", "[UNK]"])
            return MiniLM(
                pieces, list, Manifest("tiny", version, 2, {"model": digest}), np.ones(3, np.float32)
            ).identity

        assert len({identity("1", "aa"), identity("1", "bb"), identity("2", "aa")}) == 3
        assert NORMALISER_VERSION in identity("1", "aa")


def numbers_of(text: str) -> list[float]:
    """Sixteen numbers that depend on the text alone, and not of unit length."""
    return [byte - 127.5 for byte in hashlib.sha256(text.encode()).digest()[:16]]


async def endpoint(body: bytes) -> bytes:
    """An embeddings endpoint."""
    await asyncio.sleep(0)
    numbers = numbers_of(msgspec.json.decode(body)["input"])
    return msgspec.json.encode({"object": "list", "data": [{"index": 0, "embedding": numbers}]})


class TestRemoteEmbedder(EmbedderConformance):
    @pytest.fixture
    def embedder(self) -> Embedder:
        return RemoteEmbedder(endpoint, model="m", dimensions=16)

    async def test_an_endpoint_of_another_size_is_unavailable(self) -> None:
        with pytest.raises(EmbedderUnavailable):
            await RemoteEmbedder(endpoint, model="m", dimensions=15).embed("x")


def encode(texts: Sequence[str]) -> list[np.ndarray]:
    """What a library makes of a batch."""
    return [np.array(numbers_of(text), np.float32) for text in texts]


class TestLocalEmbedder(EmbedderConformance):
    @pytest.fixture
    async def embedder(self) -> AsyncIterator[Embedder]:
        local = LocalEmbedder(encode, lambda text: len(text) < 1_000, name="library:model")
        yield local
        await local.close()

    async def test_after_closing_it_is_unavailable(self, embedder: Embedder) -> None:
        await embedder.close()
        with pytest.raises(EmbedderUnavailable):
            await embedder.embed("x")
