"""What routing would do with a request, as JSON: the same for the management API and the command line."""

from __future__ import annotations

import msgspec

from headgate.model.chat import Json
from headgate.model.errors import InvalidRequest
from headgate.model.money import to_usd
from headgate.routing.explanation import Candidate, Explanation

_DECIDED = ("tier", "task", "intent", "complexity", "strategy", "confidence", "reason", "decider")


def request_of(
    model: str, prompt: str | None, messages: list[Json] | None, metadata: dict[str, str] | None = None
) -> Json:
    """The chat request that is asked about: one question, or all turns of a conversation. Raises InvalidRequest."""
    if (prompt is None) == (messages is None):
        raise InvalidRequest("Say either `prompt` or `messages`.", param="prompt")
    turns = [{"role": "user", "content": prompt}] if messages is None else messages
    return {"model": model, "messages": turns, **({} if metadata is None else {"metadata": metadata})}


def explanation_row(found: Explanation) -> Json:
    """The decision, what each decider says, and the models that may answer, those first that would be tried."""
    decision = found.decision
    return {
        "model": found.route,
        **{name: _shown(getattr(decision, name)) for name in _DECIDED},
        "kept": None if decision.kept is None else msgspec.to_builtins(decision.kept),
        "deciders": [{"name": name, "says": says} for name, says in found.words.items()],
        "candidates": [_candidate(one) for one in found.candidates],
    }


def _shown(value: object) -> object:
    return round(value, 3) if isinstance(value, float) else value


def _candidate(one: Candidate) -> Json:
    """Prices are USD for a million tokens, the cheapest rates where there are several; null where none is known."""
    deployment = one.deployment
    price = deployment.price
    return {
        "place": one.place,
        "deployment": deployment.name,
        "provider": deployment.provider,
        "model": deployment.model,
        "input_usd": None if price is None else to_usd(price.input),
        "output_usd": None if price is None else to_usd(price.output),
        "health": one.health,
    }
