"""What each sink is sent, and how its answers are read."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from urllib.parse import parse_qs

import pytest

from headgate.billing.billing import BILLED, Event, Line, Unbillable, measured
from headgate.billing.lago import Lago
from headgate.billing.openmeter import OpenMeter
from headgate.billing.post import Answer
from headgate.billing.stripe import Stripe
from headgate.billing.webhook import SIGNATURE, Webhook
from headgate.model.errors import Unavailable
from headgate.model.tenancy import OPERATOR

AT = 1_795_176_000
"""2026-11-20T12:00:00Z"""


def line(**fields: object) -> Line:
    whole = {
        "seq": 1, "id": "call", "kind": "settle", "attempt": 0, "at": AT * 1_000_000 + 250_000, "tenant": "t_1", "route": "auto",
        "model": "gpt-4o", "source": "live", "amount": 20, "billed": 27_500, "prompt_tokens": 10, "completion_tokens": 5,
    }  # fmt: skip
    return Line(**{**whole, **fields})


class Service:
    """Answers in turn, the last answer for ever, and keeps what it was sent."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers = list(answers) or [Answer(200)]
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        self.bodies.append(body)
        self.headers.append(dict(headers))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def events(*bodies: bytes) -> list[Event]:
    return [
        Event(id=f"e{at}", seq=at, tenant="t_1", billed=1, body=body, made=0.0) for at, body in enumerate(bodies, 1)
    ]


async def verdicts(exporter, count: int = 1) -> list[str]:
    delivery = await exporter.deliver(events(*[b"%d" % at for at in range(count)]), 0)
    return [outcome.verdict for outcome in delivery.outcomes]


def stripe(service: Service, **more: object) -> Stripe:
    return Stripe(service.post, event="spend", now=lambda: float(AT), **more)


@pytest.mark.parametrize(("value", "weighs"), [("nano_usd", "27500"), ("usd", "0.0000275"), ("tokens", "15")], ids=str)
def test_a_line_weighs_what_the_operator_counts(value: str, weighs: str) -> None:
    assert measured(line(), value) == weighs


def test_what_nobody_owes_weighs_nothing() -> None:
    assert measured(line(billed=0), "usd") is None
    assert measured(line(kind="note"), "tokens") is None
    assert measured(line(tenant=OPERATOR), "usd") is None


def test_stripe_is_sent_the_form_of_a_meter_event() -> None:
    form = parse_qs(stripe(Service()).render(line(), "hg_1", "cus_&1").decode())
    assert form == {
        "event_name": ["spend"],
        "identifier": ["hg_1"],
        "timestamp": [str(AT)],
        "payload[stripe_customer_id]": ["cus_&1"],
        "payload[value]": ["27500"],
    }


@pytest.mark.parametrize(
    ("fields", "customer", "says"),
    [
        ({}, None, "no customer"),
        ({"at": (AT - 35 * 86_400 - 1) * 1_000_000}, "cus_1", "35 days"),
        ({"billed": 1_234_567_890_123_456}, "cus_1", "15 digits"),
    ],
)
def test_stripe_is_not_sent_what_it_would_refuse(fields: dict, customer: str | None, says: str) -> None:
    with pytest.raises(Unbillable, match=says):
        stripe(Service()).render(line(**fields), "hg_1", customer)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (Answer(200), "delivered"),
        (Answer(400, b'{"error":{"code":"duplicate_meter_event"}}'), "delivered"),
        (Answer(400, b'{"error":{"message":"An event already exists with identifier hg_1."}}'), "delivered"),
        (Answer(400, b'{"error":{"message":"No such customer"}}'), "refused"),
        (Answer(401), "again"),
        (Answer(404), "again"),
        (Answer(409), "again"),
        (Answer(429), "again"),
        (Answer(500), "again"),
        (Answer(302), "again"),
        (Unavailable("stripe cannot be reached"), "again"),
    ],
    ids=str,
)
async def test_stripes_answers_mean(answer: Answer | Exception, verdict: str) -> None:
    assert await verdicts(stripe(Service(answer))) == [verdict]


async def test_after_an_event_that_must_be_sent_again_none_is_sent() -> None:
    service = Service(Answer(200), Answer(400), Answer(500), Answer(200))
    assert await verdicts(stripe(service), 5) == ["delivered", "refused", "again", "again", "again"]
    assert len(service.bodies) == 3


async def test_a_sink_says_how_long_to_wait_and_why() -> None:
    service = Service(Answer(429, b'{"error": "slow\ndown \x00"}', 7.0))
    (outcome,) = (await stripe(service).deliver(events(b"x"), 0)).outcomes
    assert (outcome.retry_after, outcome.reason) == (7.0, '429: {"error": "slow down "}')


