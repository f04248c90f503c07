"""Headgate: an AI gateway for multi-tenant products.

As a library, the same engine that `headgate serve` puts behind HTTP:

    async with open_gateway() as gateway:
        caller = Principal(tenant="acme")
        request = ChatRequest.parse({"model": "auto", "messages": [{"role": "user", "content": "Hello!"}]})
        async with await gateway.chat(caller, request) as reply:
            print((await reply.completion()).text)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headgate.assembly import open_gateway
    from headgate.config import Config
    from headgate.config_file import load_config
    from headgate.model.chat import ChatRequest, Completion
    from headgate.model.errors import GatewayError
    from headgate.model.tenancy import Policy, Principal, Wishes
    from headgate.pipeline import Gateway
    from headgate.reply import Reply

__all__ = [
    "ChatRequest",
    "Completion",
    "Config",
    "Gateway",
    "GatewayError",
    "Policy",
    "Principal",
    "Reply",
    "Wishes",
    "load_config",
    "open_gateway",
]

_HOMES = {
    "open_gateway": "assembly",
    "Config": "config",
    "load_config": "config_file",
    "ChatRequest": "model.chat",
    "Completion": "model.chat",
    "GatewayError": "model.errors",
    "Policy": "model.tenancy",
    "Principal": "model.tenancy",
    "Wishes": "model.tenancy",
    "Gateway": "pipeline",
    "Reply": "reply",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `headgate --help` needs none of them."""
    if name not in _HOMES:
        raise AttributeError(f"module 'headgate' has no attribute {name!r}")
    from importlib import import_module  # late, as all that follows from it

    return getattr(import_module(f"headgate.{_HOMES[name]}"), name)
