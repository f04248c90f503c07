"""Text to unit vectors by a library installed beside the gateway: sentence-transformers or fastembed, with any model that it runs.

The one invariant: a vector depends on its text alone, and its identity on what the model really does, not only on what it is called:
a model's name may mean other weights tomorrow. Nothing of either library is loaded before `load`, which a thread must call.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Final, Literal

from headgate.cache.batching import MicroBatcher
from headgate.cache.reading import EmbedderUnavailable, Vector
from headgate.cache.unit import NotUnit, checked, unit

Library = Literal["sentence-transformers", "fastembed"]
Encode = Callable[[Sequence[str]], Sequence[Vector]]

PROBES: Final = ("How do I reset my password?", "The train to Lyon leaves at 7.40 pm, not at 8.", "x")
"""Texts whose vectors tell one model from another."""

_CHARACTERS_PER_PIECE: Final = 4
_LONGEST_PIECE: Final = 16
"""A text with more characters than this for each piece that the model sees is not counted, it is too long."""


class LocalEmbedder:
    """One loaded model on one worker thread, with micro-batches."""

    def __init__(self, encode: Encode, whole: Callable[[str], bool], *, name: str) -> None:
        """`encode` blocks and returns a vector of any length for each text; `whole` tells whether a text is seen to its end. The
        model is asked for a few vectors at once. Raises NotUnit when they are none."""
        probes = encode(PROBES)
        self.dimensions = len(probes[0])
        vectors = [unit(probe, self.dimensions) for probe in probes]
        # Signs only: another processor rounds otherwise, another model or normaliser points elsewhere.
        signs = b"".join((vector > 0).tobytes() for vector in vectors)
        self.identity = f"{name}/{self.dimensions}-{hashlib.sha256(signs).hexdigest()[:12]}"
        self._whole = whole
        self._encode = encode
        self._batcher = MicroBatcher(self._run, width=lambda text: len(text) // _CHARACTERS_PER_PIECE + 1)

    async def embed(self, text: str) -> Vector:
        """The unit vector of `text`. Raises EmbedderUnavailable."""
        # A lone surrogate is no text to a library, and would be the failure of its whole batch.
        sound = text.encode(errors="replace").decode()
        try:
            return checked(await self._batcher.submit(sound), self.dimensions)
        except Exception as error:
            raise EmbedderUnavailable.made_by(self.identity, error) from error

    def _run(self, texts: Sequence[str]) -> list[Vector]:
        # In the worker thread. One text's nonsense is that text's failure, not its neighbours'.
        return [self._unit(vector) for vector in self._encode(texts)]

    def _unit(self, vector: Vector) -> Vector:
        try:
            return unit(vector, self.dimensions)
        except NotUnit:
            return vector  # refused where it is asked for

    def fits(self, text: str) -> bool:
        """False when texts other than `text` may have its very vector: the model cuts it, or does not know a piece of it."""
        return self._whole(text)

    async def close(self) -> None:
        """Fail what waits and end the worker thread. Idempotent."""
        await self._batcher.close()


def load(library: Library, model: str, *, revision: str | None = None, path: str | None = None) -> LocalEmbedder:
    """Load a model, from the folder `path` where one is given, else as the library finds it, which may fetch it. Blocks: use a thread.

    Raises EmbedderUnavailable when the library is not installed or cannot load the model.
    """
    try:
        if library == "fastembed":
            loaded = import_module("fastembed").TextEmbedding(model, threads=1, specific_model_path=path)
            return of_fastembed(loaded, model=model)
        found = import_module("sentence_transformers").SentenceTransformer(path or model, revision=revision)
        return of_sentence_transformers(found, model=model if revision is None else f"{model}@{revision}")
    except ModuleNotFoundError as error:
        reason = f"{library} is not installed ({error}); run `pip install 'headgate[{library}]'`"
        raise EmbedderUnavailable(reason) from error
    except Exception as error:
        reason = f"{library} cannot load {path or model}: {error}"
        raise EmbedderUnavailable(reason) from error


def of_sentence_transformers(loaded: Any, *, model: str) -> LocalEmbedder:
    """Around a `SentenceTransformer` named `model`."""

    def encode(texts: Sequence[str]) -> list[Vector]:
        return list(loaded.encode(list(texts), batch_size=len(texts), show_progress_bar=False, convert_to_numpy=True))

    return LocalEmbedder(
        encode, whole(loaded.tokenizer.backend_tokenizer, loaded.max_seq_length), name=f"sentence-transformers:{model}"
    )


def of_fastembed(loaded: Any, *, model: str) -> LocalEmbedder:
    """Around a fastembed `TextEmbedding` named `model`."""

    def encode(texts: Sequence[str]) -> list[Vector]:
        # One at a time: many of its models take their scales from whatever is in the batch (docs/adr/0005 measures what that does).
        return list(loaded.embed(list(texts), batch_size=1))

    tokenizer = loaded.model.tokenizer
    return LocalEmbedder(encode, whole(tokenizer, tokenizer.truncation["max_length"]), name=f"fastembed:{model}")


def whole(tokenizer: Any, longest: int) -> Callable[[str], bool]:
    """Tells of a text whether it has at most `longest` pieces, marks included, and no unknown one.

    `tokenizer` is a `tokenizers.Tokenizer`; a copy of it is used, because one that cuts and pads cannot be used by two threads.
    """
    state = tokenizer.to_str()
    own = type(tokenizer).from_str(state)
    own.no_truncation()
    own.no_padding()
    pieces = json.loads(state)["model"]
    named = pieces.get("unk_token")
    unknown = pieces.get("unk_id") if named is None else own.token_to_id(named)

    def check(text: str) -> bool:
        if len(text) > longest * _LONGEST_PIECE:
            return False
        try:
            ids = own.encode(text).ids
        except Exception:  # a lone surrogate is no text to it
            return False
        return len(ids) <= longest and unknown not in ids

    return check