def test_openmeter_is_sent_cloud_events() -> None:
    body = OpenMeter(Service().post, event="llm").render(line(feature="search"), "hg_1", None)
    assert json.loads(body) == {
        "specversion": "1.0",
        "type": "llm",
        "id": "hg_1",
        "time": "2026-11-20T12:00:00.250000Z",
        "source": "headgate",
        "subject": "t_1",
        "data": {"value": "0.0000275", "model": "gpt-4o", "route": "auto", "feature": "search", "source": "live"},
    }
    assert json.loads(OpenMeter(Service().post, event="llm").render(line(), "hg_1", "acme"))["subject"] == "acme"


async def test_openmeter_takes_a_batch_as_one_array() -> None:
    service = Service(Answer(204))
    assert await verdicts(OpenMeter(service.post, event="llm"), 3) == ["delivered"] * 3
    assert service.bodies == [b"[0,1,2]"]


def test_lago_is_sent_events_with_exact_cents() -> None:
    body = Lago(Service().post, event="llm").render(line(), "hg_1", "sub_1")
    assert json.loads(body) == {
        "transaction_id": "hg_1",
        "external_subscription_id": "sub_1",
        "code": "llm",
        "timestamp": AT,
        "precise_total_amount_cents": "0.00275",
        "properties": {"value": "0.0000275", "model": "gpt-4o", "route": "auto", "feature": "", "source": "live"},
    }


class LagoAtHome:
    """Takes a batch whole or not at all, as Lago does; `bad` is refused, what it has is a duplicate."""

    def __init__(self, known: set[int], bad: set[int]) -> None:
        self.taken = set(known)
        self.bad = bad
        self.posts = 0

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        self.posts += 1
        batch = json.loads(body)["events"]
        if self.taken.intersection(batch):
            return Answer(422, b'{"error_details":{"0":{"transaction_id":["value_already_exist"]}}}')
        if self.bad.intersection(batch):
            return Answer(422, b'{"error_details":{"0":{"code":["metric_not_found"]}}}')
        self.taken.update(batch)
        return Answer(200)


async def test_in_a_refused_batch_the_culprits_are_found_and_the_rest_is_delivered() -> None:
    lago = LagoAtHome(known={3, 4, 77}, bad={10, 11})
    found = await verdicts(Lago(lago.post, event="llm"), 100)
    assert [at for at, verdict in enumerate(found) if verdict != "delivered"] == [10, 11]
    assert lago.taken == set(range(100)) - {10, 11}
    assert lago.posts < 60


async def test_a_sink_that_fails_in_the_middle_of_a_search_is_left_alone() -> None:
    service = Service(Answer(422), Answer(200), Answer(500))
    found = await verdicts(Lago(service.post, event="llm"), 8)
    assert found == ["delivered"] * 4 + ["again"] * 4
    assert len(service.bodies) == 3
    service = Service(Answer(422), Answer(500), Answer(200))
    assert await verdicts(Lago(service.post, event="llm"), 8) == ["again"] * 8
    assert len(service.bodies) == 2


async def test_a_webhook_is_signed_over_its_time_and_its_bytes() -> None:
    service = Service()
    hook = Webhook(service.post, secret="whsec", now=lambda: float(AT))
    await hook.deliver(events(b'{"id":"hg_1"}'), 0)
    wanted = hmac.new(b"whsec", b'%d.{"id":"hg_1"}' % AT, hashlib.sha256).hexdigest()
    assert service.headers == [{SIGNATURE: f"t={AT},v1={wanted}"}]


def test_a_webhook_tells_thresholds_in_dollars_and_in_tokens() -> None:
    hook = Webhook(Service().post, secret=None)
    detail = {"account": "tenant:t_1", "window": "hour:2026-11-20T12", "percent": 80, "spent": 8 * 10**9, "cap": 10**10}
    told = json.loads(hook.render(line(kind="alert", source="", detail=json.dumps(detail)), "hg_1", None))
    assert told == {
        "id": "hg_1",
        "type": "budget_threshold",
        "created": AT,
        "data": {**detail, "spent": "8.00", "cap": "10.00", "unit": "usd"},
    }
    tokens = {**detail, "window": f"tokens/{detail['window']}", "spent": 8, "cap": 10}
    told = json.loads(hook.render(line(kind="alert", source="", detail=json.dumps(tokens)), "hg_1", None))
    assert told["data"] == {**tokens, "unit": "tokens"}


def test_a_webhook_tells_what_tenants_owe_if_it_is_a_billing_sink() -> None:
    hook = Webhook(Service().post, secret=None, kinds=BILLED)
    told = json.loads(hook.render(line(), "hg_1", "acme"))
    assert (told["type"], told["data"]["billed_usd"], told["data"]["customer"]) == ("usage", "0.0000275", "acme")
    assert hook.render(line(billed=0), "hg_1", None) is None
