"""Uplift: by how much the better model's answer is likely to be better, from a question's vector. One file, fitted on a log.

A linear model on the vector of the cache's own embedder and on the question's length, and points that say where it has evidence. On
questions of kinds that it has not seen such a model may be worse than chance, so the file also holds how near a question must lie to
the points (`uplift_fit` finds that out by leaving out whole kinds), and what lies farther off gets no estimate.

Invariant: an estimate depends on the file and the question alone; a file that does not fit the embedder is refused when it is opened.
"""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

NEAREST = 8
"""Points whose mean similarity says how near a question is."""
LENGTH = 0.3
"""Weight of the length beside a unit vector, chosen while looking at three public sets."""
MIDDLE = 5.5
"""Logarithm of a usual length, some 240 characters."""


class UpliftUnavailable(Exception):
    """A file cannot be used. The message is one line that says why."""


class UpliftFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file holds, as one JSON object.

    format      1
    embedder    identity of the model that made the vectors, and their size in `dimensions`
    rows        that it was fitted on
    cheap, rich  mean quality of both models, 0 to 1
    weights     of the vector's components, then of the length; and the `intercept`
    floor       mean similarity to the nearest points below which nothing is said
    points      the vectors of some of the rows, int8, base64
    """

    format: Literal[1]
    embedder: str
    dimensions: int
    rows: int
    cheap: float
    rich: float
    weights: tuple[float, ...]
    intercept: float
    floor: float
    points: str


class Uplift:
    """A fitted model."""

    def __init__(self, file: UpliftFile) -> None:
        """Raises UpliftUnavailable when its parts do not fit each other. Loads numpy."""
        from headgate.routing.knn_cells import restored  # late: numpy

        self.file = file
        try:
            raw = base64.b64decode(file.points, validate=True)
        except ValueError:
            raise UpliftUnavailable("its points are no base64") from None
        if file.dimensions < 1 or not raw or len(raw) % file.dimensions or len(file.weights) != file.dimensions + 1:
            raise UpliftUnavailable(f"its points and weights are not of {file.dimensions} dimensions")
        import numpy as np  # late: half a start-up's time

        size = file.dimensions
        self._points = restored([raw[at : at + size] for at in range(0, len(raw), size)])
        self._weights: Floats = np.array(file.weights, np.float32)

    @classmethod
    def load(cls, path: Path, embedder: str) -> Uplift:
        """Read a file that was fitted with this embedder. Raises UpliftUnavailable."""
        try:
            file = msgspec.json.decode(path.read_bytes(), type=UpliftFile)
        except OSError as error:
            raise UpliftUnavailable(f"{path}: {error.strerror or error}") from None
        except msgspec.DecodeError as error:
            raise UpliftUnavailable(f"{path} is no uplift model: {error}") from None
        if file.embedder != embedder:
            raise UpliftUnavailable(f"{path} was fitted with {file.embedder}, and questions are read by {embedder}")
        try:
            return cls(file)
        except UpliftUnavailable as error:
            raise UpliftUnavailable(f"{path}: {error}") from None

    def save(self, path: Path) -> None:
        """Write the file. Raises OSError."""
        path.write_bytes(msgspec.json.encode(self.file))

    def estimate(self, vector: Floats, characters: int) -> float | None:
        """How much better the better model's answer is, -1 to 1; None where the question is too far from all that is known."""
        if self.nearness(vector) < self.file.floor:
            return None
        return self.order(vector, characters)

    def order(self, vector: Floats, characters: int) -> float:
        """The estimate, wherever the question lies."""
        total = float(self._weights[:-1] @ vector) + float(self._weights[-1]) * scaled(characters)
        return max(-1.0, min(1.0, total + self.file.intercept))

    def nearness(self, vector: Floats) -> float:
        """Mean similarity to the nearest points."""
        import numpy as np  # loaded by now

        # Not by BLAS: see `knn_cells`.
        near = np.einsum("ij,j->i", self._points, vector)
        most = min(NEAREST, len(near))
        return float(np.partition(near, len(near) - most)[-most:].mean())


def scaled(characters: int) -> float:
    """A question's length as the model sees it."""
    return LENGTH * (math.log1p(characters) - MIDDLE)
