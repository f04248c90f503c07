"""OpenAI's embeddings: one unit vector per text, drawn from the text's SHAKE-256 digest.

Equal texts get equal vectors and different texts nearly orthogonal ones; no meaning is in them.
"""

from __future__ import annotations

import array
import base64
import hashlib
import math
import sys
from typing import Any, Literal

import msgspec

from headgate.simulator import answers, openai_wire, wire
from headgate.simulator.answers import Ask, Quirks
from headgate.simulator.delivery import Delivery
from headgate.simulator.wire import Rejection, Stamp

DIMENSIONS = 1536
MAX_DIMENSIONS = 4096
MAX_INPUTS = 2048


class Body(msgspec.Struct):
    """The body of `POST /v1/embeddings`."""

    model: str
    input: str | list[str | int | list[int]]
    dimensions: int | None = None
    encoding_format: Literal["float", "base64"] | None = None


class EmbeddingAsk(Ask, frozen=True):
    """One embedding call as understood; `turns` are the inputs."""

    dimensions: int = DIMENSIONS
    in_base64: bool = False


class OpenAIEmbeddings:
    """`POST /v1/embeddings`."""

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(Body)

    def read(self, body: bytes) -> EmbeddingAsk:
        """Understand a request body; raises Rejection."""
        asked = wire.decode(self._decoder, body)
        texts, cost = _inputs(asked.input)
        dimensions = DIMENSIONS if asked.dimensions is None else asked.dimensions
        if not 1 <= len(texts) <= MAX_INPUTS:
            raise Rejection(400, f"Invalid 'input': expected 1 to {MAX_INPUTS} inputs.", param="input")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise Rejection(400, f"Invalid 'dimensions': expected 1 to {MAX_DIMENSIONS}.", param="dimensions")
        return EmbeddingAsk(
            model=asked.model,
            turns=tuple(texts),
            question=texts[-1],
            prompt_tokens=cost,
            dimensions=dimensions,
            in_base64=asked.encoding_format == "base64",
        )

    def deliver(self, ask: Ask, stamp: Stamp, quirks: Quirks) -> Delivery:
        """One vector per input."""
        if not isinstance(ask, EmbeddingAsk):
            raise TypeError(f"an embedding call is needed, got {type(ask).__name__}")
        value: dict[str, Any] = {
            "object": "list",
            "data": [
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": _shown(embed(text, ask.dimensions), in_base64=ask.in_base64),
                }
                for index, text in enumerate(ask.turns)
            ],
            "model": ask.model,
        }
        if not quirks.no_usage:
            value["usage"] = {"prompt_tokens": ask.prompt_tokens, "total_tokens": ask.prompt_tokens}
        return wire.json_delivery(ask, wire.json_head(f"x-request-id: req_sim{stamp.number:012d}"), value, 0)

    def reject(self, rejection: Rejection, stamp: Stamp) -> Delivery:
        """The error in OpenAI's shape."""
        return openai_wire.reject(rejection, stamp)

    def no_money(self) -> Rejection:
        """OpenAI's error for an account that is empty."""
        return openai_wire.no_money()

    def too_long(self, prompt_tokens: int) -> Rejection:
        """OpenAI's error for inputs that do not fit."""
        return Rejection(
            400,
            f"This model's maximum context length is 8192 tokens, however you requested {prompt_tokens} tokens. "
            "Please reduce your prompt.",
            param="input",
            code="context_length_exceeded",
        )


def embed(text: str, dimensions: int) -> array.array[float]:
    """The unit vector of a text, as 32-bit floats."""
    raw = array.array("h", hashlib.shake_256(text.encode()).digest(2 * dimensions))
    if sys.byteorder == "big":
        raw.byteswap()
    # Half a step off zero: no component, and so no length, can be zero.
    length = math.sqrt(sum((part + 0.5) ** 2 for part in raw))
    return array.array("f", [(part + 0.5) / length for part in raw])


def _inputs(given: str | list[str | int | list[int]]) -> tuple[list[str], int]:
    """The inputs as texts (token lists in decimal) and their tokens."""
    if isinstance(given, str):
        return [given], answers.tokens(given)
    if given and all(isinstance(one, int) for one in given):
        return [" ".join(map(str, given))], len(given)
    texts, cost = [], 0
    for one in given:
        if isinstance(one, int):
            raise Rejection(400, "Invalid 'input': texts and tokens are mixed.", param="input")
        texts.append(one if isinstance(one, str) else " ".join(map(str, one)))
        cost += answers.tokens(one) if isinstance(one, str) else len(one)
    return texts, cost


def _shown(vector: array.array[float], *, in_base64: bool) -> list[float] | str:
    if not in_base64:
        return vector.tolist()
    if sys.byteorder == "big":
        vector.byteswap()
    return base64.b64encode(vector.tobytes()).decode()
