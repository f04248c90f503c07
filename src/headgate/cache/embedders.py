"""Text to unit vectors: the model that ships inside the package, which reads too, and any remote embeddings endpoint.

The one invariant: a vector that is returned has the promised size and length one, and depends on the text alone (not
on which other texts shared its batch); every other outcome is EmbedderUnavailable. Nothing here blocks the event loop.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from headgate.cache.batching import MicroBatcher
from headgate.cache.reading import EmbedderUnavailable, Reading, Readings
from headgate.cache.shipped import MODEL_MANIFEST, SHIPPED, Manifest, verified
from headgate.cache.unit import checked, unit
from headgate.cache.wordpiece import NORMALISER_VERSION, WordPiece

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]
    Pieces = tuple[int, ...]
    Tokens = NDArray[np.float16]
    Infer = Callable[[Sequence[Pieces]], Sequence[tuple[Vector, Vector, Tokens]]]

_REMOTE_CHARACTERS: Final = 8_000
_THREADS: Final = 2
"""Batches of texts that go through the model at a time: halves of what one question is compared with, or questions of two callers.
More would want more processors than the event loop can feed."""


class MiniLM:
    """all-MiniLM-L6-v2 in this process, an Embedder and a Reader: one session, a few threads, micro-batches, and a memo.

    Only the first 128 word pieces of a text are read; `fits` tells when that is not all of it.
    """

    def __init__(
        self, wordpiece: WordPiece, infer: Infer, manifest: Manifest, rarity: NDArray[np.float32], *, threads: int = 1
    ) -> None:
        """Compose loaded parts; `load` is the way in. `infer` blocks and returns for each sequence of ids its unit vector, that
        of the first id, and those of the ids between the first and the last; so many `threads` call it."""
        self.identity = f"{manifest.name}@{manifest.version}-{manifest.digest}+{NORMALISER_VERSION}"
        self.dimensions = manifest.dimensions
        self._wordpiece = wordpiece
        self.rarity = rarity
        self._batcher = MicroBatcher(infer, width=len, threads=threads)
        self._readings = Readings(self._read)

    @classmethod
    def load(cls, folder: Path = SHIPPED, *, threads: int = _THREADS) -> MiniLM:
        """Read and verify the files and build the session for that many threads. Blocks for some 0.2 s: use a thread.

        Raises EmbedderUnavailable when a file is absent, altered or refused by the runtime.
        """
        # Late, because these two libraries are a third of the server's start-up time, paid here in the loading thread.
        from headgate.cache.inference import Session
        from headgate.cache.rarity import rarities

        try:
            manifest = verified(folder, MODEL_MANIFEST)
            vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
            session = Session(folder / "model.int8.onnx")
            return cls(WordPiece(vocabulary), session, manifest, rarities(vocabulary), threads=threads)
        except Exception as error:
            reason = f"the embedding model in {folder} cannot be loaded: {error}"
            raise EmbedderUnavailable(reason) from error

    async def embed(self, text: str) -> Vector:
        """The unit vector of `text`. Raises EmbedderUnavailable."""
        vector: Vector = (await self._readings.of(text)).vector
        return vector

    async def read(self, text: str) -> Reading:
        """The vectors of `text` and of its pieces. Raises EmbedderUnavailable."""
        return await self._readings.of(text)

    async def _read(self, text: str) -> Reading:
        ids = self._wordpiece.encode(text)
        try:
            vector, opening, tokens = await self._batcher.submit(ids)
            return Reading(text, checked(vector, self.dimensions), tokens, ids[1:-1], opening)
        except Exception as error:
            raise EmbedderUnavailable.made_by(self.identity, error) from error

    def fits(self, text: str) -> bool:
        """False when texts other than `text` may have its very vector: it is cut off, or has characters unknown here."""
        return self._wordpiece.fits(text)

    async def close(self) -> None:
        """Fail what waits and end the threads. Idempotent."""
        await self._batcher.close()


class RemoteEmbedder:
    """Any endpoint that speaks OpenAI's `/v1/embeddings`; `post` carries one request body there and the answer back."""

    def __init__(self, post: Callable[[bytes], Awaitable[bytes]], *, model: str, dimensions: int) -> None:
        """`post` raises whatever it likes, in its own time limit; `dimensions` is what the model is known to return."""
        self.identity = f"remote:{model}/{dimensions}"
        self.dimensions = dimensions
        self._post = post
        self._model = model

    async def embed(self, text: str) -> Vector:
        """The unit vector of `text`. Raises EmbedderUnavailable."""
        request = {"model": self._model, "input": text, "encoding_format": "float"}
        try:
            body = await self._post(msgspec.json.encode(request))
            (item,) = msgspec.json.decode(body, type=_Embeddings).data
            return unit(item.embedding, self.dimensions)
        except Exception as error:
            raise EmbedderUnavailable.made_by(self.identity, error) from error

    def fits(self, text: str) -> bool:
        """False for texts so long that the endpoint may cut them."""
        return len(text) <= _REMOTE_CHARACTERS

    async def close(self) -> None:
        """Nothing to end: the connection belongs to whoever made `post`."""


class _Embedding(msgspec.Struct, frozen=True):
    embedding: list[float]


class _Embeddings(msgspec.Struct, frozen=True):
    data: list[_Embedding]
