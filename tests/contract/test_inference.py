"""`/v2/inference` from outside: submit, fetch, follow, and be told."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headgate.assembly import open_engine
from headgate.config import Config
from headgate.model.chat import ChatRequest
from headgate.model.tenancy import Principal, Wishes
from headgate.simulator.simulator import Simulator
from tests.contract.house import Answer, House, Tenant, eventually, refused
from tests.contract.test_bad_input import NOT_JSON
from tests.unit.providers.rawserver import Visit, raw_server

SUBMIT, RESULT, EVENTS = "/v2/inference/submit", "/v2/inference/result", "/v2/inference/events"
ENDED = ("done", "failed")


class Desk:
    """What one tenant does at the three doors."""

    def __init__(self, house: House, tenant: Tenant) -> None:
        self.house, self.tenant = house, tenant

    def submit(self, body: Any, **headers: str) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.house.request("POST", SUBMIT, body, key=self.tenant.key, headers=sent)

    def result(self, id: str) -> Answer:
        return self.house.request("GET", f"{RESULT}?request_id={id}", key=self.tenant.key)

    def accepted(self, body: Any, **headers: str) -> str:
        answer = self.submit(body, **headers)
        assert answer.status == 202, answer
        assert set(answer.json) == {"request_id", "status"}
        return str(answer.json["request_id"])

    def ended(self, id: str) -> dict[str, Any]:
        eventually(lambda: self.result(id).json["status"] in ENDED)
        found: dict[str, Any] = self.result(id).json
        return found


def script(desk: Desk, rules: Any) -> None:
    """What the provider does wrong from now on."""
    with urlopen(Request(f"{desk.house.simulator.url}/_sim/script", data=json.dumps(rules).encode())) as answer:
        assert answer.status == 200


@pytest.fixture
def desk(house: House, tenant: Tenant) -> Iterator[Desk]:
    """Left only when every call is over and written down: others look at what there is before them."""
    yield Desk(house, tenant)
    eventually(lambda: house.metric("headgate_reservations_open") == house.metric("headgate_ledger_lag_seconds") == 0)


def test_an_answer_is_fetched_by_the_id_of_its_submission(desk: Desk) -> None:
    answer = desk.submit({"prompt": "How do I export my invoices?"})
    assert answer.status == 202
    id = answer.json["request_id"]
    assert answer.headers["location"] == f"{RESULT}?request_id={id}"
    found = desk.ended(id)
    assert (found["request_id"], found["status"], found["source"], found["error"]) == (id, "done", "live", None)
    assert found["content"] == found["response"]["choices"][0]["message"]["content"] != ""
    assert found["response"]["object"] == "chat.completion"
    assert found["response"]["usage"]["total_tokens"] > 0
    assert float(found["cost"]) > 0
    assert (found["model"], found["warning"]) == ("simulated-small", None)


def test_messages_and_every_other_field_of_a_chat_are_passed_on(desk: Desk) -> None:
    before = desk.house.calls().calls
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a ledger?"}]
    found = desk.ended(desk.accepted({"model": "large", "messages": turns, "max_tokens": 3, "n": 2}))
    assert (found["model"], len(found["response"]["choices"])) == ("simulated-large", 2)
    assert found["response"]["choices"][0]["finish_reason"] == "length"
    assert desk.house.calls().calls == before + 1


def test_it_says_the_same_as_a_call_at_the_chat_door_and_is_not_paid_again(desk: Desk) -> None:
    turns = [{"role": "user", "content": "How long is a parcel under way?"}]
    found = desk.ended(desk.accepted({"messages": turns}))
    chat = desk.house.request("POST", "/v1/chat/completions", {"model": "auto", "messages": turns}, key=desk.tenant.key)
    assert chat.headers["x-headgate-source"] == "exact"
    assert chat.json["choices"] == found["response"]["choices"]
    again = desk.ended(desk.accepted({"messages": turns}))
    assert (again["source"], again["cost"], again["content"]) == ("exact", "0.00", found["content"])


def test_feedback_is_given_on_the_id_of_its_completion(desk: Desk) -> None:
    found = desk.ended(desk.accepted({"prompt": "Which days are holidays?"}))
    told = desk.house.request(
        "POST", "/v1/feedback", {"request_id": found["response"]["id"], "correct": False}, key=desk.tenant.key
    )
    assert told.json["withdrawn"] is True


def test_the_same_under_the_same_id_is_one_request_and_something_else_a_conflict(desk: Desk) -> None:
    body = {"prompt": "What does it cost?", "request_id": "order-17:1"}
    assert desk.accepted(body) == desk.accepted({**body, "tenant": "somebody else"}) == "order-17:1"
    found = desk.ended("order-17:1")
    assert desk.submit(body).json == {"request_id": "order-17:1", "status": "done"}
    for other in ({"prompt": "What else?"}, {"model": "large"}, {"timeout": 5}, {"coalesce_key": "k"}):
        error = refused(desk.submit({**body, **other}), 409, "request_id")
        assert error["code"] == "conflict"
    refused(desk.submit(body, x_headgate_feature="mail"), 409, "request_id")
    assert desk.ended("order-17:1") == found


def test_anothers_request_is_as_unknown_as_one_that_never_was(desk: Desk) -> None:
    id = desk.accepted({"prompt": "What is secret here?", "request_id": "mine"})
    desk.ended(id)
    other = Desk(desk.house, desk.house.tenant())
    foreign, unknown = other.result(id), other.result("never")
    assert refused(foreign, 404) == refused(unknown, 404)
    for door in (RESULT, EVENTS):
        refused(desk.house.request("GET", f"{door}?request_id={id}", key=other.tenant.key), 404)
        refused(desk.house.request("GET", f"{door}?request_id={id}", key=None), 401)
    assert other.accepted({"prompt": "Something else.", "request_id": "mine"}) == "mine"
    assert other.ended("mine")["content"] != desk.ended("mine")["content"]


def test_what_fails_says_why_in_the_usual_shape(desk: Desk) -> None:
    found = desk.ended(desk.accepted({"prompt": "Hello?", "model": "broken-400"}))
    assert (found["status"], found["content"], found["response"], found["source"]) == ("failed", None, None, None)
    assert set(found["error"]) >= {"message", "type", "param", "code"}
    assert found["cost"] == "0.00"


def test_a_call_that_hangs_is_waited_for_so_long_and_then_the_answer_comes_with_a_warning(desk: Desk) -> None:
    """The first call hangs before its first byte; the one behind it, of the same tenant, is sound."""
    turns = [{"role": "user", "content": "Who hangs here?"}]
    desk = Desk(desk.house, desk.house.tenant(policy={"abandoned": "cancel"}))
    script(desk, [{"fault": "hang", "match": {"model": "simulated-wide"}, "calls": {"from": 1, "to": 1}}])
    sent = {"model": "wide", "messages": turns}
    with desk.house.connection() as leader:
        leader.send("POST", "/v1/chat/completions", sent, key=desk.tenant.key)
        eventually(lambda: desk.house.metric("headgate_reservations_open") > 0)
        found = desk.ended(desk.accepted(sent))
    script(desk, [])
    assert (found["status"], found["source"]) == ("done", "fallback_success")
    assert "in time" in found["warning"]
    assert found["content"]


class Events:
    """A stream of events as a browser reads it."""

    def __init__(self, response: HTTPResponse) -> None:
        self.response = response

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        name = ""
        for raw in self.response:
            line = raw.decode().rstrip("\n")
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                yield name, json.loads(line[6:])


def test_who_follows_a_request_is_told_of_each_state_and_gets_the_result(desk: Desk) -> None:
    id = desk.accepted({"prompt": "What takes a moment?", "model": "slow"})
    with desk.house.connection() as line:
        line.send("GET", f"{EVENTS}?request_id={id}", key=desk.tenant.key)
        with line.response("GET") as response:
            assert response.getheader("content-type") == "text/event-stream; charset=utf-8"
            told = list(Events(response))
    names = [name for name, _ in told]
    assert names[-1] == "done"
    assert set(names[:-1]) == {"status"}
    states = [content["status"] for _, content in told]
    assert states in (["queued", "in_flight", "done"], ["in_flight", "done"])
    assert told[-1][1] == desk.result(id).json


def test_who_follows_what_has_ended_gets_it_at_once(desk: Desk) -> None:
    id = desk.accepted({"prompt": "What is over?"})
    found = desk.ended(id)
    answer = desk.house.request("GET", f"{EVENTS}?request_id={id}", key=desk.tenant.key)
    assert answer.body == b"event: done\ndata: " + json.dumps(found, separators=(",", ":")).encode() + b"\n\n"
    head = desk.house.request("HEAD", f"{EVENTS}?request_id={id}", key=desk.tenant.key)
    assert (head.status, head.body) == (200, b"")


def test_a_tenant_follows_only_so_many_at_the_same_time(house: House, desk: Desk) -> None:
    desk = Desk(house, house.tenant(concurrency=1, policy={"abandoned": "cancel"}))
    id = desk.accepted({"prompt": "What never comes?", "model": "broken-hang", "timeout": 2})
    with house.connection() as line:
        line.send("GET", f"{EVENTS}?request_id={id}", key=desk.tenant.key)
        with line.response("GET"):
            second = house.request("GET", f"{EVENTS}?request_id={id}", key=desk.tenant.key)
            refused(second, 429)
            assert second.headers["retry-after"] == "1"

    def free() -> bool:
        with house.connection() as line:
            line.send("GET", f"{EVENTS}?request_id={id}", key=desk.tenant.key)
            with line.response("GET") as response:
                return response.status == 200

    eventually(free)


GOOD = {"prompt": "How do I export my invoices?"}
BAD: dict[str, tuple[Any, str | None]] = {
    "no question": ({}, "messages"),
    "a list": ([], None),
    "an empty prompt": ({"prompt": " \n"}, "prompt"),
    "a prompt that is no text": ({"prompt": 5}, "prompt"),
    "no prompt": ({"prompt": None}, "prompt"),
    "both": ({"prompt": "a", "messages": []}, "prompt"),
    "messages that are none": ({"messages": "a"}, "messages"),
    "no messages": ({"messages": []}, "messages"),
    "too many messages": ({"messages": [{"role": "user", "content": "a"}] * 513}, "messages"),
    "a model that is no text": ({**GOOD, "model": 5}, "model"),
    "a stream": ({**GOOD, "stream": True}, "stream"),
    "an empty id": ({**GOOD, "request_id": ""}, "request_id"),
    "a long id": ({**GOOD, "request_id": "a" * 129}, "request_id"),
    "an id with a line break": ({**GOOD, "request_id": "a\r\nb"}, "request_id"),
    "an id with a control character": ({**GOOD, "request_id": "a\u0000"}, "request_id"),
    "an id that is no text": ({**GOOD, "request_id": 17}, "request_id"),
    "an empty coalesce_key": ({**GOOD, "coalesce_key": ""}, "coalesce_key"),
    "a long coalesce_key": ({**GOOD, "coalesce_key": "k" * 257}, "coalesce_key"),
    "a coalesce_key with a control character": ({**GOOD, "coalesce_key": "\u0007"}, "coalesce_key"),
    "a coalesce_key that is no text": ({**GOOD, "coalesce_key": ["k"]}, "coalesce_key"),
    "a timeout that is no number": ({**GOOD, "timeout": "5"}, "timeout"),
    "a timeout that is a truth value": ({**GOOD, "timeout": True}, "timeout"),
    "a timeout of nothing": ({**GOOD, "timeout": 0}, "timeout"),
    "a timeout of days": ({**GOOD, "timeout": 86_401}, "timeout"),
}


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize(("body", "param"), BAD.values(), ids=BAD.keys())
def test_a_bad_submission_is_refused_and_names_the_field(desk: Desk, body: Any, param: str | None) -> None:
    refused(desk.submit(json.dumps(body).encode()), 400, param)


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_what_is_not_json_is_refused(desk: Desk, body: bytes) -> None:
    refused(desk.submit(body))


@pytest.mark.usefixtures("unharmed")
def test_a_body_that_is_too_large_is_refused(desk: Desk) -> None:
    refused(desk.submit({"prompt": "a" * (4 * 2**20)}), 413)


@pytest.mark.usefixtures("unharmed")
def test_a_model_that_is_not_there_is_refused_at_once(desk: Desk) -> None:
    assert refused(desk.submit({**GOOD, "model": "nothing"}), 404, "model")["code"] == "model_not_found"


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("door", [RESULT, EVENTS])
@pytest.mark.parametrize(
    "query", ["", "?request_id=", "?request_id=%00", "?request_id=" + "a" * 129, "?request_id=a%0d%0ab"]
)
def test_a_bad_id_is_refused(desk: Desk, door: str, query: str) -> None:
    refused(desk.house.request("GET", door + query, key=desk.tenant.key), 400, "request_id")


@pytest.mark.usefixtures("unharmed")
def test_what_is_asked_for_twice_or_is_unknown_is_refused(desk: Desk) -> None:
    refused(desk.house.request("GET", f"{RESULT}?request_id=a&request_id=b", key=desk.tenant.key), 400)
    refused(desk.house.request("GET", f"{RESULT}?id=a", key=desk.tenant.key), 400, "id")
    for method, path in (("GET", SUBMIT), ("POST", RESULT), ("POST", EVENTS), ("DELETE", RESULT)):
        refused(desk.house.request(method, path, key=desk.tenant.key), 405)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    ["prompt", "messages", "model", "request_id", "coalesce_key", "timeout", "tenant", "stream", "n"]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.dictionaries(FIELDS, JSON, max_size=5) | JSON)
def test_whatever_is_submitted_is_accepted_or_refused_with_a_typed_error(desk: Desk, body: Any) -> None:
    answer = desk.submit(json.dumps(body).encode())
    if answer.status == 202:
        desk.ended(answer.json["request_id"])
    else:
        assert answer.status in (400, 403, 404, 409)
        assert answer.error["message"]


def test_the_metrics_tell_how_many_wait(desk: Desk) -> None:
    before = desk.house.metric("headgate_job_wait_seconds_count")
    desk.ended(desk.accepted({"prompt": "Who counts this?"}))
    assert desk.house.metric("headgate_job_wait_seconds_count") > before
    desk = Desk(desk.house, desk.house.tenant(policy={"abandoned": "cancel"}))
    id = desk.accepted({"prompt": "What hangs on?", "model": "broken-hang", "timeout": 2})
    wanted = f'headgate_jobs{{state="in_flight",tenant_lane="{desk.tenant.id}"}} 1.0'
    eventually(lambda: wanted in desk.house.request("GET", "/metrics").body.decode())
    assert desk.result(id).headers["retry-after"] == "1"
    found = desk.ended(id)
    assert (found["status"], found["error"]["code"]) == ("failed", "upstream_timeout")


SECRET = base64.b64encode(b"a secret of thirty-two bytes ...").decode()


async def test_the_operators_webhook_is_told_of_an_end_and_can_check_who_says_so(tmp_path: Path) -> None:
    heard: list[tuple[dict[str, str], bytes]] = []
    came = asyncio.Event()

    async def receive(visit: Visit) -> None:
        while True:
            head, _, body = (await visit.request()).partition(b"\r\n\r\n")
            lines = [line.partition(": ") for line in head.decode().split("\r\n")[1:]]
            heard.append(({name.lower(): value for name, _, value in lines}, body))
            await visit.answer(b"")
            came.set()

    async with raw_server(receive) as receiver, Simulator().serve() as simulator, asyncio.timeout(30):
        webhook = {"url": f"{receiver.url}/hook?team=1", "secret": f"whsec_{SECRET}", "allow_private": True}
        plain = {"inference": {"webhook": webhook}, "cache": {"semantic": {"mode": "off"}}, "telemetry": {"log": "off"}}
        config = Config.model_validate(plain).answered_at(simulator.url)
        async with open_engine(config, tmp_path) as engine:
            key = await engine.tenants.create_key("default")
            caller = Principal(tenant="default", key=key.record.id)
            asked = ChatRequest.parse({"model": "auto", "messages": [{"role": "user", "content": "Hello?"}]})
            job = await engine.jobs.submit(caller, asked, Wishes(), "order-17")
            await came.wait()
            while b'headgate_job_notices_total{outcome="delivered"} 1.0' not in engine.metrics.render():
                await asyncio.sleep(0.01)
    ((headers, body),) = heard
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = hmac.new(base64.b64decode(SECRET), signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(expected).decode()}"
    assert job.id == "order-17"
    told = json.loads(body)
    assert (told["type"], told["data"]["request_id"], told["data"]["tenant"]) == (
        "inference.done",
        "order-17",
        "default",
    )
