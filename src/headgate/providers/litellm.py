"""The long tail of providers, through LiteLLM, which is installed with the extra `litellm` and runs in a process of its own.

Deployments name their model as LiteLLM does, such as `bedrock/anthropic.claude-sonnet-4-5`. Callers choose what OpenAI's call takes and
nothing else: an argument of LiteLLM's own, such as another address or a callback, comes from the configuration alone.

Invariant: no field of a caller's that is not in `FIELDS` reaches the library.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from importlib.util import find_spec
from typing import Any

from headgate.model.chat import ChatRequest, Delta, Done, Event, Json, as_part
from headgate.model.clearance import Clearance
from headgate.model.deployment import Deployment
from headgate.model.errors import Malformed, Unable, Unavailable, UpstreamContextTooLong, UpstreamError, UpstreamTimeout
from headgate.model.money import Usage
from headgate.model.tally import as_reported
from headgate.providers.endpoint import SHORTEST_SECRET, Endpoint
from headgate.providers.failures import Complaint, classify, clean
from headgate.providers.litellm_link import GONE, Link, Words
from headgate.providers.litellm_worker import Failure
from headgate.providers.usage import normalised

FIELDS = frozenset(
    """messages temperature top_p n stop presence_penalty frequency_penalty logit_bias user response_format seed tools tool_choice
    parallel_tool_calls logprobs top_logprobs reasoning_effort functions function_call modalities audio prediction service_tier
    verbosity web_search_options""".split()
)
"""What is passed on of a chat request."""
_OURS = frozenset({"model", "max_tokens", "max_completion_tokens", "stream", "stream_options", "metadata", "store"})
_EMBEDDING = frozenset({"input", "dimensions", "encoding_format", "user"})
_PREFIX = re.compile(r"^(litellm\.\w+: )?(\w+(Error|Timeout): )?(\w+Exception - )?")
_READ = frozenset({"id", "object", "created", "model", "choices", "usage"})


class LiteLLM:
    """A Provider over LiteLLM."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        options: Mapping[str, str] | None = None,
        link: Link | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """The endpoint's address may be empty: then each provider's own is called. `options`: further arguments of every call; `link`: the
        worker, by default one of this interpreter; `clock` is Unix time, for dates in Retry-After.

        Raises ValueError when LiteLLM is not installed.
        """
        if link is None and find_spec("litellm") is None:
            raise ValueError(f"Provider {endpoint.name!r} needs LiteLLM: pip install 'headgate[litellm]'")
        self._endpoint = endpoint
        self._options = dict(options or {})
        self._link = link or Link()
        self._clock = clock
        secrets = [endpoint.api_key or "", *endpoint.headers.values(), *self._options.values()]
        self._secrets = tuple(one for one in secrets if len(one) >= SHORTEST_SECRET)

    async def ready(self) -> None:
        """Wait until the worker is there, which takes seconds; a first call does that by itself. Raises OSError."""
        await self._link.ready()

    async def send(
        self, deployment: Deployment, request: ChatRequest, clearance: Clearance, *, timeout: float
    ) -> AsyncGenerator[Event, None]:
        """See Provider."""
        arguments = self._arguments(deployment, timeout)
        arguments |= chat_arguments(request, clearance.limit)
        answer = _Answer(request, clearance)
        end = await self._ready(timeout)
        try:
            async with self._link.order("chat", arguments) as words:
                while (part := await self._word(words, end, answered=answer.begun)) is not None:
                    for event in answer.read(part):
                        yield event
                yield answer.end(self._endpoint.name)
        except OSError as error:
            raise self._absent(error) from None

    async def embed(self, deployment: Deployment, body: Json, clearance: Clearance, *, timeout: float) -> Json:  # noqa: ARG002 - as in Provider
        """See Provider."""
        arguments = self._arguments(deployment, timeout)
        arguments |= {name: value for name, value in body.items() if name in _EMBEDDING}
        end = await self._ready(timeout)
        try:
            async with self._link.order("embed", arguments) as words:
                answer = await self._word(words, end, answered=False)
        except OSError as error:
            raise self._absent(error) from None
        if answer is None or not isinstance(answer.get("data"), list):
            raise Malformed(f"{self._endpoint.name} sent an answer without embeddings.")
        return answer

    async def close(self) -> None:
        """See Provider."""
        await self._link.close()

    async def _ready(self, timeout: float) -> float:
        """When the call's time is over, by the loop's clock. Raises UpstreamError where the worker is not there before."""
        end = asyncio.get_running_loop().time() + timeout
        try:
            async with asyncio.timeout_at(end):
                await self._link.ready()
        except TimeoutError:
            raise UpstreamTimeout(f"{self._endpoint.name} was not ready in time.") from None
        except OSError as error:
            raise self._absent(error) from None
        return end

    def _absent(self, error: OSError) -> Unavailable:
        return Unavailable(f"{self._endpoint.name} is not there: {error}")

    def _arguments(self, deployment: Deployment, timeout: float) -> Json:
        """What every call says. Nothing is tried again there: that is dispatch's."""
        endpoint = self._endpoint
        found: Json = {
            "model": deployment.model,
            "timeout": timeout,
            "num_retries": 0,
            "max_retries": 0,
            "no-log": True,
        }
        if endpoint.api_key is not None:
            found["api_key"] = endpoint.api_key
        if endpoint.base_url:
            found["api_base"] = endpoint.base_url
        if endpoint.headers:
            found["extra_headers"] = dict(endpoint.headers)
        return {**found, **self._options}

    async def _word(self, words: Words, end: float, *, answered: bool) -> Json | None:
        """The next part; None at the end. Raises UpstreamError."""
        times = self._endpoint.timeouts
        silent = times.idle if answered else times.first_byte
        try:
            async with asyncio.timeout_at(min(end, asyncio.get_running_loop().time() + silent)):
                word = await words.get()
        except TimeoutError:
            error = UpstreamTimeout(f"{self._endpoint.name} fell silent.")
            error.sent = True
            raise error from None
        if word.error is not None:
            raise self._failed(word.error, answered=answered)
        return None if word.end else word.part or {}

    def _failed(self, said: Failure, *, answered: bool) -> UpstreamError:
        """The typed error of an exception of LiteLLM's. `answered`: a part of the answer was there before."""
        name = self._endpoint.name
        words = clean(_PREFIX.sub("", said.message), self._secrets)
        if said is GONE:
            error: UpstreamError = Unavailable(f"{name} broke off: {words}.")
        elif said.kind == "UnsupportedParamsError":
            return Unable(words)
        elif said.kind == "ContextWindowExceededError":
            return UpstreamContextTooLong(words, status=400, param="messages")
        elif said.kind == "Timeout":
            error = UpstreamTimeout(f"{name} fell silent.")
        elif answered:
            error = Malformed(f"{name} broke off: {words}")
        else:
            told = Complaint(message=words, type=said.kind)
            status = said.status or 500
            error = classify(name, status, told, header=said.headers.get, now=self._clock(), secrets=self._secrets)
        # Of what no provider has answered to, nobody will tell what became.
        unsaid = not said.answered and (said.status or 500) >= 500
        error.sent = answered or unsaid or isinstance(error, UpstreamTimeout)
        return error


