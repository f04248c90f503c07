"""Egress: which servers Headgate may connect to.

The invariant: unless the operator allows private addresses, no connection is opened to an address that is not on the public
internet. The check is made on the very address that is connected to, never on a name that is looked up again afterwards, so
a name that changes its address between check and use gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import msgspec

from headgate.model.errors import Unavailable

FRESH_SECONDS = 60.0
"""How long looked-up addresses are used again."""

CLOUD_METADATA = frozenset({ipaddress.ip_address("168.63.129.16")})
"""Addresses that look public but answer only inside a cloud, with its secrets."""

TRANSLATED = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
"""IPv6 prefixes that carry an IPv4 address in their last 32 bits (RFC 6052, RFC 8215)."""

_DOMAIN = re.compile(
    r"(?!.{254})(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.?"
)
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Lookup = Callable[[str, int], Awaitable[list[str]]]


class Origin(msgspec.Struct, frozen=True):
    """Where a provider is: `path` starts with a slash or is empty, and never ends in one."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host and port as the `Host` header has them: the port only when it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


_DEFAULT_PORTS = {"http": 80, "https": 443}


def origin_of(base_url: str, *, allow_private: bool = False) -> Origin:
    """The origin and path of a configured base URL.

    Raises ValueError when it is not a plain http or https URL, or names an address that is not allowed.
    """
    if not re.fullmatch(r"[!-\[\]-~]+", base_url):
        raise ValueError("A base URL must be plain ASCII without spaces and backslashes.")
    parts = urlsplit(base_url)
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError("A base URL must start with http:// or https://.")
    if "@" in parts.netloc:
        raise ValueError("A base URL must not hold a user name or password; use api_key or headers.")
    if parts.query or parts.fragment or base_url.endswith(("?", "#")):
        raise ValueError("A base URL must not have a query or a fragment.")
    host, port = _host_and_port(parts.netloc, _DEFAULT_PORTS[parts.scheme])
    if not allow_private:
        _refuse_private_host(host)
    return Origin(parts.scheme, host, port, parts.path.rstrip("/"))


def _host_and_port(netloc: str, default: int) -> tuple[str, int]:
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?", netloc)
    port = default if found is None or found[2] is None else int(found[2])
    if found is None or not 0 < port < 65_536:
        raise ValueError("A base URL needs a host, and a port between 1 and 65535 if any.")
    host = found[1].strip("[]").lower()
    if ":" in host or _NUMERIC.fullmatch(host):
        try:
            return str(ipaddress.ip_address(host)), port
        except ValueError:
            raise ValueError(f"{host!r} is not an IP address in its usual form.") from None
    if not _DOMAIN.fullmatch(host):
        raise ValueError(f"{host!r} is not a host name.")
    return host, port


def _refuse_private_host(host: str) -> None:
    name = host.rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        raise ValueError(f"{host!r} is this machine; set allow_private to allow it.")
    address = literal(host)
    reason = None if address is None else forbidden(address)
    if reason is not None:
        raise ValueError(f"{host!r} is {reason}; set allow_private to allow it.")


def literal(host: str) -> Address | None:
    """The address that `host` spells out, or None when it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def forbidden(address: Address) -> str | None:
    """Why this address is not on the public internet, or None when it is."""
    embedded = _embedded(address)
    if embedded is not None:
        return forbidden(embedded)
    if address in CLOUD_METADATA:
        return "a cloud's metadata address"
    for reason, holds in (
        ("an unspecified address", address.is_unspecified),
        ("a loopback address", address.is_loopback),
        ("a link-local address", address.is_link_local),
        ("a multicast address", address.is_multicast),
        ("a private address", not address.is_global or address.is_reserved),
    ):
        if holds:
            return reason
    return None


def _embedded(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for: mapped, 6to4, Teredo or translated."""
    if not isinstance(address, ipaddress.IPv6Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if any(address in network for network in TRANSLATED):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


async def look_up(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system resolves it. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Egress:
    """The addresses of one origin that may be connected to, looked up again once a minute."""

    def __init__(self, origin: Origin, *, allow_private: bool = False, lookup: Lookup = look_up) -> None:
        """`lookup` turns a name into addresses and raises OSError."""
        self._origin = origin
        self._allow_private = allow_private
        self._lookup = lookup
        self._addresses: list[str] = [] if literal(origin.host) is None else [origin.host]
        self._stale_at = 0.0 if literal(origin.host) is None else float("inf")

    async def addresses(self) -> list[str]:
        """Addresses to try, in order. Raises Unavailable when the name has none or any of them is not allowed."""
        now = asyncio.get_running_loop().time()
        if now >= self._stale_at:
            self._addresses = await self._vetted()
            self._stale_at = now + FRESH_SECONDS
        return self._addresses

    async def _vetted(self) -> list[str]:
        try:
            found = await self._lookup(self._origin.host, self._origin.port)
        except OSError:
            raise Unavailable("cannot be reached: its name does not resolve") from None
        if not found:
            raise Unavailable("cannot be reached: its name does not resolve")
        if not self._allow_private:
            for address in found:
                reason = forbidden(ipaddress.ip_address(address.partition("%")[0]))
                if reason is not None:
                    raise Unavailable(f"is not connected to: its name resolves to {reason}")
        return found

    def failed(self, address: str) -> None:
        """Try this address last from now on, and look the name up anew before the next connection."""
        if len(self._addresses) > 1 and address in self._addresses:
            self._addresses = [known for known in self._addresses if known != address] + [address]
        if literal(self._origin.host) is None:
            self._stale_at = 0.0
