"""`headgate doctor --online`: does a provider answer, and does it accept our key?

Asks for the provider's list of models, which costs nothing, over a connection that passes the same address checks as a call.
"""

from __future__ import annotations

import asyncio
import ssl
from importlib.util import find_spec

from headgate.cli.checks import Check
from headgate.config_providers import ProviderConfig
from headgate.model.errors import Unavailable
from headgate.providers.egress import Egress, Origin, origin_of

_CREDENTIALS = {"openai": ("authorization", "Bearer "), "anthropic": ("x-api-key", "")}


async def reach(name: str, provider: ProviderConfig) -> Check:
    """What the provider's answer says about the configuration."""
    label = f"provider {name}"
    if provider.kind == "litellm":
        if find_spec("litellm") is None:
            return Check(label, "fail", "LiteLLM is not installed", "pip install 'headgate[litellm]'")
        return Check(label, "ok", "LiteLLM is installed; its providers are asked when they are called")
    try:
        async with asyncio.timeout(provider.timeouts.connect + provider.timeouts.first_byte):
            status = await _status(provider)
    except (OSError, Unavailable, ValueError) as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else " ".join(str(error).split())
        return Check(label, "fail", reason, f"check base_url ({provider.base_url}) and the network")
    if status in (401, 403):
        return Check(label, "fail", f"refuses the api_key ({status})", "set a valid api_key")
    if status >= 500:
        return Check(label, "warn", f"reachable, but answers {status}", "try again later")
    return Check(label, "ok", "reachable" if status >= 400 else "reachable, and accepts the key")


async def _status(provider: ProviderConfig) -> int:
    """The status of `GET {base_url}/models`. Raises OSError, Unavailable, ValueError."""
    origin = origin_of(provider.base_url, allow_private=provider.allow_private)
    addresses = await Egress(origin, allow_private=provider.allow_private).addresses()
    secure = ssl.create_default_context() if origin.scheme == "https" else None
    name = origin.host if secure else None
    reader, writer = await asyncio.open_connection(addresses[0], origin.port, ssl=secure, server_hostname=name)
    try:
        writer.write(_question(provider, origin))
        line = await reader.readline()
    finally:
        writer.close()
    if not line.startswith(b"HTTP/1."):
        raise ValueError("the answer is not HTTP")
    return int(line.split()[1])


def _question(provider: ProviderConfig, origin: Origin) -> bytes:
    headers = {"host": origin.authority, "accept": "application/json", "connection": "close"}
    if provider.kind == "anthropic":
        headers["anthropic-version"] = "2023-06-01"
    if provider.api_key is not None:
        header, prefix = _CREDENTIALS[provider.kind]
        headers[header] = prefix + provider.api_key.get_secret_value()
    headers |= {header.lower(): value.get_secret_value() for header, value in provider.headers.items()}
    lines = [f"GET {origin.path}/models HTTP/1.1", *(f"{header}: {value}" for header, value in headers.items())]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a header holds a line break")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
