"""Billing services over real HTTP: each keeps its own rules on repetition, and goes wrong as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from urllib.parse import parse_qs

from tests.unit.providers.rawserver import Visit, raw_server

FAULTS = ("ok", "lost", "late", "cut", "split", "500", "503", "429", "401", "refuse", "silent")
"""`lost`: taken, and the connection closed; `late`: taken, and a 500; `cut`: taken, and the answer breaks off after its head;
`split`: taken, and the answer comes byte by byte; `silent`: never an answer. The others take nothing."""
TAKES = frozenset({"ok", "lost", "late", "cut", "split"})


class Service:
    """`taken`: the amount of each event by its id, as whoever is billed sees it; `counted` what came to a sum without looking."""

    def __init__(self, take: Callable[[Service, bytes], tuple[int, bytes]]) -> None:
        self._take = take
        self.faults: list[str] = []
        self.taken: dict[str, Decimal] = {}
        self.poison: set[str] = set()
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self.open = asyncio.Event()

    async def play(self, visit: Visit) -> None:
        while True:
            head, _, body = (await visit.request()).partition(b"\r\n\r\n")
            self.heads.append(head.decode())
            self.bodies.append(body)
            fault = self.faults.pop(0) if self.faults else "ok"
            status, answer = self._take(self, body) if fault in TAKES else (0, b"")
            if fault in ("lost", "refuse"):
                return
            if fault == "silent":
                await visit.gone()
            if fault == "cut":
                await visit.say(b"HTTP/1.1 %d X\r\ncontent-length: 100\r\n\r\nhalf" % status)
                return
            if fault == "split":
                raw = b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(answer), answer)
                await visit.say(*(raw[at : at + 1] for at in range(len(raw))))
            elif fault in TAKES:
                await visit.answer(answer, status=f"{500 if fault == 'late' else status} X")
            else:
                await visit.answer(b"{}", status=f"{fault} X", headers="retry-after: 1\r\n")


@contextlib.asynccontextmanager
async def serving(take: Callable[[Service, bytes], tuple[int, bytes]]) -> AsyncIterator[tuple[Service, str]]:
    """The service and where it is."""
    service = Service(take)
    async with raw_server(service.play) as running:
        yield service, running.url


def as_stripe(service: Service, body: bytes) -> tuple[int, bytes]:
    form = {name: values[0] for name, values in parse_qs(body.decode(), strict_parsing=True).items()}
    id = form["identifier"]
    if id in service.poison:
        return 400, b'{"error":{"message":"No such customer"}}'
    if id in service.taken:
        return 400, b'{"error":{"message":"An event already exists with identifier %b."}}' % id.encode()
    service.taken[id] = Decimal(form["payload[value]"]) / 10**9
    return 200, b"{}"


def as_openmeter(service: Service, body: bytes) -> tuple[int, bytes]:
    batch = json.loads(body)
    if any(event["id"] in service.poison for event in batch):
        return 400, b'{"title":"Bad Request"}'
    for event in batch:
        service.taken.setdefault(event["id"], Decimal(event["data"]["value"]))
    return 204, b""


def as_lago(service: Service, body: bytes) -> tuple[int, bytes]:
    batch = json.loads(body)["events"]
    assert len(batch) <= 100
    if any(event["transaction_id"] in service.taken for event in batch):
        return 422, b'{"error_details":{"0":{"transaction_id":["value_already_exist"]}}}'
    if any(event["transaction_id"] in service.poison for event in batch):
        return 422, b'{"error_details":{"0":{"code":["metric_not_found"]}}}'
    for event in batch:
        service.taken[event["transaction_id"]] = Decimal(event["precise_total_amount_cents"]) / 100
    return 200, b"{}"


def as_receiver(service: Service, body: bytes) -> tuple[int, bytes]:
    event = json.loads(body)
    if event["id"] in service.poison:
        return 410, b"gone"
    service.taken.setdefault(event["id"], Decimal(event["data"].get("billed_usd", 0)))
    return 200, b"ok"


SERVICES = {"stripe": as_stripe, "openmeter": as_openmeter, "lago": as_lago, "webhook": as_receiver}
