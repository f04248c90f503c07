"""Wrong methods, strange paths and hosts, and bytes that are not HTTP: a typed error, and nothing done for it."""

from __future__ import annotations

import json
import random
import socket

import pytest

from tests.contract.house import ADMIN_KEY, House, Tenant, eventually, parsed, refused, written

pytestmark = pytest.mark.usefixtures("unharmed")

CHAT = "/v1/chat/completions"
GOOD = {"model": "auto", "messages": [{"role": "user", "content": "How do I export my invoices?"}]}


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD"])
def test_a_wrong_method_is_told_the_right_one(house: House, tenant: Tenant, method: str) -> None:
    for path in (CHAT, "/chat", "/v1/embeddings"):
        answer = house.request(method, path, key=tenant.key)
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
        assert method == "HEAD" or refused(answer, 405)["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/models/auto", "/v1/usage", "/healthz", "/readyz", "/metrics", "/admin/health", "/docs"]
)
def test_what_is_only_read_takes_no_post(house: House, path: str) -> None:
    answer = house.request("POST", path, {})
    assert "GET" in answer.headers["allow"]
    refused(answer, 405)


STRANGE_PATHS = [
    "/",
    "//",
    "//admin",
    "//admin/tenants",
    "/v1//chat/completions",
    "/v1/../admin/tenants",
    "/v1/admin/tenants",
    "/v1/healthz",
    "/v1/chat",
    "/./admin/tenants",
    "/ADMIN/tenants",
    "/admin;/tenants",
    "/admin\\tenants",
    "/%2561dmin/tenants",
    "/admin/tenants/",
    "/admin",
    "/admin/",
    "/admin/nothing",
    "/v1/chat/completions/",
    "/v1/chat/completions%00",
    "/v1/completions/chat",
    "/robots.txt",
    "/../../etc/passwd",
    "/docs/../admin/tenants",
    "/%ff%fe",
    "/" + "a" * 20_000,
]


@pytest.mark.parametrize("path", STRANGE_PATHS)
def test_a_path_that_does_not_exist_is_not_found(house: House, path: str) -> None:
    answer = house.request("GET", path)
    assert refused(answer, 404)["code"] == "not_found"
    assert "location" not in answer.headers
    assert len(answer.body) < 1_000


@pytest.mark.parametrize(
    "path", ["/admin/tenants", "/admin%2Ftenants", "/%61dmin/tenants", "/admin//tenants", "/admin/../healthz", "/admin"]
)
@pytest.mark.parametrize(
    "host", ["x", "x/docs", "x?", "127.0.0.1@evil.example", "evil.example/healthz#", "", "[::1", "x:y"]
)
def test_no_manner_of_writing_the_path_or_the_host_opens_admin(
    house: House, tenant: Tenant, path: str, host: str
) -> None:
    for key, status in ((tenant.key, 403), (None, 401)):
        headers = {
            "Host": host,
            "X-Forwarded-Host": "localhost",
            "X-Original-URL": "/healthz",
            "X-Rewrite-URL": "/docs",
        }
        assert refused(house.request("GET", path, key=key, headers=headers), status)


def test_a_whole_url_as_target_opens_nothing_either(house: House, tenant: Tenant) -> None:
    raw = f"GET http://evil.example/admin/tenants HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {tenant.key}\r\n\r\n"
    assert house.raw(raw.encode()).startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize(
    "query",
    [
        "from=1&from=2",
        "from=soon",
        "to=nan",
        "from=inf",
        "group_by=shoe",
        "group_by=model,model;",
        "colour=red",
        "from=%ff",
        "tenant=other",
    ],
)
def test_a_wrong_parameter_is_refused(house: House, tenant: Tenant, query: str) -> None:
    answer = house.request("GET", f"/v1/usage?{query}", key=tenant.key)
    assert answer.status == 400
    assert answer.error
    if "tenant" not in query:
        assert house.request("GET", f"/admin/usage?{query}").status == 400


BODY = json.dumps(GOOD).encode()
BROKEN_HTTP = {
    "two lengths": b"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "length and chunked": b"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    "negative length": b"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "length no number": b"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Length: two\r\n\r\n",
    "length too large": b"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n",
    "space before colon": b"GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n",
    "no header name": b"GET /healthz HTTP/1.1\r\n: x\r\n\r\n",
    "garbage": b"\x00\xff\x00\xff" * 64 + b"\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "unknown method": b"BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n",
    "path in bytes": b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    "no path": b"GET  HTTP/1.1\r\nHost: x\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "connect": b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "bad chunk": b"POST /chat HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "many headers": b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 5_000 + b"\r\n",
    "long header": b"GET /healthz HTTP/1.1\r\nHost: x\r\na: " + b"b" * 200_000 + b"\r\n\r\n",
    "long path": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "null in a header": b"GET /healthz HTTP/1.1\r\nHost: x\r\na: b\x00c\r\n\r\n",
}


@pytest.mark.parametrize("raw", BROKEN_HTTP.values(), ids=BROKEN_HTTP.keys())
def test_broken_http_gets_an_error_and_never_an_answer(house: House, raw: bytes) -> None:
    received = house.raw(raw, closes=False)
    answer = parsed(received)
    assert 400 <= answer.status < 500, received[:300]
    assert answer.error["type"] == "invalid_request_error"


@pytest.mark.parametrize("cut", [1, 20, 60, -1])
def test_half_a_request_is_nothing(house: House, tenant: Tenant, cut: int) -> None:
    whole = written(CHAT, BODY, tenant.key)
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", house.port)) as line:
            line.sendall(whole[:cut])


def test_a_whole_body_that_promised_more_is_not_answered(house: House, tenant: Tenant) -> None:
    """The JSON is complete, the Content-Length is not: nobody is there to read what it would cost."""
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {tenant.key}\r\nContent-Length: {len(BODY) + 9}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", house.port)) as line:
        line.sendall(head.encode() + BODY)
    eventually(lambda: house.request("GET", "/healthz").status == 200)


def test_a_stranger_who_sends_a_body_meanwhile_hears_the_refusal(house: House) -> None:
    """The connection goes on working after a refusal that did not wait for the body."""
    body = b" " * 100_000
    raw = written(CHAT, body, "hg-wrong")
    with socket.create_connection(("127.0.0.1", house.port), timeout=10) as line:
        for _ in range(3):
            line.sendall(raw)
            assert line.recv(65_536).startswith(b"HTTP/1.1 401")


def test_no_bytes_on_the_line_break_the_server(house: House) -> None:
    """Requests with bytes changed, dropped and doubled, as a fuzzer would."""
    chance = random.Random(4)
    whole = written("/v1/embeddings", b'{"model": "none", "input": "a"}', ADMIN_KEY)
    for _ in range(150):
        raw = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(raw))
            raw[place : place + chance.randint(0, 2)] = chance.randbytes(chance.randint(0, 3))
        with socket.create_connection(("127.0.0.1", house.port), timeout=10) as line:
            line.sendall(bytes(raw))
            line.shutdown(socket.SHUT_WR)
            received = line.recv(65_536)
        assert received == b"" or received.startswith((b"HTTP/1.1 4", b"HTTP/1.1 100")), received[:200]
