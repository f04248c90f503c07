"""What every Embedder owes: a vector of the promised size and of length one, or no vector at all.

The one invariant: what these functions return is float32 of shape (d,), finite, and has length one to a thousandth.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]

LENGTH_TOLERANCE: Final = 1e-3


class NotUnit(ValueError):
    """Something other than numbers that a unit vector can be made of."""


def unit(values: Iterable[float], dimensions: int) -> Vector:
    """The numbers scaled to length one. Raises NotUnit for another count of them, for all zeros, NaN and infinity."""
    import numpy as np  # late: a server that compares nothing by meaning never loads it

    wide = np.asarray(values, np.float64)
    largest = float(np.max(np.abs(wide), initial=0.0))
    # Written so that NaN, which compares false to everything, is refused too. The largest first: squares may be too large to add.
    if not 0.0 < largest < float("inf"):
        raise NotUnit("a vector without a direction")
    wide = wide / largest
    return checked((wide / np.linalg.norm(wide)).astype(np.float32), dimensions)


def checked(vector: Vector, dimensions: int) -> Vector:
    """The vector as it is. Raises NotUnit unless it is a unit vector of that many numbers."""
    if vector.shape == (dimensions,) and abs(float(vector @ vector) - 1) < LENGTH_TOLERANCE:
        return vector
    raise NotUnit(f"the model answered with something other than a unit vector of {dimensions} numbers")
