"""The simulator: a model provider of its own that speaks OpenAI's and Anthropic's wire formats over HTTP.

It answers deterministically from the prompt, counts every call and every token that a provider would bill, and
misbehaves on request. `Simulator` holds the state; `serve` puts it on a socket:

    async with Simulator().serve() as running:
        ...  # call running.url + "/v1/chat/completions"
        assert running.stats().calls == 1

How a call goes: protocol.py reads a Request, `Simulator.answer` turns it into a Delivery (wire formats in
openai_wire.py, anthropic_wire.py and embeddings.py; texts in answers.py; faults in faults.py and script.py), playback.py
plays it. Invariant: `answer` touches no socket and never waits.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import MappingProxyType

import msgspec

from headgate.simulator import openai_wire
from headgate.simulator.answers import Quirks
from headgate.simulator.anthropic_wire import AnthropicMessages
from headgate.simulator.counts import Counts
from headgate.simulator.delivery import MEBIBYTE, Delivery, head, spoil, whole
from headgate.simulator.embeddings import OpenAIEmbeddings
from headgate.simulator.faults import KINDS, MODEL_PREFIX, Fault, UnknownFaultError, fault_of_model, parse_fault
from headgate.simulator.listener import Listener
from headgate.simulator.openai_wire import OpenAIChat
from headgate.simulator.protocol import Request
from headgate.simulator.script import Rule, Script, ScriptError, read_rules
from headgate.simulator.wire import Rejection, Stamp, Wire

LISTED_MODELS = ("simulated-small", "simulated-large", "simulated-embedding")

_STATUS_FAULTS: Mapping[str, tuple[str, str | None]] = MappingProxyType(
    {
        "400": ("The request was refused on purpose.", None),
        "401": ("Incorrect API key provided.", "invalid_api_key"),
        "403": ("You are not allowed to do this.", None),
        "404": ("The model does not exist or you do not have access to it.", "model_not_found"),
        "413": ("The request is too large.", None),
        "429": ("Rate limit reached.", "rate_limit_exceeded"),
        "502": ("Bad gateway.", None),
        "503": ("The service is unavailable.", None),
        "500": ("The server had an error while processing your request.", None),
        "529": ("Overloaded", None),
    }
)
_SOUND = Quirks()
_JSON_HEAD = head(200, "OK", "application/json")


class Running:
    """A simulator on a socket."""

    def __init__(self, simulator: Simulator, host: str, port: int) -> None:
        shown = f"[{host}]" if ":" in host else host
        self.simulator = simulator
        self.port = port
        self.url = f"http://{shown}:{port}"

    def stats(self) -> Counts:
        """A snapshot of what has been received and billed."""
        return self.simulator.stats()

    def reset(self) -> None:
        """Counts to zero; the fault script and the prompt cache begin again."""
        self.simulator.reset()


class Simulator:
    """A provider: what it has counted, how fast it is, and which faults are scripted.

    `latency_s` is the time to the first byte of every answer, `tokens_per_s` the pace of generation (0: no pacing).
    `clock` gives Unix time for `created`, `now` a monotonic time for the script.
    """

    def __init__(
        self,
        *,
        latency_s: float = 0.0,
        tokens_per_s: float = 0.0,
        script: Sequence[Rule] = (),
        seed: int = 0,
        clock: Callable[[], float] = time.time,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._latency_s = latency_s
        self._tokens_per_s = tokens_per_s
        self._seed = seed
        self._clock = clock
        self._now = now
        self._script = Script(script, seed=seed, now=now)
        self._counts = Counts()
        self._number = 0
        self._anthropic = AnthropicMessages()
        self._openai = OpenAIChat()
        self._inference: dict[str, Wire] = {
            "/chat/completions": self._openai,
            "/messages": self._anthropic,
            "/embeddings": OpenAIEmbeddings(),
        }
        self._control: dict[tuple[bytes, str], Callable[[Request], Delivery]] = {
            (b"GET", "/models"): self._models,
            (b"GET", "/_sim/stats"): lambda _: _json(self._counts),
            (b"POST", "/_sim/reset"): self._reset_by_http,
            (b"POST", "/_sim/script"): self._script_by_http,
        }

    def stats(self) -> Counts:
        """A snapshot of what has been received and billed."""
        return self._counts.copy()

    def reset(self) -> None:
        """Counts to zero; the fault script and the prompt cache begin again."""
        self._counts.clear()
        self._script.restart()
        self._anthropic.forget()

    def use_script(self, rules: Sequence[Rule]) -> None:
        """Replace the fault script; it begins now."""
        self._script = Script(rules, seed=self._seed, now=self._now)

    @contextlib.asynccontextmanager
    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Running]:
        """Listen while the context is open; port 0 takes a free one. Raises OSError."""
        listener = Listener(self.answer, self._counts, tokens_per_s=self._tokens_per_s)
        real_port = await listener.open(host, port)
        try:
            yield Running(self, host, real_port)
        finally:
            await listener.close()

    def answer(self, request: Request) -> Delivery:
        """What one request gets."""
        path = request.target.partition("?")[0].removeprefix("/v1")
        wire = self._inference.get(path)
        if wire is not None and (request.method == b"POST" or request.unreadable):
            return self._infer(wire, path, request)
        control = self._control.get((request.method, path))
        if control is not None:
            return control(request)
        if request.method == b"GET" and path.startswith("/models/"):
            return _json(_model(path.removeprefix("/models/"), anthropic=request.anthropic))
        return self._nowhere(request, known=wire is not None)

    def _infer(self, wire: Wire, path: str, request: Request) -> Delivery:
        """One inference call: counted, understood, then answered, soundly or not."""
        counts = self._counts
        counts.calls += 1
        self._number += 1
        stamp = Stamp(self._number, int(self._clock()))
        try:
            if request.unreadable:
                raise _unreadable(request.unreadable)
            ask = wire.read(request.body)
            counts.called(ask.model, stream=ask.stream)
            fault = self._fault(request, ask.model, path)
            if fault is None:
                return self._timed(wire.deliver(ask, stamp, _SOUND))
            counts.errors += fault.breaks
            rejection = _rejection(fault, wire, ask.prompt_tokens)
            if rejection is not None:
                return self._timed(wire.reject(rejection, stamp))
            return self._timed(spoil(wire.deliver(ask, stamp, _quirks(fault)), fault))
        except Rejection as rejection:
            counts.errors += 1
            return self._timed(wire.reject(rejection, stamp))

    def _timed(self, delivery: Delivery) -> Delivery:
        if not self._latency_s:
            return delivery
        return msgspec.structs.replace(delivery, delay=delivery.delay + self._latency_s)

    def _fault(self, request: Request, model: str, path: str) -> Fault | None:
        """The fault to commit: the header's, else the model's, else the script's. The script counts every call."""
        scripted = self._script.next_fault(model, path) if self._script.rules else None
        if request.fault:
            try:
                return parse_fault(request.fault)
            except UnknownFaultError as error:
                raise Rejection(400, f"x-sim-fault: {error}", param="x-sim-fault") from error
        return fault_of_model(model) or scripted

    def _nowhere(self, request: Request, *, known: bool) -> Delivery:
        method = request.method.decode("latin-1")
        rejection = Rejection(405 if known else 404, f"Invalid URL ({method} {request.target})")
        if request.unreadable:
            rejection = _unreadable(request.unreadable)
        wire: Wire = self._anthropic if request.anthropic else self._openai
        return wire.reject(rejection, Stamp(self._number, int(self._clock())))

    def _models(self, request: Request) -> Delivery:
        names = [*LISTED_MODELS, *(MODEL_PREFIX + fault for fault in KINDS)]
        models = [_model(name, anthropic=request.anthropic) for name in names]
        if request.anthropic:
            return _json({"data": models, "has_more": False, "first_id": names[0], "last_id": names[-1]})
        return _json({"object": "list", "data": models})

    def _reset_by_http(self, _: Request) -> Delivery:
        self.reset()
        return _json(self._counts)

    def _script_by_http(self, request: Request) -> Delivery:
        try:
            rules = read_rules(request.body)
        except ScriptError as error:
            return openai_wire.reject(Rejection(400, str(error)), Stamp(self._number, int(self._clock())))
        self.use_script(rules)
        return _json({"rules": len(rules)})


def _rejection(fault: Fault, wire: Wire, prompt_tokens: int) -> Rejection | None:
    """The error that a fault of status answers with; None for faults of another kind."""
    if fault.name == "context-length":
        return wire.too_long(prompt_tokens + 1_000_000)
    if fault.name == "no-money":
        return wire.no_money()
    if fault.name not in _STATUS_FAULTS:
        return None
    message, code = _STATUS_FAULTS[fault.name]
    return Rejection(int(fault.name), message, code=code, retry_after=fault.amount if fault.name == "429" else None)


def _quirks(fault: Fault) -> Quirks:
    return Quirks(
        accented=fault.name == "split-utf8",
        huge_bytes=int(fault.amount * MEBIBYTE) if fault.name == "huge" else 0,
        no_usage=fault.name == "no-usage",
    )


def _unreadable(status: int) -> Rejection:
    return Rejection(status, "The request is too large." if status == 413 else "The request is not valid HTTP.")


def _model(name: str, *, anthropic: bool) -> dict[str, object]:
    if anthropic:
        return {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}
    return {"id": name, "object": "model", "created": 1_767_225_600, "owned_by": "simulator"}


def _json(value: object) -> Delivery:
    return whole(_JSON_HEAD, msgspec.json.encode(value))
