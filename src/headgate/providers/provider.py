"""Provider: how dispatch speaks to a model, whatever its wire format.

A provider translates; it decides nothing. Retries, breakers, fallbacks and money are dispatch's.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from headgate.model.chat import ChatRequest, Event, Json
from headgate.model.clearance import Clearance
from headgate.model.deployment import Deployment


class Provider(Protocol):
    """One configured provider.

    Guarantees: raises only UpstreamError and its kin; the last event is `Done`; an answer that ends without saying so
    raises Malformed or Unavailable instead of `Done`; closing the iterator closes the connection. What the provider says of
    usage and limits is written into the clearance, also when the answer breaks off.
    """

    def send(
        self, deployment: Deployment, request: ChatRequest, clearance: Clearance, *, timeout: float
    ) -> AsyncGenerator[Event, None]:
        """Ask the deployment, for at most `clearance.limit` output tokens a choice and `timeout` seconds in all.

        The provider streams when the request does; else the answer comes as one Delta and Done.
        """
        ...

    async def embed(self, deployment: Deployment, body: Json, clearance: Clearance, *, timeout: float) -> Json:
        """OpenAI's embeddings call; the answer in OpenAI's shape. Raises UpstreamError."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...
