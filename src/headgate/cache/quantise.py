"""Vectors as 8-bit integers: a quarter of the memory, in the store and on disk.

The one invariant: `restored(quantised(v))` has length one and points where `v` does, to a cosine of 0.9999 for the vectors of sentence
models. On 10,000 questions the similarity of two moved by 0.0004 (root mean square), by less than 0.002 where it was over 0.7. The scale
is not kept: it is lost in the scaling to length one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STEPS = 127
"""The largest number: the vector's largest component becomes it."""

Floats = NDArray[np.float32]


def quantised(vector: Floats) -> bytes:
    """`d` signed bytes for a vector of shape (d,) and any length but zero. Raises ValueError for one without a direction
    (all zeros, NaN, infinity)."""
    largest = float(np.max(np.abs(vector), initial=0.0))
    # Written so that NaN, which compares false to everything, is refused too.
    if not 0.0 < largest < float("inf"):
        raise ValueError("a vector without a direction")
    rounded: NDArray[np.int8] = np.rint(vector * (STEPS / largest)).astype(np.int8)
    return rounded.tobytes()


def restored(stored: bytes) -> Floats:
    """The float32 unit vector of shape (d,) that `stored` stands for. Raises ValueError for bytes that are all zero, or none."""
    vector = np.frombuffer(stored, np.int8).astype(np.float32)
    length = float(np.sqrt(vector @ vector))
    if length == 0.0:
        raise ValueError("a vector without a direction")
    return np.divide(vector, np.float32(length))
