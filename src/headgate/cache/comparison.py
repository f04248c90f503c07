"""Comparison: a model that finds what is near, and a verdict on what was found.

Invariant: a vector that is handed out is a unit vector of the promised size, whatever the model answered with.
"""

from __future__ import annotations

import asyncio

import msgspec

from headgate.cache.cache import Embedder, Vector
from headgate.cache.guards.guards import unfit
from headgate.cache.verdict import Verdict

UNIT_TOLERANCE = 1e-3


class Comparison(msgspec.Struct, frozen=True):
    """What compares by meaning; `patience` bounds the wait for a vector, in seconds."""

    embedder: Embedder
    verdict: Verdict
    patience: float

    @property
    def sparing(self) -> bool:
        """Whether the verdict may go by how near things are: what reads is what has found them."""
        return self.embedder.identity == self.verdict.reads

    def unfit(self, text: str) -> str | None:
        """Why a text is not compared, in a word, or None."""
        if (reason := unfit(text)) is not None:
            return reason
        return None if self.embedder.fits(text) and self.verdict.fits(text) else "long"

    async def vector(self, text: str) -> Vector:
        """The vector of a text. Raises what the embedder raises, TimeoutError, and ValueError for what is no unit vector."""
        async with asyncio.timeout(self.patience):
            vector = await self.embedder.embed(text)
        dimensions = self.embedder.dimensions
        # Written so that NaN, which compares false to everything, is refused too.
        if not (vector.shape == (dimensions,) and abs(float(vector @ vector) - 1.0) < UNIT_TOLERANCE):
            raise ValueError(f"the embedder answered with something other than a unit vector of {dimensions} numbers")
        return vector
