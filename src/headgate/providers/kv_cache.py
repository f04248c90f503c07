"""KvCache: how full the memory for prompts of a vLLM server is, as its own `/metrics` says.

Only the provider's configured origin is asked, with its credentials, by the same client as for calls. The invariant: what it says is
read as numbers and nothing else; a line that cannot be read is skipped.
"""

from __future__ import annotations

import re

import msgspec

from headgate.model.errors import UpstreamError
from headgate.providers.egress import Lookup, look_up, origin_of
from headgate.providers.endpoint import Endpoint
from headgate.providers.http import Http

MAX_METRICS = 4 * 1024 * 1024
_ROW = re.compile(
    r"^vllm:(?:kv|gpu)_cache_usage_perc(?:\{(?P<labels>[^}]*)\})? +(?P<share>[0-9.eE+-]+)(?: +\d+)?\s*$", re.MULTILINE
)
_MODEL = re.compile(r'(?:^|,)\s*model_name="((?:[^"\\]|\\.)*)"')

ANY_MODEL = ""


class KvCache:
    """One server's. vLLM from 0.10 on calls the metric `kv_cache_usage_perc`, before it `gpu_cache_usage_perc`; both are 0..1."""

    def __init__(self, endpoint: Endpoint, *, lookup: Lookup = look_up) -> None:
        """Raises ValueError when the endpoint cannot be used."""
        origin = origin_of(endpoint.base_url, allow_private=endpoint.allow_private)
        headers = dict(endpoint.headers)
        if endpoint.api_key is not None:
            headers["authorization"] = f"Bearer {endpoint.api_key}"
        self._http = Http(
            msgspec.structs.replace(origin, path=""),
            name=endpoint.name,
            headers=headers,
            allow_private=endpoint.allow_private,
            timeouts=endpoint.timeouts,
            lookup=lookup,
        )

    async def read(self, *, timeout: float) -> dict[str, float]:
        """How full it is, 0..1, by the server's name of each model; under `ANY_MODEL` where it names none. Empty when it does not say."""
        try:
            answer = await self._http.get("/metrics", timeout=timeout)
            try:
                text = await answer.whole(MAX_METRICS) if answer.status == 200 else b""
            finally:
                answer.close()
        except UpstreamError:
            return {}
        return usage(text.decode("utf-8", "replace"))

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()


def usage(text: str) -> dict[str, float]:
    """The fullest engine of each model, in Prometheus' text format."""
    found: dict[str, float] = {}
    for row in _ROW.finditer(text):
        named = _MODEL.search(row["labels"] or "")
        model = ANY_MODEL if named is None else named[1]
        try:
            share = float(row["share"])
        except ValueError:
            continue
        if 0.0 <= share <= 1.0:
            found[model] = max(share, found.get(model, 0.0))
    return found
