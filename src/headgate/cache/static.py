"""A first stage for finding what is near: one vector per word piece, summed, which spares the model where nothing is near.

The one invariant: it only ever says that a model need not be asked, and when in doubt it does not say so. It decides nothing else: it
cannot see the order of words. The table is distilled from the model by `tools/distil_static.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from headgate.cache.reading import EmbedderUnavailable
from headgate.cache.shipped import SHIPPED, STATIC_MANIFEST, verified
from headgate.cache.wordpiece import WordPiece

NEAR: Final = 0.53
"""Static similarity from which the model is asked. Of true rewordings that it finds at a cosine of 0.75 or more, at most 0.5 % are
below (upper 95 % bound), see docs/adr/0005 and `benchmarks/first_stage.py`."""

MOST_IN_PLACE: Final = 8_192
"""Entries from which on looking through them costs a fifth of what the model does, and something is near nearly always."""

MOST_BYTES: Final = 64 << 20
"""Of all places together."""

_PLACE: Final = 400
"""Bytes that a place takes beside its vectors, about."""
_STEPS: Final = 127
_CHUNK: Final = 2_048

Floats = NDArray[np.float32]


class StaticEmbedder:
    """Text to a unit vector by adding up the vectors of its word pieces; some ten microseconds a text, without waiting."""

    def __init__(self, wordpiece: WordPiece, table: NDArray[np.int8], identity: str) -> None:
        """`table` has shape (V, d): the weighted vector of each piece, all in one scale."""
        self.identity = identity
        self.dimensions = int(table.shape[1])
        self._wordpiece = wordpiece
        self._table = table

    @classmethod
    def load(cls, folder: Path = SHIPPED) -> StaticEmbedder:
        """Read and verify the files. Blocks for some milliseconds. Raises EmbedderUnavailable."""
        try:
            manifest = verified(folder, STATIC_MANIFEST)
            table = np.load(folder / "static.int8.npy", allow_pickle=False)
            wordpiece = WordPiece((folder / "vocab.txt").read_text(encoding="utf-8").splitlines())
        except Exception as error:
            raise EmbedderUnavailable(f"the static vectors in {folder} cannot be loaded: {error}") from error
        return cls(wordpiece, table, f"{manifest.name}@{manifest.version}-{manifest.digest}")

    def embed(self, text: str) -> Floats | None:
        """The unit vector of `text`, shape (d,), or None for one in which there is nothing to go by."""
        pieces = self._wordpiece.encode(text)[1:-1]
        total = self._table[list(pieces)].sum(axis=0, dtype=np.float32)
        length = float(np.sqrt(total @ total))
        return total / np.float32(length) if length else None


class FirstStage:
    """What has come where, as static vectors, in one block of memory for each place.

    A place is looked through only when it is known: it was seen empty before anything came to it, and all that came since is in its
    block. Everything is near in any other, and in one to which more came than it is worth looking through. What goes from the cache stays
    in the block, where it can but ask the model for nothing; memory is bounded all the same, for the place that was longest without
    a question is forgotten, and unknown again.
    """

    def __init__(
        self, embedder: StaticEmbedder, *, bound: float = NEAR, most: int = MOST_IN_PLACE, most_bytes: int = MOST_BYTES
    ) -> None:
        """`bound` is the similarity that counts as near, `most` the entries of a place that are looked through, and `most_bytes` what all
        places take together."""
        self._embedder = embedder
        self._bound = bound
        self._most = most * embedder.dimensions
        self._most_bytes = most_bytes
        self._blocks: OrderedDict[Hashable, bytearray | None] = OrderedDict()
        self.bytes = 0

    def empty(self, place: Hashable) -> None:
        """Nothing lies there now. Of a place to which something has come that says nothing: it may be on its way."""
        if place not in self._blocks:
            self._put(place, bytearray())

    def add(self, place: Hashable, text: str) -> None:
        """Something with this text lies there from now on."""
        block = self._blocks.get(place)
        if block is None:
            if place not in self._blocks:
                self._put(place, None)
            return
        vector = self._embedder.embed(text)
        # Unlike everything, where there is nothing to go by: a question that resembles it has nothing to go by either.
        steps = np.zeros(self._embedder.dimensions) if vector is None else np.rint(vector * _STEPS)
        block += steps.astype(np.int8).tobytes()  # grows by an eighth where it must
        self.bytes += len(steps)
        if len(block) > self._most:
            self.bytes -= len(block)
            self._blocks[place] = None
        self._forget()

    def near(self, place: Hashable, text: str) -> bool:
        """False when nothing in the place can be a rewording of `text`; True when something may be."""
        block = self._blocks.get(place)
        if block is None:
            return True
        self._blocks.move_to_end(place)
        vector = self._embedder.embed(text)
        if vector is None:
            return True
        rows = np.frombuffer(block, np.int8).reshape(-1, self._embedder.dimensions)
        least = self._bound * _STEPS
        return any(
            float((rows[start : start + _CHUNK].astype(np.float32) @ vector).max()) >= least
            for start in range(0, len(rows), _CHUNK)
        )

    def _put(self, place: Hashable, block: bytearray | None) -> None:
        self._blocks[place] = block
        self.bytes += _PLACE
        self._forget()

    def _forget(self) -> None:
        while self.bytes > self._most_bytes:
            _, block = self._blocks.popitem(last=False)
            self.bytes -= _PLACE + len(block or b"")
