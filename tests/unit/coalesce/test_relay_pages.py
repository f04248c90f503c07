"""Pages: what a flight says to other processes is what they hear."""

from __future__ import annotations

import msgspec
import pytest

from headgate.coalesce.relay import Page, Refusal, Told, decode, encode
from headgate.coalesce.trail import Trail
from headgate.model import errors
from headgate.model.chat import Completion, Delta, Done
from headgate.model.errors import BudgetExceeded, GatewayError, Interrupted, Rejected, Unpriced
from headgate.model.money import Rare, Usage

USED = Usage(prompt_tokens=7, completion_tokens=3, rare=Rare(audio_input=2))
ANSWER = Completion(
    model="m",
    choices=[{"index": 0, "message": {"role": "assistant", "content": "Hé\x00"}, "finish_reason": "stop"}],
    usage=USED,
    reported={"prompt_tokens": 7, "details": {"audio": 2}},
    extra={"system_fingerprint": "fp", "citations": [1, 2.5, None]},
)


@pytest.mark.parametrize(
    "page",
    [
        Page(),
        Page(failed=True),
        Page(completion=ANSWER),
        Page(
            deltas=(Delta([{"index": 0, "delta": {"content": "a"}}]), Delta([], {"x": [1]})),
            done=Done("m", USED, ANSWER.reported),
            told=Told(model="m", deployment="d", limit=5, entry="e", worth=2**62, ceiling=3, personal=True),
        ),
        Page(refusal=Refusal("Rejected", "no", 422, "bad", "tools")),
    ],
)
def test_a_page_is_read_as_it_was_written(page: Page) -> None:
    assert decode(encode(page)) == page


def test_what_a_later_version_adds_to_a_page_is_no_fault() -> None:
    assert decode(msgspec.msgpack.encode({"failed": True, "mood": "good"})) == Page(failed=True)


def test_a_trail_is_told_and_noted() -> None:
    trail = Trail(model="m", deployment="d", worth=5, ceiling=9, shortened=True, overflow="larger", route_reason="why")
    other = Trail(cache="miss", waited=3.0)
    Told.of(trail).note(other)
    assert Told.of(other) == Told.of(trail)
    assert (other.cache, other.waited, other.cost) == ("miss", 3.0, 0)


@pytest.mark.parametrize(
    "error",
    [
        Rejected("No such tool.", status=422, param="tools", code="bad_tool"),
        Rejected("Plain."),
        Unpriced("No price."),
        errors.UpstreamContextTooLong("Too long."),
        errors.ModelNotAllowed("Not yours."),
        errors.UnknownModel("None of that name."),
        errors.InvalidRequest("Wrong.", param="n"),
    ],
)
def test_an_error_that_holds_for_everybody_is_the_same_for_everybody(error: GatewayError) -> None:
    told = Refusal.of(error)
    assert told is not None
    heard = decode(encode(Page(refusal=told))).refusal
    assert heard is not None
    same = heard.error
    assert type(same) is type(error)
    assert (same.status, same.label, same.body(), same.retryable) == (
        error.status,
        error.label,
        error.body(),
        error.retryable,
    )


@pytest.mark.parametrize(
    "error",
    [BudgetExceeded("Spent."), Interrupted("Broke off."), errors.Overloaded("Later."), errors.Internal("Ours.")],
)
def test_what_may_pass_or_concerns_the_leader_alone_is_not_told(error: GatewayError) -> None:
    assert Refusal.of(error) is None


def test_an_error_of_a_kind_that_is_not_known_here_is_an_error_all_the_same() -> None:
    error = Refusal("OfAnotherVersion", "Something.", 418, "teapot").error
    assert (error.status, error.label, error.message) == (418, "teapot", "Something.")
