"""A reader for tests that need no model: every word is a piece with a direction of its own, and a text points where its words do."""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import Any

import numpy as np

from headgate.cache.reading import Reading

WORD = re.compile(r"\w+")


class Words:
    """A Reader and an Embedder; `asked` are the texts that were read, in their order."""

    identity = "words"
    dimensions = 32

    def __init__(self, *, vocabulary: int = 1_024, longest: int = 1_000) -> None:
        """The more words a `vocabulary` tells apart, the rarer do two of them share a direction. `longest`: words of a text that are
        read."""
        self._longest = longest
        self.asked: list[str] = []
        rows = np.random.default_rng(1).standard_normal((vocabulary, self.dimensions))
        self._rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        self.rarity = np.linspace(0.0, 1.0, vocabulary, dtype=np.float32)

    def piece(self, word: str) -> int:
        """A word's number in the vocabulary."""
        digest = hashlib.blake2b(word.lower().encode(errors="surrogatepass"), digest_size=4).digest()
        return int.from_bytes(digest) % (len(self._rows) - 1) + 1

    def fits(self, text: str) -> bool:
        return len(WORD.findall(text)) <= self._longest

    def reading(self, text: str) -> Reading:
        pieces = tuple(self.piece(word) for word in WORD.findall(text)[: self._longest])
        tokens = self._rows[list(pieces)]
        # The first row stands for the mark before the text, which no text is without.
        whole = tokens.sum(0) + 0.1 * self._rows[0]
        vector = (whole / np.linalg.norm(whole)).astype(np.float32)
        return Reading(text, vector, tokens.astype(np.float16), pieces, vector)

    async def read(self, text: str) -> Reading:
        self.asked.append(text)
        await asyncio.sleep(0)
        return self.reading(text)

    async def embed(self, text: str) -> Any:
        return self.reading(text).vector

    async def close(self) -> None:
        return None
