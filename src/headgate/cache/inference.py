"""The runtime behind MiniLM: padded batches of token ids in, unit vectors out, one for each text and one for each of its pieces.

The one invariant: a row of the answer depends on its own ids alone. The graph quantises with fixed scales and masks the
padding, so a text has the same vectors (to rounding, 1e-5) in any company. This module loads the heavy libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Inferred = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float16]]


class Session:
    """One loaded graph, called with a batch. Blocks; several threads may call it at once."""

    def __init__(self, model: Path) -> None:
        """Load `model`. Raises what the runtime raises on a file it refuses."""
        options = onnxruntime.SessionOptions()
        # A batch is worked on by the thread that brings it: two batches at a time are worth more than two threads for one.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        # The graph is written with fused operators already; the runtime's own rewriting would slow it down.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        # Shapes differ from batch to batch, so a remembered allocation pattern is memory without use.
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def __call__(self, batch: Sequence[tuple[int, ...]]) -> list[Inferred]:
        """For each sequence of ids, in order: its vector, that of its first id, and those of its ids but for the first and the last,
        which are marks. The latter in half precision: their cosines move by less than 1e-3, and they are what a reading weighs."""
        ids = np.zeros((len(batch), max(map(len, batch))), np.int32)
        mask = np.zeros_like(ids)
        for row, pieces in enumerate(batch):
            ids[row, : len(pieces)] = pieces
            mask[row, : len(pieces)] = 1
        vectors, tokens = self._session.run(["vector", "tokens"], {"ids": ids, "mask": mask})
        # Each row by itself: a view would keep the whole batch alive for as long as one entry is cached.
        return [
            (vectors[row].copy(), tokens[row, 0].copy(), tokens[row, 1 : len(pieces) - 1].astype(np.float16))
            for row, pieces in enumerate(batch)
        ]
