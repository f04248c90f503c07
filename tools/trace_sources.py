"""Reads the written questions under `tools/trace` into labels with their wordings.

Invariant: a wording belongs to exactly one label of its tenant.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import yaml

SOURCES = Path(__file__).parent / "trace"


class Question(NamedTuple):
    """All that deserves one answer: label, ways to ask, and the look-alike kind of its family, if any."""

    label: str
    wordings: tuple[str, ...]
    lookalike: str = ""


class Tenant(NamedTuple):
    """One customer of the gateway and everything its users ask.

    `families` holds, for each family, its questions; each question is the tuple of its sides, which read
    alike and need different answers. `pinned` maps an intent to the model its feature insists on.
    """

    name: str
    share: float
    hard_share: float
    system: str
    max_tokens: int | None
    pinned: dict[str, str]
    intents: tuple[Question, ...]
    families: tuple[tuple[tuple[Question, ...], ...], ...]
    hard: tuple[tuple[Question, ...], ...]

    def intent(self, name: str) -> Question:
        """The everyday question with that name; raises KeyError when there is none."""
        return {question.label.split(":")[1]: question for question in self.intents}[name]


class Burst(NamedTuple):
    """Many people ask one thing at one instant."""

    tenant: str
    intent: str
    at: float
    size: int


def read_tenants() -> list[Tenant]:
    """All tenants in the order of `tenants.yaml`."""
    shared = _yaml(SOURCES / "shared.yaml")
    return [_tenant(name, about, shared) for name, about in _yaml(SOURCES / "tenants.yaml").items()]


def read_bursts() -> list[Burst]:
    """All bursts in the order of time."""
    return [Burst(**about) for about in _yaml(SOURCES / "bursts.yaml")]


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _tenant(name: str, about: dict[str, Any], shared: dict[str, Any]) -> Tenant:
    folder = SOURCES / name
    own, common = (
        [Question(f"{name}:{intent}", tuple(said)) for intent, said in intents.items()]
        for intents in (_yaml(folder / "intents.yaml"), shared["intents"])
    )
    families = _yaml(folder / "families.yaml") | {f"all-{key}": value for key, value in shared["families"].items()}
    return Tenant(
        name=name,
        share=about["share"],
        hard_share=about["hard"],
        system=about["system"],
        max_tokens=about.get("max_tokens"),
        pinned=about.get("pinned", {}),
        intents=tuple(_interleaved(own, common)),
        families=tuple(_family(f"{name}:{key}", value) for key, value in families.items()),
        hard=tuple(_long(f"{name}:{key}", value) for key, value in _yaml(folder / "hard.yaml").items()),
    )


def _interleaved(own: list[Question], common: list[Question]) -> list[Question]:
    """The shared questions are about as popular as a tenant's own ones."""
    merged = list(own)
    for number, question in enumerate(common):
        merged.insert(1 + 2 * number, question)
    return merged


def _family(label: str, about: dict[str, Any]) -> tuple[tuple[Question, ...], ...]:
    """One tuple of sides for each question of the family.

    With `each`, every line of `say` is a question of its own; otherwise all lines ask for the same.
    """
    said = {side: _filled(about, value) for side, value in about["sides"].items()}
    kind = f"lookalike_{about['kind']}"
    if not about.get("each"):
        return (tuple(Question(f"{label}/{side}", lines, kind) for side, lines in said.items()),)
    return tuple(
        tuple(Question(f"{label}.{number}/{side}", (line,), kind) for side, line in zip(said, lines, strict=True))
        for number, lines in enumerate(zip(*said.values(), strict=True))
    )


def _filled(about: dict[str, Any], side: list[str] | dict[str, str]) -> tuple[str, ...]:
    if isinstance(side, list):
        return tuple(side)
    return tuple(_fill(line, side, ("{", "}")) for line in about["say"])


def _long(label: str, about: dict[str, Any]) -> tuple[Question, ...]:
    """A long prompt with every combination of its slots, or the listed ones where they are `tied`."""
    variants: list[dict[str, str]] = list(about["variants"].values())
    if about.get("tied"):
        chosen = variants
    else:
        slots = {slot: list(dict.fromkeys(variant[slot] for variant in variants)) for slot in variants[0]}
        chosen = [dict(zip(slots, values, strict=True)) for values in itertools.product(*slots.values())]
    return tuple(
        Question(f"{label}#{number}", (_fill(about["text"].strip(), variant, ("<<", ">>")),))
        for number, variant in enumerate(chosen)
    )


def _fill(text: str, slots: dict[str, str], marks: tuple[str, str]) -> str:
    for slot, value in slots.items():
        text = text.replace(f"{marks[0]}{slot}{marks[1]}", value)
    return text
