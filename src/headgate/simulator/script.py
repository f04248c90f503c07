"""The fault script: which calls fail, how, and when.

A script is a list of rules in YAML or JSON. Each rule counts the calls that fit its `match`, from 1, whether or not an
earlier rule fired; the first rule whose conditions all hold decides. With the same seed and the same calls in the same
order, the same calls fail.
"""

from __future__ import annotations

import fnmatch
import random
import time
from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec
import yaml

from headgate.simulator.faults import Fault, UnknownFaultError, parse_fault

Natural = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class ScriptError(ValueError):
    """The script cannot be used; the message names the place."""


class Match(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which calls a rule looks at: shell-style patterns for the model name and the path without `/v1`."""

    model: str = "*"
    path: str = "*"

    def fits(self, model: str, path: str) -> bool:
        """Whether a call for `model` on `path` (given without `/v1`) belongs to the rule."""
        wanted = self.path.removeprefix("/v1")
        return fnmatch.fnmatchcase(model, self.model) and fnmatch.fnmatchcase(path, wanted)


class CallSpan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"first": "from", "last": "to"}):
    """Calls `from` to `to`, both included, counted from 1."""

    first: Natural = 1
    last: Natural | None = None

    def holds(self, number: int) -> bool:
        """Whether call `number` lies in the span."""
        return self.first <= number and (self.last is None or number <= self.last)


class TimeSpan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"start": "from", "end": "to"}):
    """From `from` seconds (included) to `to` seconds (excluded) after the script was set."""

    start: Seconds = 0.0
    end: Seconds | None = None

    def holds(self, elapsed: float) -> bool:
        """Whether `elapsed` seconds lie in the span."""
        return self.start <= elapsed and (self.end is None or elapsed < self.end)


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One rule; every condition that is given must hold."""

    fault: str | int
    match: Match = Match()
    calls: CallSpan | None = None
    every: Natural | None = None
    seconds: TimeSpan | None = None
    probability: Share | None = None


class Script:
    """Rules at work: counts calls per rule and answers which fault the next call meets."""

    def __init__(self, rules: Sequence[Rule] = (), *, seed: int = 0, now: Callable[[], float] = time.monotonic) -> None:
        self.rules = tuple(rules)
        self._faults = tuple(parse_fault(str(rule.fault)) for rule in self.rules)
        self._seed = seed
        self._now = now
        self.restart()

    def restart(self) -> None:
        """Begin again: call numbers, seconds and chance."""
        self._started = self._now()
        self._seen = [0] * len(self.rules)
        self._chance = [random.Random(self._seed + place) for place in range(len(self.rules))]

    def next_fault(self, model: str, path: str) -> Fault | None:
        """Count one call and return the fault that it meets, if any."""
        chosen: Fault | None = None
        for place, rule in enumerate(self.rules):
            if rule.match.fits(model, path) and self._fires(place, rule) and chosen is None:
                chosen = self._faults[place]
        return chosen

    def _fires(self, place: int, rule: Rule) -> bool:
        self._seen[place] += 1
        number = self._seen[place]
        lucky = rule.probability is None or self._chance[place].random() < rule.probability
        return (
            lucky
            and (rule.calls is None or rule.calls.holds(number))
            and (rule.every is None or number % rule.every == 0)
            and (rule.seconds is None or rule.seconds.holds(self._now() - self._started))
        )


def read_rules(source: str | bytes) -> tuple[Rule, ...]:
    """Read rules from YAML (of which JSON is a part); raises ScriptError naming the place."""
    try:
        # Plain strings only: YAML 1.1 would read the unquoted fault 429:2 as a base-60 number.
        tree = yaml.load(source, Loader=yaml.BaseLoader)  # noqa: S506
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ScriptError(f"the script is not valid YAML: {error}") from error
    if tree is None or tree == "":
        return ()
    try:
        rules = msgspec.convert(tree, tuple[Rule, ...], strict=False)
    except msgspec.ValidationError as error:
        raise ScriptError(f"the script does not fit: {error}") from error
    for place, rule in enumerate(rules):
        try:
            parse_fault(str(rule.fault))
        except UnknownFaultError as error:
            raise ScriptError(f"the script does not fit: {error} - at `$[{place}].fault`") from error
    return rules
