"""Vectors as bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from headgate.cache.quantise import quantised, restored

ODD = st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False)


def test_a_vector_takes_a_byte_a_number() -> None:
    assert quantised(np.array([0.6, -0.8, 0.0], np.float32)) == bytes([95, 256 - 127, 0])


def test_what_is_restored_has_length_one_and_nearly_the_same_direction() -> None:
    vectors = np.random.default_rng(7).normal(size=(200, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    again = np.stack([restored(quantised(vector)) for vector in vectors])
    assert again.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(again, axis=1), 1.0, atol=1e-6)
    assert float((vectors * again).sum(1).min()) > 0.9998
    assert float(np.abs(vectors @ vectors.T - vectors @ again.T).max()) < 0.002


@given(arrays(np.float32, st.integers(1, 40), elements=ODD).filter(lambda vector: bool(np.abs(vector).max() > 1e-30)))
def test_the_largest_number_stays_the_largest_whatever_the_scale(vector: np.ndarray) -> None:
    again = restored(quantised(vector))
    assert np.abs(again).max() == np.abs(again[np.abs(vector).argmax()])
    assert float(np.linalg.norm(again)) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("numbers", [[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0], []])
def test_a_vector_without_a_direction_is_refused(numbers: list[float]) -> None:
    with pytest.raises(ValueError, match="without a direction"):
        quantised(np.array(numbers, np.float32))


@pytest.mark.parametrize("stored", [b"", bytes(4)])
def test_bytes_without_a_direction_are_refused(stored: bytes) -> None:
    with pytest.raises(ValueError, match="without a direction"):
        restored(stored)
