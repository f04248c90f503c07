"""Logs of real traffic: lines of several makes, each read as a request that can be asked again.

The invariant: a line that cannot be used is counted under its reason and harms no other; a log in which there is no usable line is a
BadFile. What a line may hold is told in the guide on the semantic cache.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from headgate.budget.estimate import likely_tokens, measure
from headgate.evaluation.evaluation import Answer, Request
from headgate.evaluation.files import BadFile, numbered_lines
from headgate.evaluation.model import MODEL
from headgate.model.chat import ChatRequest, Json
from headgate.model.errors import InvalidRequest
from headgate.model.money import LARGEST, NANO_PER_USD, Price, Usage
from headgate.model.tenancy import DEFAULT_TENANT
from headgate.providers.usage import normalised

PriceOf = Callable[[str], Price | None]
"""What a model costs, by any name it may have in a log; None when nobody knows."""

_TIMES = ("t", "at", "timestamp", "time", "created")
_TEXTS = ("text", "prompt", "question", "input")
_ANSWERS = ("answer", "response", "completion", "output")
_SHAPING = (
    "tools",
    "tool_choice",
    "response_format",
    "temperature",
    "top_p",
    "max_tokens",
    "seed",
    "stop",
    "n",
    "store",
)
LATEST = 1e15
_MILLISECONDS = 1e11
"""A larger time is counted in milliseconds: as seconds it would lie beyond the year 5000."""


class Log(msgspec.Struct, frozen=True):
    """The requests of a log in the order of time. `skipped`: how many lines could not be used and the number of the first, by reason;
    `unpriced`: requests of which nobody knows what they cost."""

    requests: list[Request]
    skipped: dict[str, tuple[int, int]]
    unpriced: int


class _Unusable(Exception):
    """A line is of no use; the message is the reason."""


def read_log(path: Path, price_of: PriceOf) -> Log:
    """The requests of a log. Raises BadFile when the file cannot be read or none of its lines can be used."""
    requests: list[Request] = []
    skipped: dict[str, tuple[int, int]] = {}
    for number, line in numbered_lines(path):
        try:
            requests.append(_request(line, price_of))
        except _Unusable as reason:
            count, first = skipped.get(str(reason), (0, number))
            skipped[str(reason)] = count + 1, first
    if not requests:
        told = "; ".join(f"line {first}: {reason}" for reason, (_, first) in skipped.items())
        raise BadFile(f"{path}: no line of it can be used: {told}" if told else f"{path}: the file is empty")
    if all(" " not in one.answer.text.strip() for one in requests):
        requests = [_labelled(one) for one in requests]
    requests.sort(key=lambda one: one.at)
    return Log(requests, skipped, sum(one.cost is None for one in requests))


def _labelled(request: Request) -> Request:
    """Where no answer of a log has more than a word, they are names of answers."""
    return msgspec.structs.replace(request, answer=Answer(request.answer.text, label=True))


def _request(raw: bytes, price_of: PriceOf) -> Request:
    try:
        line = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _Unusable("not JSON") from None
    if not isinstance(line, dict):
        raise _Unusable("not a JSON object")
    if line.get("error") or (isinstance(line.get("status"), int) and line["status"] >= 400):
        raise _Unusable("the call had failed")
    answer = _answer(line)
    chat = _chat(line)
    usage = normalised(line.get("usage")) or Usage(
        prompt_tokens=measure(chat).likely,
        completion_tokens=likely_tokens(answer.text, len(answer.text.encode("utf-8", "replace"))),
        estimated=True,
    )
    at = _time(line)
    return Request(
        at=at,
        tenant=_name(line, "tenant") or DEFAULT_TENANT,
        chat=chat,
        answer=answer,
        cost=_cost(line, usage, at, price_of),
        tokens=usage.total_tokens,
    )


def _name(line: Json, *keys: str) -> str:
    """The first of the keys that holds a name; empty when none does."""
    found = (line.get(key) for key in keys)
    return next((str(one) for one in found if isinstance(one, str | int) and str(one)), "")


def _time(line: Json) -> float:
    value = next((line[key] for key in _TIMES if line.get(key) is not None), None)
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise _Unusable("the time is not a date") from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    # Written so that NaN, which compares false to everything, is refused too.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LATEST:
        raise _Unusable(f"no time ({', '.join(_TIMES[:3])})")
    return float(value) / 1_000 if value > _MILLISECONDS else float(value)


def _chat(line: Json) -> ChatRequest:
    """The request: a whole body, messages, or a text alone."""
    body = next((line[key] for key in ("request", "body") if isinstance(line.get(key), dict)), None)
    if body is None:
        text = next((line[key] for key in _TEXTS if isinstance(line.get(key), str)), None)
        messages = line.get("messages") or (None if text is None else [{"role": "user", "content": text}])
        if messages is None:
            raise _Unusable("no messages, text or prompt")
        body = {"messages": messages, **{name: line[name] for name in _SHAPING if name in line}}
    try:
        return ChatRequest.parse({"model": _name(line, "route", "model") or MODEL, **body})
    except InvalidRequest:
        raise _Unusable("the messages are not a chat request") from None


def _answer(line: Json) -> Answer:
    value = next((line[key] for key in _ANSWERS if line.get(key) is not None), None)
    if isinstance(value, int) and not isinstance(value, bool):
        return Answer(str(value), label=True)
    text = _said(value)
    if not text:
        raise _Unusable("no answer")
    return Answer(text, label=False)


def _said(value: Any) -> str:
    """The text of an answer that is a text, a message, or a body in OpenAI's or Anthropic's shape."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_said(part) for part in value)
    if not isinstance(value, dict):
        return ""
    return next((said for key in ("choices", "message", "content", "text") if (said := _said(value.get(key)))), "")


def _cost(line: Json, usage: Usage, at: float, price_of: PriceOf) -> int | None:
    """What making the answer costs, nano-USD: as logged, else by price. Our own log tells nano-USD, and what an answer from stock
    has saved is what making it would have cost."""
    if line.get("event") == "call":
        told = [line.get(key, 0) for key in ("cost", "saved")]
        if all(isinstance(one, int) and 0 <= one <= LARGEST for one in told) and any(told):
            return int(sum(told))
    else:
        value = next((line[key] for key in ("cost_usd", "cost") if line.get(key) is not None), None)
        if value is not None:
            return _nano(value)
    price = price_of(_name(line, "model", "deployment", "route"))
    return None if price is None else price.charge(usage, at)


def _nano(usd: Any) -> int:
    try:
        nano = Decimal(str(usd).removeprefix("$")) * NANO_PER_USD
    except ArithmeticError:
        nano = Decimal("NaN")
    if not nano.is_finite() or not 0 <= nano <= LARGEST:
        raise _Unusable("the cost is not an amount in USD")
    return int(nano.to_integral_value())
