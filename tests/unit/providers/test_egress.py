"""Which servers may be connected to."""

from __future__ import annotations

import ipaddress

import pytest

from headgate.model.errors import Unavailable
from headgate.providers.egress import Egress, Origin, forbidden, origin_of


@pytest.mark.parametrize(
    ("url", "origin", "authority"),
    [
        ("https://api.openai.com/v1", Origin("https", "api.openai.com", 443, "/v1"), "api.openai.com"),
        ("https://api.openai.com/v1/", Origin("https", "api.openai.com", 443, "/v1"), "api.openai.com"),
        ("https://API.example.com", Origin("https", "api.example.com", 443, ""), "api.example.com"),
        ("http://8.8.8.8:8080/a/b", Origin("http", "8.8.8.8", 8080, "/a/b"), "8.8.8.8:8080"),
        ("https://[2606:4700::1111]:8443", Origin("https", "2606:4700::1111", 8443, ""), "[2606:4700::1111]:8443"),
        ("http://my_host-1.internal.example", Origin("http", "my_host-1.internal.example", 80, ""), None),
    ],
)
def test_a_base_url_is_split_into_its_parts(url: str, origin: Origin, authority: str | None) -> None:
    assert origin_of(url) == origin
    assert authority in (None, origin.authority)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.openai.com/v1",
        "ftp://example.com",
        "file:///etc/passwd",
        "unix:///run/x",
        "https://",
        "https:///v1",
        "https://user:pass@example.com",
        "https://example.com@evil.test",
        "https://example.com/?a=b",
        "https://example.com/#a",
        "https://example.com:0",
        "https://example.com:99999",
        "https://example.com:8o",
        "https://exa mple.com",
        "https://example.com\r\nx: y",
        "https://example.com\\@evil.test",
        "https://exämple.com",
        "https://-example.com",
        "https://a..b",
        "https://[::1",
        "https://[fe80::1%25eth0]",
        "http://127.1",
        "http://2130706433",
        "http://0x7f000001",
        "http://0177.0.0.1",
        "http://1.2.3.0x4",
    ],
)
def test_a_base_url_that_is_not_plain_is_refused_even_when_private_addresses_are_allowed(url: str) -> None:
    with pytest.raises(ValueError, match=r"base URL|not|Invalid"):
        origin_of(url, allow_private=True)


PRIVATE = [
    "127.0.0.1",
    "127.8.8.8",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "0.0.0.0",
    "0.1.2.3",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "192.0.2.1",
    "::",
    "::1",
    "fe80::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::a00:1",
    "2002:7f00:1::",
    "2001:db8::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public_is_refused_unless_allowed(address: str) -> None:
    url = f"http://[{address}]" if ":" in address else f"http://{address}"
    assert forbidden(ipaddress.ip_address(address))
    with pytest.raises(ValueError, match="allow_private"):
        origin_of(url)
    assert origin_of(url, allow_private=True).host


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_a_public_address_is_allowed(address: str) -> None:
    assert forbidden(ipaddress.ip_address(address)) is None


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "api.localhost"])
def test_the_names_of_this_machine_are_refused_unless_allowed(host: str) -> None:
    with pytest.raises(ValueError, match="this machine"):
        origin_of(f"http://{host}")
    assert origin_of(f"http://{host}", allow_private=True)


class Names:
    """A lookup that gives the next answer each time."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        return self.answers.pop(0)


async def test_one_private_address_among_public_ones_refuses_them_all() -> None:
    egress = Egress(origin_of("https://example.com"), lookup=Names(["8.8.8.8", "::ffff:10.0.0.1"]))
    with pytest.raises(Unavailable, match="private address"):
        await egress.addresses()


async def test_a_link_local_address_with_a_zone_is_refused() -> None:
    egress = Egress(origin_of("https://example.com"), lookup=Names(["fe80::1%eth0"]))
    with pytest.raises(Unavailable, match="link-local"):
        await egress.addresses()


async def test_addresses_are_kept_until_one_fails_and_then_checked_anew() -> None:
    """A name that turns to a private address after the check is caught at the next look-up, before any connection."""
    names = Names(["8.8.8.8", "1.1.1.1"], ["127.0.0.1"])
    egress = Egress(origin_of("https://example.com"), lookup=names)
    assert await egress.addresses() == await egress.addresses() == ["8.8.8.8", "1.1.1.1"]
    assert names.asked == 1
    egress.failed("8.8.8.8")
    with pytest.raises(Unavailable, match="loopback"):
        await egress.addresses()


async def test_a_name_without_addresses_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="does not resolve"):
        await Egress(origin_of("https://example.com"), lookup=Names([])).addresses()
