"""Fingerprints in general: the same request however it is written, another one for every change that shapes the answer."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import assume, given
from hypothesis import strategies as st

from headgate.cache.fingerprint import fingerprint, partition
from headgate.model.chat import ChatRequest
from headgate.model.tenancy import Namespace

HOME = Namespace("acme")
IGNORED: dict[str, Any] = {
    "stream": True,
    "user": "ann",
    "metadata": {"a": "b"},
    "store": False,
    "service_tier": "flex",
    "safety_identifier": "x",
    "prompt_cache_key": "x",
    "prompt_cache_retention": "24h",
}
DEFAULTS: dict[str, Any] = {"n": 1, "temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0}

texts = st.text(max_size=20)
scalars = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(-1e9, 1e9) | texts
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": texts}),
    min_size=1,
    max_size=4,
)
shaping = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.integers(0, 2) | st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "max_tokens": st.integers(1, 1_000),
        "seed": st.integers(0, 2**40),
        "stop": texts,
        "logit_bias": st.dictionaries(st.sampled_from("123"), st.integers(-100, 100), max_size=2),
        "response_format": st.sampled_from([{"type": "text"}, {"type": "json_object"}]),
        "presence_penalty": st.integers(-2, 2),
        "vendor_field": json_values,
    },
)
bodies = st.builds(
    lambda turns, more, model: {"model": model, "messages": turns, **more},
    messages,
    shaping,
    st.sampled_from(["auto", "small"]),
)


def parsed(text: str | bytes) -> ChatRequest:
    return ChatRequest.parse(msgspec.json.decode(text))


def digest(body: dict[str, Any]) -> bytes:
    return fingerprint(HOME, parsed(json.dumps(body))).digest


def shuffled(value: Any, turn: int) -> Any:
    """The same JSON with every mapping's keys in another order."""
    if isinstance(value, dict):
        names = list(value)
        names = names[turn % len(names) :] + names[: turn % len(names)] if names else names
        return {name: shuffled(value[name], turn) for name in reversed(names)}
    return [shuffled(one, turn) for one in value] if isinstance(value, list) else value


@given(bodies, st.integers(0, 5))
def test_order_spaces_and_escapes_of_the_json_do_not_count(body: dict[str, Any], turn: int) -> None:
    one = parsed(json.dumps(body, ensure_ascii=True, indent=3))
    other = parsed(json.dumps(shuffled(body, turn), ensure_ascii=False, separators=(",", ":")))
    assert fingerprint(HOME, one) == fingerprint(HOME, other)
    assert partition("m", one) == partition("m", other)


@given(bodies, st.sets(st.sampled_from(sorted(IGNORED))))
def test_what_does_not_shape_the_answer_does_not_count(body: dict[str, Any], names: set[str]) -> None:
    assert digest({**body, **{name: IGNORED[name] for name in names}}) == digest(body)


@given(bodies, st.sampled_from(sorted(DEFAULTS)))
def test_absent_null_and_default_are_the_same(body: dict[str, Any], name: str) -> None:
    absent = digest({key: value for key, value in body.items() if key != name})
    assert digest({**body, name: None}) == digest({**body, name: DEFAULTS[name]}) == absent
    if name != "n":
        assert digest({**body, name: float(DEFAULTS[name])}) == absent


@given(bodies, st.sampled_from(["temperature", "top_p", "presence_penalty", "seed"]), st.integers(0, 1))
def test_whole_numbers_are_the_same_with_and_without_a_point(body: dict[str, Any], name: str, value: int) -> None:
    assert digest({**body, name: value}) == digest({**body, name: float(value)})


@given(bodies, bodies)
def test_two_requests_are_the_same_only_when_all_that_shapes_them_is(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    same = shape(one) == shape(other)
    assert (digest(one) == digest(other)) == same


@given(bodies, st.data())
def test_every_change_of_a_field_that_shapes_the_answer_counts(body: dict[str, Any], data: st.DataObject) -> None:
    changed = {**body, **data.draw(shaping)}
    assume(shape(changed) != shape(body))
    assert digest(changed) != digest(body)


def shape(body: dict[str, Any]) -> str:
    """The specification: what shapes the answer, with numbers compared as numbers."""
    kept = {
        name: value
        for name, value in body.items()
        if name not in IGNORED and value is not None and not (name in DEFAULTS and value == DEFAULTS[name])
    }
    whole = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value for name, value in kept.items()
    }
    return json.dumps(whole, sort_keys=True)


@given(bodies, texts, texts, texts, texts)
def test_tenants_and_namespaces_never_meet(
    body: dict[str, Any], tenant: str, name: str, other: str, other_name: str
) -> None:
    """Whatever they are called, and even when their names glued together are equal."""
    request = parsed(json.dumps(body))
    one, two = fingerprint(Namespace(tenant, name), request), fingerprint(Namespace(other, other_name), request)
    assert (one == two) == ((tenant, name) == (other, other_name))
    assert one.digest == two.digest


@given(bodies, texts)
def test_a_partition_is_blind_to_the_last_turn_alone(body: dict[str, Any], text: str) -> None:
    *earlier, last = body["messages"]
    request = parsed(json.dumps(body))
    other_last = parsed(json.dumps({**body, "messages": [*earlier, {**last, "content": text}]}))
    assert partition("m", request) == partition("m", other_last)
    longer = parsed(json.dumps({**body, "messages": [{"role": "system", "content": text}, *body["messages"]]}))
    assert partition("m", request) != partition("m", longer)
    assert partition("m", request) != partition("n", request)
