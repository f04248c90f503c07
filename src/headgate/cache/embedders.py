"""Text to unit vectors: the model that ships inside the package, and any remote embeddings endpoint.

The one invariant: a vector that is returned has the promised size and length one, and depends on the text alone (not
on which other texts shared its batch); every other outcome is EmbedderUnavailable. Nothing here blocks the event loop.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from headgate.cache.batching import MicroBatcher
from headgate.cache.wordpiece import NORMALISER_VERSION, WordPiece

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]
    Pieces = tuple[int, ...]
    Infer = Callable[[Sequence[Pieces]], Sequence[Vector]]

SHIPPED: Final = Path(__file__).parent / "minilm"
_LENGTH_TOLERANCE: Final = 1e-3
_REMOTE_CHARACTERS: Final = 8_000


class EmbedderUnavailable(Exception):
    """No vector for this text now: the model cannot be loaded, is overloaded, closed, or answered nonsense."""


class Manifest(msgspec.Struct, frozen=True):
    """What lies in a model's folder, written by the export: its version and the SHA-256 of each file."""

    name: str
    version: str
    dimensions: int
    files: dict[str, str]


class MiniLM:
    """all-MiniLM-L6-v2 in this process: one session, one worker thread, micro-batches.

    Only the first 128 word pieces of a text reach the vector; `fits` tells when that is not all of it.
    """

    def __init__(self, wordpiece: WordPiece, infer: Infer, manifest: Manifest) -> None:
        """Compose loaded parts; `load` is the way in. `infer` blocks and returns one unit vector per sequence of ids."""
        digest = hashlib.sha256("".join(sorted(manifest.files.values())).encode()).hexdigest()
        self.identity = f"{manifest.name}@{manifest.version}-{digest[:12]}+{NORMALISER_VERSION}"
        self.dimensions = manifest.dimensions
        self._wordpiece = wordpiece
        self._batcher = MicroBatcher(infer, width=len)

    @classmethod
    def load(cls, folder: Path = SHIPPED, *, threads: int = 1) -> MiniLM:
        """Read and verify the files and build the session with that many threads. Blocks for some 0.2 s: use a thread.

        Raises EmbedderUnavailable when a file is absent, altered or refused by the runtime.
        """
        # Late, because these two libraries are a third of the server's start-up time, paid here in the loading thread.
        from headgate.cache.inference import Session

        try:
            manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
            _verify(folder, manifest)
            vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
            return cls(WordPiece(vocabulary), Session(folder / "model.int8.onnx", threads=threads), manifest)
        except EmbedderUnavailable:
            raise
        except Exception as error:
            reason = f"the embedding model in {folder} cannot be loaded: {error}"
            raise EmbedderUnavailable(reason) from error

    async def embed(self, text: str) -> Vector:
        """The unit vector of `text`. Raises EmbedderUnavailable."""
        pieces = self._wordpiece.encode(text)
        try:
            vector = await self._batcher.submit(pieces)
        except Exception as error:
            reason = f"no vector from {self.identity}: {type(error).__name__}"
            raise EmbedderUnavailable(reason) from error
        return _checked(vector, self.dimensions)

    def fits(self, text: str) -> bool:
        """False when texts other than `text` may have its very vector: it is cut off, or has characters unknown here."""
        return self._wordpiece.fits(text)

    async def close(self) -> None:
        """Fail what waits and end the worker thread. Idempotent."""
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
            vector = _unit(item.embedding)
        except Exception as error:
            reason = f"no vector from {self.identity}: {type(error).__name__}"
            raise EmbedderUnavailable(reason) from error
        return _checked(vector, self.dimensions)

    def fits(self, text: str) -> bool:
        """False for texts so long that the endpoint may cut them."""
        return len(text) <= _REMOTE_CHARACTERS

    async def close(self) -> None:
        """Nothing to end: the connection belongs to whoever made `post`."""


class _Embedding(msgspec.Struct, frozen=True):
    embedding: list[float]


class _Embeddings(msgspec.Struct, frozen=True):
    data: list[_Embedding]


def _verify(folder: Path, manifest: Manifest) -> None:
    for name, expected in manifest.files.items():
        with (folder / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                reason = f"{folder / name} is not the file that its manifest describes"
                raise EmbedderUnavailable(reason)


def _unit(values: list[float]) -> Vector:
    import numpy as np  # late, as above: nothing else in this module needs it

    length = math.sqrt(math.fsum(value * value for value in values))
    return np.array([value / length for value in values], np.float32)


def _checked(vector: Vector, dimensions: int) -> Vector:
    # Written so that NaN, which compares false to everything, is refused too.
    if vector.shape == (dimensions,) and abs(float(vector @ vector) - 1) < _LENGTH_TOLERANCE:
        return vector
    reason = f"the model answered with something other than a unit vector of {dimensions} numbers"
    raise EmbedderUnavailable(reason)
