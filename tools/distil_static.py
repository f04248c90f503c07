"""Distil the static vectors that ship in `headgate/cache/minilm` from the model beside them.

    python tools/distil_static.py                      # from and into the source tree

The method is Model2Vec's (Tulkens and van Dongen, 2024, https://github.com/MinishLab/model2vec): each piece of the vocabulary goes
through the model by itself, principal components make the vectors short, and each is weighted by how rare its piece is. No text but the
vocabulary is used. The whole table has one scale, which cancels out when a sum is brought to length one, so it is stored as plain bytes.
Run on another machine, the last bit of a byte may come out otherwise, as its linear algebra rounds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headgate.cache.inference import Session
from headgate.cache.rarity import rarities
from headgate.cache.shipped import MODEL_MANIFEST, SHIPPED, STATIC_MANIFEST, verified

NAME, VERSION = "all-MiniLM-L6-v2-static", "1"
WIDTH = 96  # with its number an entry takes 117 bytes; 128 components spare little more, 64 much less
STEPS = 127
CLIPPED = 99.99  # per cent of the numbers that are within the scale: a few outliers would take a bit from all others
BATCH = 64

Floats = NDArray[np.float32]


def alone(session: Session, vocabulary: list[str]) -> Floats:
    """The model's vector of each piece by itself, between its two marks; shape (V, 384)."""
    start, end = vocabulary.index("[CLS]"), vocabulary.index("[SEP]")
    ids = [(start, number, end) for number in range(len(vocabulary))]
    batches = [ids[first : first + BATCH] for first in range(0, len(ids), BATCH)]
    return np.stack([vector for batch in batches for vector, *_ in session(batch)])


def components(vectors: Floats, count: int) -> Floats:
    """The vectors from their mean along their `count` principal components, each pointing to where its largest number is positive."""
    centred = vectors - vectors.mean(0)
    axes: Any = np.linalg.eigh(centred.T.astype(np.float64) @ centred)[1][:, ::-1][:, :count]
    turned: Floats = (centred @ (axes * np.sign(axes[np.abs(axes).argmax(0), range(count)]))).astype(np.float32)
    return turned


def rounded(table: Floats) -> NDArray[np.int8]:
    scale = STEPS / np.percentile(np.abs(table), CLIPPED)
    whole: NDArray[np.int8] = np.clip(np.rint(table * scale), -STEPS, STEPS).astype(np.int8)
    return whole


def main() -> int:
    parser = argparse.ArgumentParser(description="Distil the static vectors that ship in the package from its model.")
    parser.add_argument(
        "--folder", type=Path, default=SHIPPED, help="the model's, written to (default: the source tree's)"
    )
    folder = parser.parse_args().folder
    model = verified(folder, MODEL_MANIFEST)
    vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    vectors = alone(Session(folder / "model.int8.onnx"), vocabulary)
    np.save(folder / "static.int8.npy", rounded(components(vectors, WIDTH) * rarities(vocabulary)[:, None]))
    files = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("static.int8.npy", "vocab.txt")
    }
    manifest = {"name": NAME, "version": VERSION, "dimensions": WIDTH, "files": files}
    manifest |= {"source": f"{model.name}@{model.version}-{model.digest}"}
    (folder / STATIC_MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    print(f"wrote {len(vocabulary):,} vectors of {WIDTH} numbers into {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
