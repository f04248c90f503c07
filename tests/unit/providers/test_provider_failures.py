"""Every vendor's errors, as typed errors."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.model.errors import (
    Malformed,
    OutOfMoney,
    Refused,
    Rejected,
    Throttled,
    Unavailable,
    UpstreamContextTooLong,
    UpstreamError,
    UpstreamTimeout,
)
from headgate.providers.failures import classify, clean, complaint, inside_stream
from headgate.providers.quotas import retry_after

NOW = 1_700_000_000.0


def failure(status: int, body: Any = None, headers: dict[str, str] | None = None, **rest: Any) -> UpstreamError:
    return classify("acme", status, complaint(body), header=(headers or {}).get, now=NOW, **rest)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, Malformed),
        (400, Rejected),
        (401, Refused),
        (402, OutOfMoney),
        (403, Refused),
        (404, Rejected),
        (408, UpstreamTimeout),
        (413, Rejected),
        (422, Rejected),
        (429, Throttled),
        (500, Unavailable),
        (502, Unavailable),
        (503, Unavailable),
        (504, UpstreamTimeout),
        (529, Unavailable),
    ],
)
def test_a_status_without_words_has_its_error(status: int, kind: type[UpstreamError]) -> None:
    error = failure(status)
    assert type(error) is kind
    assert f"acme answered {status}" in error.message


def test_a_rejection_passes_on_the_words_status_code_and_param_of_the_provider() -> None:
    body = {"error": {"message": "No such model.", "type": "x", "param": "model", "code": "model_not_found"}}
    error = failure(404, body)
    assert (error.message, error.status, error.param, error.code) == ("No such model.", 404, "model", "model_not_found")
    assert error.body()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"message": "Too big.", "code": "context_length_exceeded", "param": "messages"}}),
        (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"}}),
        (400, {"type": "error", "error": {"message": "input length and `max_tokens` exceed context limit: 1 + 2 > 3"}}),
        (400, {"object": "error", "message": "This model's maximum context length is 8 tokens.", "code": 400}),
        (
            400,
            {
                "error": {
                    "message": "the request exceeds the available context size",
                    "type": "exceed_context_size_error",
                }
            },
        ),
        (413, {"error": {"message": "Prompt exceeds the context window"}}),
    ],
)
def test_a_prompt_that_does_not_fit_is_told_from_other_rejections(status: int, body: Any) -> None:
    error = failure(status, body)
    assert type(error) is UpstreamContextTooLong
    assert (error.status, error.param, error.fallback) == (400, "messages", True)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, {"error": {"message": "You exceeded your current quota.", "code": "insufficient_quota"}}),
        (429, {"error": {"message": "Pay.", "type": "insufficient_quota"}}),
        (400, {"type": "error", "error": {"message": "Your credit balance is too low to access the API."}}),
        (400, {"error": {"message": "Billing hard limit", "code": "billing_hard_limit_reached"}}),
        (402, {"error": {"message": "Insufficient Balance"}}),
    ],
)
def test_an_account_without_money_is_refused_and_not_retried(status: int, body: Any) -> None:
    error = failure(status, body)
    assert type(error) is OutOfMoney
    assert not error.retryable


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "a"}}, "a"),
        ({"error": "b"}, "b"),
        ({"message": "c"}, "c"),
        ({"detail": "d"}, "d"),
        ({"detail": [{"loc": ["x"]}]}, '[{"loc":["x"]}]'),
        ([{"error": {"message": "e", "status": "INVALID_ARGUMENT", "code": 400}}], "e"),
        ({"error": {"message": {"text": "f"}}}, '{"text":"f"}'),
        ({"error": {}}, ""),
        ([], ""),
        ("text", ""),
        (None, ""),
        (7, ""),
    ],
)
def test_every_known_shape_of_an_error_body_is_read(body: Any, message: str) -> None:
    assert complaint(body).message == message


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, Unavailable),
        ({"type": "error", "error": {"type": "rate_limit_error", "message": "Slow down"}}, Throttled),
        ({"type": "error", "error": {"type": "invalid_request_error", "message": "No"}}, Rejected),
        ({"type": "error", "error": {"type": "authentication_error", "message": "No"}}, Refused),
        ({"error": {"message": "x", "type": "BadRequestError", "code": 400}}, Rejected),
        ({"error": {"message": "x", "code": "rate_limit_exceeded"}}, Throttled),
        ({"error": {"message": "x", "code": "insufficient_quota"}}, OutOfMoney),
        ({"error": {"message": "x", "code": 502}}, Unavailable),
        ({"error": {"message": "x", "status_code": 504}}, UpstreamTimeout),
        ({"error": {"message": "maximum context length is 8", "code": 400}}, UpstreamContextTooLong),
        ({"error": "something"}, Unavailable),
    ],
)
def test_an_error_inside_a_stream_is_told_by_its_own_status_or_type(body: Any, kind: type[UpstreamError]) -> None:
    assert type(inside_stream("acme", body)) is kind


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-1"}, 0.0),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT"}, 30.0),
        ({"retry-after": "Tue, 14 Nov 2000 22:13:50 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "999999999"}, 86_400.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1h1m1.5s"}, 3661.5),
        ({"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "1s"}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "x"}, None),
    ],
)
def test_how_long_to_wait_is_read_from_the_headers(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers.get, NOW) == seconds


def test_the_wait_is_part_of_the_error() -> None:
    assert failure(429, None, {"retry-after": "3"}).retry_after == 3.0
    assert failure(503, None, {"retry-after": "4"}).retry_after == 4.0


@pytest.mark.parametrize(
    "message",
    [
        "Incorrect API key provided: sk-abc***xyz9. You can find your key elsewhere.",
        "Bearer abcdef123456 is wrong",
        "the key hunter2hunter2 is wrong",
        "AIzaSyA1234567890123456789012345678901",
    ],
)
def test_no_message_holds_a_credential(message: str) -> None:
    error = failure(401, {"error": {"message": message}}, secrets=("hunter2hunter2",))
    assert "[secret]" in error.message
    for secret in ("sk-abc", "xyz9", "abcdef123456", "hunter2", "AIza"):
        assert secret not in error.message


def test_a_message_is_one_short_line_of_printable_text() -> None:
    words = clean("a\n\tb\x1b[31m\0c  d" + "e" * 5000)
    assert words.startswith("a b [31m c d")
    assert len(words) == 400
    assert words.isprintable()