class _Answer:
    """One answer as it is read."""

    def __init__(self, request: ChatRequest, clearance: Clearance) -> None:
        self._stream = bool(request.stream)
        self._choices = request.choices
        self._clearance = clearance
        self._finished: set[int] = set()
        self._model = ""
        self._usage: Usage | None = None
        self._reported: Json | None = None
        self.begun = False

    def read(self, body: Json) -> list[Delta]:
        """The delta of one part, none where it only tells what was used."""
        self._model = body.get("model") or self._model
        used = normalised(body.get("usage"))
        if used is not None and used.total_tokens:
            # Where a provider tells nothing, LiteLLM tells of no tokens at all.
            self._usage, self._reported = used, body["usage"]
            self._clearance.told = used
        choices = body.get("choices") or []
        if not self._stream:
            choices = [{"index": index, **as_part(choice)} for index, choice in enumerate(choices)]
        for choice in choices:
            _tidied(choice)
            if choice.get("finish_reason") is not None:
                self._finished.add(choice.get("index", 0))
        if not choices:
            return []
        self.begun = True
        return [Delta(choices, {name: value for name, value in body.items() if name not in _READ})]

    def end(self, name: str) -> Done:
        """The answer's end. Raises Malformed when not every choice has one."""
        if len(self._finished) < self._choices:
            raise Malformed(f"{name} ended its answer before it was complete.")
        reported = self._reported
        if reported is not None and self._usage is not None and "prompt_tokens" not in reported:
            reported = as_reported(self._usage)
        return Done(self._model, self._usage, reported)


def chat_arguments(request: ChatRequest, limit: int) -> Json:
    """The caller's request as arguments. Raises Unable for a field that is not passed on."""
    body = request.body
    unknown = sorted(body.keys() - FIELDS - _OURS)
    if unknown:
        raise Unable(f"This provider does not take `{unknown[0][:80]}`.", param=unknown[0][:80])
    found = {name: body[name] for name in FIELDS if name in body}
    field = "max_completion_tokens" if request.max_completion_tokens is not None else "max_tokens"
    found[field] = limit
    if request.stream:
        found |= {"stream": True, "stream_options": {"include_usage": True}}
    return found


def _tidied(choice: dict[str, Any]) -> None:
    """Without what LiteLLM adds for its own use."""
    choice.pop("provider_specific_fields", None)
    delta = choice.get("delta")
    if isinstance(delta, dict):
        delta.pop("provider_specific_fields", None)
