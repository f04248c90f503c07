"""What every Reader must do. To check your own: subclass ReaderConformance and give it a `reader` fixture; it is an Embedder too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

import numpy as np
import pytest

from headgate.cache.cache import Embedder
from headgate.cache.embedders import MiniLM
from headgate.cache.reading import EmbedderUnavailable, Reader
from tests.conformance.test_embedder import ODD_TEXTS, TEXTS
from tests.readings import Words


class Both(Reader, Embedder, Protocol):
    """A Reader whose vectors are an Embedder's."""


class ReaderConformance:
    """The guarantees in the docstring of Reader, each as a test."""

    @pytest.mark.parametrize("text", TEXTS)
    async def test_each_piece_has_a_row_of_unit_length(self, reader: Both, text: str) -> None:
        reading = await reader.read(text)
        assert reading.text == text
        assert reading.tokens.shape == (len(reading.pieces), reader.dimensions)
        assert reading.tokens.dtype == np.float16
        np.testing.assert_allclose(np.linalg.norm(reading.tokens.astype(np.float32), axis=1), 1.0, atol=2e-3)

    @pytest.mark.parametrize("text", TEXTS)
    async def test_the_vector_is_the_one_of_the_embedder(self, reader: Both, text: str) -> None:
        np.testing.assert_array_equal((await reader.read(text)).vector, await reader.embed(text))

    async def test_a_text_reads_the_same_in_any_company(self, reader: Both) -> None:
        alone = [await reader.read(text) for text in TEXTS]
        together = await asyncio.gather(*(reader.read(text) for text in TEXTS * 3))
        for one, other in zip(alone * 3, together, strict=True):
            assert one.pieces == other.pieces
            np.testing.assert_allclose(one.vector, other.vector, atol=1e-5)
            np.testing.assert_allclose(one.tokens.astype(np.float32), other.tokens.astype(np.float32), atol=2e-3)

    @pytest.mark.parametrize("text", ODD_TEXTS, ids=lambda text: ascii(text[:12]))
    async def test_a_text_of_any_kind_is_read_or_the_reader_is_unavailable(self, reader: Both, text: str) -> None:
        assert reader.fits(text) in (True, False)
        try:
            reading = await reader.read(text)
        except EmbedderUnavailable:
            return
        assert len(reading.pieces) == len(reading.tokens)
        assert np.isfinite(reading.tokens).all()

    async def test_a_text_that_is_cut_does_not_fit(self, reader: Both) -> None:
        assert reader.fits("How do I reset my password?")
        assert not reader.fits("word " * 100_000)

    async def test_every_piece_has_a_rarity_between_0_and_1(self, reader: Both) -> None:
        assert reader.rarity.ndim == 1
        assert float(reader.rarity.min()) >= 0.0
        assert float(reader.rarity.max()) <= 1.0
        for text in TEXTS:
            assert all(0 <= piece < len(reader.rarity) for piece in (await reader.read(text)).pieces)

    async def test_a_caller_that_leaves_disturbs_nobody(self, reader: Both) -> None:
        calls = [asyncio.ensure_future(reader.read(text)) for text in (TEXTS[0], TEXTS[0], TEXTS[1])]
        await asyncio.sleep(0)
        calls[0].cancel()
        left, same, other = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(left, asyncio.CancelledError)
        assert same.text == TEXTS[0]
        assert other.text == TEXTS[1]


class TestMiniLM(ReaderConformance):
    @pytest.fixture
    async def reader(self) -> AsyncIterator[Both]:
        model = await asyncio.to_thread(MiniLM.load)
        yield model
        await model.close()

    async def test_after_closing_it_is_unavailable(self, reader: Both) -> None:
        await reader.close()
        with pytest.raises(EmbedderUnavailable):
            await reader.read("x")


class TestWords(ReaderConformance):
    """The reader of tests that need no model."""

    @pytest.fixture
    def reader(self) -> Both:
        return Words()
