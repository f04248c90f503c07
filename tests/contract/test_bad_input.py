"""Whatever is sent, the answer is a typed error that names the field, and nothing is called, held, written or cached for it."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.contract.house import ADMIN_KEY, Answer, House, Tenant, eventually

CHAT = "/v1/chat/completions"
TURNS = [{"role": "user", "content": "How do I export my invoices?"}]
GOOD = {"model": "auto", "messages": TURNS}


@pytest.fixture(autouse=True)
def unharmed(house: House) -> Iterator[None]:
    """A refused request leaves everything as it was, and the server goes on answering."""
    before = house.standing()
    yield
    assert house.standing() == before
    assert house.request("GET", "/healthz").status == 200


def post(house: House, tenant: Tenant, body: Any, path: str = CHAT, **headers: str) -> Answer:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return house.request("POST", path, body, key=tenant.key, headers=sent)


def refused(answer: Answer, status: int = 400, param: str | None = None) -> dict[str, Any]:
    """The error, after a look at its status and the field it names."""
    assert answer.status == status, answer
    error = answer.error
    assert error["param"] == param, error
    assert answer.headers["x-request-id"]
    return error


NOT_JSON = {
    "empty": b"",
    "blank": b"  \n",
    "half": b'{"model": "auto", "messages": [',
    "two values": b"{}{}",
    "trailing comma": b'{"model": "auto",}',
    "single quotes": b"{'model': 'auto'}",
    "NaN": b'{"model": "auto", "messages": [], "temperature": NaN}',
    "Infinity": b'{"model": "auto", "messages": [], "temperature": Infinity}',
    "-Infinity": b'{"model": "auto", "messages": [], "temperature": -Infinity}',
    "too large a float": b'{"model": "auto", "messages": [], "temperature": 1e999}',
    "invalid UTF-8": b'{"model": "auto", "messages": [{"role": "user", "content": "\xff\xfe"}]}',
    "invalid UTF-8 as a name": b'{"\xc3\x28": 1}',
    "UTF-16": json.dumps(GOOD).encode("utf-16"),
    "lone surrogate": b'{"model": "auto", "messages": [{"role": "user", "content": "\\ud800"}]}',
    "lone low surrogate": b'{"model": "auto", "messages": [{"role": "user", "content": "\\udc00x"}]}',
    "control character": b'{"model": "au\x01to"}',
    "form": b"model=auto&prompt=hello",
    "multipart": b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nauto\r\n--x--\r\n',
}


@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings", "/chat", "/admin/tenants"])
@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_what_is_not_json_is_refused_at_every_door(house: House, tenant: Tenant, path: str, body: bytes) -> None:
    key = ADMIN_KEY if path.startswith("/admin") else tenant.key
    refused(house.request("POST", path, body, key=key))


@pytest.mark.parametrize("body", [[], "text", 1, None, True, [GOOD]])
@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings", "/chat", "/admin/tenants"])
def test_json_that_is_no_object_is_refused_at_every_door(house: House, tenant: Tenant, path: str, body: Any) -> None:
    key = ADMIN_KEY if path.startswith("/admin") else tenant.key
    refused(house.request("POST", path, json.dumps(body).encode(), key=key))


WRONG_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"model": None}, "model"),
    ({"model": 7}, "model"),
    ({"model": ""}, "model"),
    ({"model": ["auto"]}, "model"),
    ({"messages": None}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": {}}, "messages"),
    ({"messages": ["hello"]}, "messages[0]"),
    ({"messages": [*TURNS, None]}, "messages[1]"),
    ({"messages": [{"content": "x"}]}, "messages[0]"),
    ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": {"text": "x"}}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "messages[0].content[0].text"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}, "messages[0].content[0].image_url"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"id": 1}]}]}, "messages[0].tool_calls[0].id"),
    ({"stream": "yes"}, "stream"),
    ({"stream": 1}, "stream"),
    ({"stream_options": True}, "stream_options"),
    ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
    ({"temperature": "warm"}, "temperature"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": "all"}, "top_p"),
    ({"n": 0}, "n"),
    ({"n": 129}, "n"),
    ({"n": 1.5}, "n"),
    ({"n": 10**30}, "n"),
    ({"n": -(10**400)}, "n"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -5}, "max_tokens"),
    ({"max_tokens": 2**31}, "max_tokens"),
    ({"max_tokens": 2**63}, "max_tokens"),
    ({"max_tokens": 10**30}, "max_tokens"),
    ({"max_tokens": "many"}, "max_tokens"),
    ({"max_completion_tokens": 1e300}, "max_completion_tokens"),
    ({"stop": 1}, "stop"),
    ({"stop": ["a", 1]}, "stop[1]"),
    ({"tools": {}}, "tools"),
    ({"tools": [1]}, "tools[0]"),
    ({"tools": [{"type": "function", "function": "f"}]}, "tools[0].function"),
    ({"tools": [{"type": "function", "function": {"name": 1}}]}, "tools[0].function.name"),
    ({"tool_choice": 1}, "tool_choice"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {"type": 1}}, "response_format.type"),
    ({"store": "yes"}, "store"),
    ({"user": 1}, "user"),
    ({"messages": TURNS * 10_000}, "messages"),
    ({"messages": TURNS * 513}, "messages"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}] * 129}, "tools"),
]


@pytest.mark.parametrize(("wrong", "param"), WRONG_FIELDS, ids=[f"{n}-{param}" for n, (_, param) in enumerate(WRONG_FIELDS)])
def test_a_wrong_field_is_named(house: House, tenant: Tenant, wrong: dict[str, Any], param: str) -> None:
    refused(post(house, tenant, {**GOOD, **wrong}), param=param)


@pytest.mark.parametrize("field", ["model", "messages"])
def test_a_missing_field_is_named(house: House, tenant: Tenant, field: str) -> None:
    refused(post(house, tenant, {name: value for name, value in GOOD.items() if name != field}), param=field)


@pytest.mark.parametrize("wrong", [None, "", [], [""], ["a", None], [[]], [[-1]], [1.5], [True], {"text": "a"}, 7, ["a"] * 2_049])
def test_a_wrong_input_of_embeddings_is_named(house: House, tenant: Tenant, wrong: Any) -> None:
    refused(post(house, tenant, {"model": "embedding", "input": wrong}, "/v1/embeddings"), param="input")


@pytest.mark.parametrize("model", [None, 1, "", []])
def test_a_wrong_model_of_embeddings_is_named(house: House, tenant: Tenant, model: Any) -> None:
    refused(post(house, tenant, {"model": model, "input": "a"}, "/v1/embeddings"), param="model")


@pytest.mark.parametrize("model", ["gpt-17", "x" * 100_000, "../auto", "auto\u0000", "sim/", "/", "\U0001f600"])
def test_an_unknown_model_is_not_found(house: House, tenant: Tenant, model: str) -> None:
    for path, body in ((CHAT, {**GOOD, "model": model}), ("/v1/embeddings", {"model": model, "input": "a"})):
        answer = post(house, tenant, body, path)
        assert refused(answer, 404, "model")["code"] == "model_not_found"
        assert len(answer.body) < 2_000


def test_an_unknown_wish_is_named(house: House, tenant: Tenant) -> None:
    refused(post(house, tenant, GOOD, x_headgate_chache="no-store"), param="x-headgate-chache")


def test_a_wish_in_invalid_utf8_is_named(house: House, tenant: Tenant) -> None:
    raw = _request(CHAT, json.dumps(GOOD).encode(), tenant.key, b"x-headgate-user: \xff\xfe\r\n")
    assert b"`x-headgate-user` is not valid UTF-8" in house.raw(raw)


@pytest.mark.parametrize("depth", [65, 1_000, 100_000])
@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings", "/chat", "/admin/tenants"])
@pytest.mark.parametrize(("opens", "closes"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_nesting_is_refused(
    house: House, tenant: Tenant, path: str, depth: int, opens: bytes, closes: bytes
) -> None:
    key = ADMIN_KEY if path.startswith("/admin") else tenant.key
    body = b'{"model": "auto", "metadata": ' + opens * depth + b"1" + closes * depth + b"}"
    assert "deep" in refused(house.request("POST", path, body, key=key))["message"]


@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings", "/chat", "/admin/tenants"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_four_mebibytes_is_too_large(house: House, tenant: Tenant, path: str, chunked: bool) -> None:
    key = ADMIN_KEY if path.startswith("/admin") else tenant.key
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n".encode()
    if chunked:
        piece = b" " * 2**16
        sent = head + b"Transfer-Encoding: chunked\r\n\r\n" + (b"%x\r\n%b\r\n" % (len(piece), piece)) * 65
    else:
        sent = head + b"Content-Length: %d\r\n\r\n" % (2**22 + 1)
    answer = _read(house.raw(sent))
    assert refused(answer, 413)["code"] == "request_too_large"


@pytest.mark.parametrize("key", [None, "", "hg-wrong", "sk-" + "x" * 10_000, "\xe9\xff", "Bearer x", "a b"])
@pytest.mark.parametrize("path", [CHAT, "/chat", "/v1/embeddings", "/admin/tenants"])
def test_a_key_that_is_none_opens_nothing(house: House, path: str, key: str | None) -> None:
    answer = house.request("POST", path, GOOD, key=key)
    assert refused(answer, 401)["code"] == "invalid_api_key"


@pytest.mark.parametrize("header", ["Basic aGVsbG86d29ybGQ=", "Bearer", "bearer", "", "hg-key", "Digest x"])
def test_other_manners_of_authorization_open_nothing(house: House, header: str) -> None:
    answer = house.request("POST", CHAT, GOOD, key=None, headers={"Authorization": header})
    assert refused(answer, 401)["code"] == "invalid_api_key"


def test_a_key_works_in_either_header(house: House, tenant: Tenant) -> None:
    for headers in ({"x-api-key": tenant.key}, {"Authorization": f"bearer {tenant.key}"}):
        assert house.request("GET", "/v1/models", key=None, headers=headers).status == 200


def test_a_revoked_key_opens_nothing(house: House, tenant: Tenant) -> None:
    made = house.request("POST", "/admin/keys", {"tenant": tenant.id}).json
    assert house.request("GET", "/v1/models", key=made["key"]).status == 200
    assert house.request("DELETE", f"/admin/keys/{made['id']}").status == 200
    refused(house.request("POST", CHAT, GOOD, key=made["key"]), 401)


@pytest.mark.parametrize("expires", ["2020-01-01T00:00:00Z", 1_577_836_800])
def test_an_expired_key_opens_nothing(house: House, tenant: Tenant, expires: Any) -> None:
    made = house.request("POST", "/admin/keys", {"tenant": tenant.id, "expires": expires}).json
    assert "expired" in refused(house.request("POST", CHAT, GOOD, key=made["key"]), 401)["message"]


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
@pytest.mark.parametrize("host", ["x", "x/docs", "x?", "127.0.0.1@evil.example", "evil.example/healthz#", "", "[::1", "x:y"])
def test_no_manner_of_writing_the_path_or_the_host_opens_admin(
    house: House, tenant: Tenant, path: str, host: str
) -> None:
    for key, status in ((tenant.key, 403), (None, 401)):
        headers = {"Host": host, "X-Forwarded-Host": "localhost", "X-Original-URL": "/healthz", "X-Rewrite-URL": "/docs"}
        assert refused(house.request("GET", path, key=key, headers=headers), status)


def test_a_whole_url_as_target_opens_nothing_either(house: House, tenant: Tenant) -> None:
    raw = f"GET http://evil.example/admin/tenants HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {tenant.key}\r\n\r\n"
    assert house.raw(raw.encode()).startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize(
    "query", ["from=1&from=2", "from=soon", "to=nan", "from=inf", "group_by=shoe", "group_by=model,model;", "colour=red", "from=%ff", "tenant=other"]
)
def test_a_wrong_parameter_is_refused(house: House, tenant: Tenant, query: str) -> None:
    answer = house.request("GET", f"/v1/usage?{query}", key=tenant.key)
    assert answer.status == 400
    assert answer.error
    if "tenant" not in query:
        assert house.request("GET", f"/admin/usage?{query}").status == 400


def _request(path: str, body: bytes, key: str, more: bytes = b"") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + more + b"\r\n" + body


def _read(raw: bytes) -> Answer:
    """A response off the wire."""
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return Answer(int(lines[0].split()[1]), headers, body)


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
    answer = _read(received)
    assert 400 <= answer.status < 500, received[:300]
    assert answer.error["type"] == "invalid_request_error"


@pytest.mark.parametrize("cut", [1, 20, 60, -1])
def test_half_a_request_is_nothing(house: House, tenant: Tenant, cut: int) -> None:
    whole = _request(CHAT, BODY, tenant.key)
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
    raw = _request(CHAT, body, "hg-wrong")
    with socket.create_connection(("127.0.0.1", house.port), timeout=10) as line:
        for _ in range(3):
            line.sendall(raw)
            assert line.recv(65_536).startswith(b"HTTP/1.1 401")


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=30)
anything = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4), max_leaves=12)
names = st.sampled_from(
    ["model", "messages", "stream", "stream_options", "tools", "tool_choice", "response_format", "n", "stop", "user"]
    + ["temperature", "max_tokens", "input", "prompt", "name", "budget", "rpm", "policy", "tenant", "expires", "role"]
)
bodies = anything | st.dictionaries(names, anything, max_size=6) | st.builds(
    lambda more: {"messages": TURNS, "model": "no-such-model", **more}, st.dictionaries(names, anything, max_size=3)
)
doors = st.sampled_from([CHAT, "/v1/embeddings", "/chat", "/admin/keys", "/admin/tenants/none", "/admin/budgets/none"])


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=doors, body=bodies)
@example(path="/admin/tenants/none", body={"rpm": float("nan")})
@example(path=CHAT, body={"model": "no-such-model", "messages": TURNS, "n": 10**5_000})
def test_no_json_breaks_a_door(house: House, path: str, body: Any) -> None:
    with house.connection() as connection:
        method = {"/admin/tenants/none": "PATCH", "/admin/budgets/none": "PUT"}.get(path, "POST")
        answer = connection.ask(method, path, _json(body))
    assert 400 <= answer.status < 500, answer
    assert answer.error


def _json(body: Any) -> bytes:
    """JSON as Python writes it, with numbers of any length, NaN and lone surrogates."""
    try:
        return json.dumps(body).encode()
    except ValueError:
        return b'{"model": "no-such-model", "n": 1' + b"0" * 5_000 + b"}"


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=doors, body=st.binary(max_size=200))
def test_no_bytes_break_a_door(house: House, path: str, body: bytes) -> None:
    with house.connection() as connection:
        answer = connection.ask("POST", path, body)
    assert 400 <= answer.status < 500, answer
    assert answer.error


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["from", "to", "group_by", "tenant", "x"]),
    value=st.text(max_size=20) | st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat()),
)
@example(name="from", value="0001-01-01T00:00:00+14:00")
@example(name="to", value="9999-12-31T23:59:59-14:00")
def test_no_parameter_breaks_the_usage(house: House, name: str, value: str) -> None:
    query = urlencode({name: value}, errors="replace")
    for path in ("/v1/usage", "/admin/usage"):
        assert house.request("GET", f"{path}?{query}").status in (200, 400, 404)


def test_no_bytes_on_the_line_break_the_server(house: House) -> None:
    """Requests with bytes changed, dropped and doubled, as a fuzzer would."""
    chance = random.Random(4)
    whole = _request("/v1/embeddings", b'{"model": "none", "input": "a"}', ADMIN_KEY)
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
