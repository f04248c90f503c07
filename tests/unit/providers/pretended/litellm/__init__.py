"""What stands for LiteLLM in a worker under test: a module of its name, on that worker's path alone. The model says how it behaves."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

suppress_debug_info = False
drop_params = True
hanging: list[str] = []
cancelled: list[str] = []


class Said:
    """An object that can be dumped, as the library's answers can."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.body = body

    def model_dump(self, **_: Any) -> dict[str, Any]:
        return self.body


class Response:
    def __init__(self) -> None:
        self.headers = {"Retry-After": "3"}


class ProviderError(Exception):
    response = Response()


class RateLimitError(Exception):
    status_code = 429


class BadRequestError(Exception):
    status_code = 400


class UnsupportedParamsError(BadRequestError):
    pass


class ContextWindowExceededError(BadRequestError):
    pass


class Timeout(Exception):
    status_code = 408


class InternalServerError(Exception):
    status_code = 500


FAILURES = {
    one.__name__: one for one in (UnsupportedParamsError, ContextWindowExceededError, Timeout, InternalServerError)
}
USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


async def acompletion(**arguments: Any) -> Any:
    """Answers with what it was asked, or does what its model is called."""
    model = arguments["model"]
    print("the library prints where it likes")  # noqa: T201
    if model == "RateLimitError":
        try:
            raise ProviderError
        except ProviderError as error:
            raise RateLimitError("litellm.RateLimitError: AcmeException - slow down, key-0123456789") from error
    if model in FAILURES:
        raise FAILURES[model](f"litellm.{model}: it said no")
    if model == "dies":
        os._exit(3)
    if model == "hangs":
        hanging.append(model)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(model)
    if arguments.get("stream"):
        return _chunks(model)
    told = {"hanging": hanging, "cancelled": cancelled}
    text = "|".join(told[model]) if model in told else repr(sorted(arguments.items()))
    if model == "flags":
        text = repr(
            (
                suppress_debug_info,
                drop_params,
                os.environ["LITELLM_LOCAL_MODEL_COST_MAP"],
                "HEADGATE_SECRET" in os.environ,
            )
        )
    message = {"role": "assistant", "content": text, "provider_specific_fields": {"refusal": None}}
    return Said(
        {"model": model, "choices": [{"index": 0, "finish_reason": "stop", "message": message}], "usage": USAGE}
    )


async def _chunks(model: str) -> AsyncIterator[Said]:
    for word in ("Good", " day"):
        yield Said({"model": model, "choices": [{"index": 0, "delta": {"content": word}}]})
        if model == "breaks":
            raise InternalServerError("broken pipe")
        if model == "dies-midway":
            await asyncio.sleep(0)
            os._exit(3)
        if model == "stalls":
            await asyncio.Event().wait()
    if model != "unfinished":
        yield Said({"model": model, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    yield Said({"model": model, "choices": [], "usage": {**USAGE, "completion_tokens": 2}})


async def aembedding(**arguments: Any) -> Any:
    """Two numbers for each text."""
    return Said(
        {"data": [{"index": at, "embedding": [0.0, 1.0]} for at, _ in enumerate(arguments["input"])], "usage": USAGE}
    )
