"""Whatever is sent, the answer is a typed error that names the field, and nothing is called, held, written or cached for it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.contract.house import ADMIN_KEY, Answer, House, Tenant, parsed, refused, written

pytestmark = pytest.mark.usefixtures("unharmed")

CHAT = "/v1/chat/completions"
TURNS = [{"role": "user", "content": "How do I export my invoices?"}]
GOOD = {"model": "auto", "messages": TURNS}


def post(house: House, tenant: Tenant, body: Any, path: str = CHAT, **headers: str) -> Answer:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return house.request("POST", path, body, key=tenant.key, headers=sent)


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
    ({"messages": [{"content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": {"text": "x"}}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "messages[0].content[0].text"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
        "messages[0].content[0].image_url",
    ),
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


@pytest.mark.parametrize(
    ("wrong", "param"), WRONG_FIELDS, ids=[f"{n}-{param}" for n, (_, param) in enumerate(WRONG_FIELDS)]
)
def test_a_wrong_field_is_named(house: House, tenant: Tenant, wrong: dict[str, Any], param: str) -> None:
    refused(post(house, tenant, {**GOOD, **wrong}), param=param)


@pytest.mark.parametrize("field", ["model", "messages"])
def test_a_missing_field_is_named(house: House, tenant: Tenant, field: str) -> None:
    refused(post(house, tenant, {name: value for name, value in GOOD.items() if name != field}), param=field)


@pytest.mark.parametrize(
    "wrong", [None, "", [], [""], ["a", None], [[]], [[-1]], [1.5], [True], {"text": "a"}, 7, ["a"] * 2_049]
)
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
    raw = written(CHAT, json.dumps(GOOD).encode(), tenant.key, b"x-headgate-user: \xff\xfe\r\n")
    assert b"`x-headgate-user` is not valid UTF-8" in house.raw(raw)


@pytest.mark.parametrize("depth", [65, 1_000, 100_000])
@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings", "/chat", "/admin/tenants"])
@pytest.mark.parametrize("pair", [(b"[", b"]"), (b'{"a":', b"}")], ids=["lists", "objects"])
def test_deep_nesting_is_refused(
    house: House, tenant: Tenant, path: str, depth: int, pair: tuple[bytes, bytes]
) -> None:
    opens, closes = pair
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
    answer = parsed(house.raw(sent))
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


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=30)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(
    "model messages stream stream_options tools tool_choice response_format n stop user temperature max_tokens".split()
) | st.sampled_from("input prompt name budget rpm policy tenant expires role".split())
bodies = (
    anything
    # A prompt that is a text is no bad input for `/chat`.
    | st.dictionaries(names, anything, max_size=6).filter(lambda body: not isinstance(body.get("prompt"), str))
    | st.builds(
        lambda more: {"messages": TURNS, "model": "no-such-model", **more}, st.dictionaries(names, anything, max_size=3)
    )
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
