"""What every exporter promises, whatever its sink speaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from headgate.billing.billing import BILLED, Event, Exporter, Line, event_id
from headgate.billing.files import RowFile
from headgate.billing.lago import Lago
from headgate.billing.openmeter import OpenMeter
from headgate.billing.post import Answer, Post
from headgate.billing.stripe import Stripe
from headgate.billing.webhook import Webhook
from headgate.model.errors import Unavailable, UpstreamTimeout

AT = 1_795_176_000
NOW = float(AT + 60)

MADE: dict[str, Callable[[Post, Path], Exporter]] = {
    "stripe": lambda post, _: Stripe(post, event="e", now=lambda: NOW),
    "openmeter": lambda post, _: OpenMeter(post, event="e"),
    "lago": lambda post, _: Lago(post, event="e"),
    "webhook": lambda post, _: Webhook(post, secret="s", kinds=BILLED, now=lambda: NOW),
    "csv": lambda _, folder: RowFile(folder / "rows.csv", "csv"),
    "jsonl": lambda _, folder: RowFile(folder / "rows.jsonl", "jsonl"),
}


class Network:
    """Answers every post the same."""

    def __init__(self) -> None:
        self.answer: Answer | Exception = Answer(200)
        self.posts = 0

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        self.posts += 1
        assert isinstance(body, bytes)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture(params=MADE)
def exporter(request: pytest.FixtureRequest, network: Network, tmp_path: Path) -> Exporter:
    return MADE[request.param](network.post, tmp_path)


@pytest.fixture(params=[name for name in MADE if name not in ("csv", "jsonl")])
def posting(request: pytest.FixtureRequest, network: Network, tmp_path: Path) -> Exporter:
    return MADE[request.param](network.post, tmp_path)


def line(seq: int = 1, **fields: object) -> Line:
    whole = {
        "seq": seq,
        "id": f"c{seq}",
        "kind": "settle",
        "attempt": 0,
        "at": AT * 1_000_000,
        "tenant": "t",
        "billed": 5,
    }
    return Line(**{**whole, "model": "m", "source": "live", **fields})


def events(exporter: Exporter, count: int) -> list[Event]:
    lines = [line(seq) for seq in range(1, count + 1)]
    rendered = [(one, event_id("s", one)) for one in lines]
    return [
        Event(id=id, seq=one.seq, tenant="t", billed=5, body=exporter.render(one, id, "cus_1"), made=0.0)
        for one, id in rendered
    ]


def test_the_same_line_is_the_same_bytes_and_holds_its_id(exporter: Exporter) -> None:
    body = exporter.render(line(), "hg_1", "cus_1")
    assert body == exporter.render(line(), "hg_1", "cus_1")
    assert body is not None
    assert b"hg_1" in body


def test_odd_text_is_rendered_too(exporter: Exporter) -> None:
    odd = "ü\u2028\x00\"'<>&,;=\r\n"
    assert exporter.render(line(model=odd, user=odd, feature=odd, tenant=odd), "hg_1", "cus_1")


async def test_each_event_has_an_outcome_and_what_was_taken_is_delivered(exporter: Exporter) -> None:
    for count in (1, 2, exporter.batch):
        delivery = await exporter.deliver(events(exporter, count), 0)
        assert [outcome.verdict for outcome in delivery.outcomes] == ["delivered"] * count


@pytest.mark.parametrize(
    "answer",
    [Answer(500), Answer(503), Answer(429), Answer(401), Unavailable("reset"), UpstreamTimeout("silent")],
    ids=str,
)
async def test_what_may_pass_is_sent_again_and_nothing_after_it(
    posting: Exporter, network: Network, answer: Answer | Exception
) -> None:
    network.answer = answer
    delivery = await posting.deliver(events(posting, 3), 7)
    assert [outcome.verdict for outcome in delivery.outcomes] == ["again"] * 3
    assert all(outcome.reason for outcome in delivery.outcomes)
    assert (network.posts, delivery.mark) == (1, 7)


async def test_what_cannot_be_taken_is_refused_with_its_reason(posting: Exporter, network: Network) -> None:
    network.answer = Answer(400, b"no such meter")
    delivery = await posting.deliver(events(posting, 3), 0)
    assert {(outcome.verdict, outcome.reason) for outcome in delivery.outcomes} == {("refused", "400: no such meter")}
