"""Twins: questions in flight that mean the same, found by their vectors.

A flight whose question nobody has answered yet enters here before it buys an answer. It is compared with those that entered before it,
within the same place (the same tenant, model, instructions and turns of the conversation), and either follows one of them or flies
by itself. Older ones that have not decided yet are waited for; as everyone waits for older ones alone, nobody waits in a circle.

Those that follow one are the company of who would follow it next: one answer has to do for all of them.

Invariant: what can be followed answers its own question. Who follows another is found by nobody, so no answer goes from hand to hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from typing import Any

from headgate.cache.cache import Question
from headgate.coalesce.coalesce import Flight

MOST = 64
"""How many of the nearest are looked at. In a burst most of them turn out to follow one of the others."""

COMPANY = 4
"""How many of those that share an answer are looked at before another one shares it."""

_ROOM = 16


class Asking:
    """A question in flight. `leads` is done when its flight has decided: whether it answers the question by itself. `followers` are the
    questions that it answers, too, if any."""

    def __init__(self, flight: Flight, question: Question, place: Hashable, number: int) -> None:
        self.flight = flight
        self.question = question
        self.place = place
        self.number = number
        self.leads: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.followers: _Place | None = None


class _Place:
    """Questions that may be compared, and their vectors in the rows of one matrix."""

    def __init__(self, dimensions: int) -> None:
        import numpy as np  # late: the embedder has loaded it by now

        self.askings: list[Asking] = []
        self._rows: Any = np.empty((_ROOM, dimensions), np.float32)

    def add(self, asking: Asking) -> None:
        import numpy as np

        if len(self.askings) == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[len(self.askings)] = asking.question.vector
        self.askings.append(asking)

    def remove(self, asking: Asking) -> None:
        """The last one takes its row."""
        at, last = self.askings.index(asking), len(self.askings) - 1
        self.askings[at], self._rows[at] = self.askings[last], self._rows[last]
        del self.askings[last]

    def near(self, vector: Any, far: float) -> list[tuple[float, Asking]]:
        similar = self._rows[: len(self.askings)] @ vector
        found = [(float(similar[at]), self.askings[at]) for at in (similar >= far).nonzero()[0]]
        return sorted(found, key=lambda one: (-one[0], one[1].number))


class Twins:
    """All questions in flight of this process."""

    def __init__(self) -> None:
        self._places: dict[Hashable, _Place] = {}
        self._number = 0

    def __len__(self) -> int:
        return sum(len(place.askings) for place in self._places.values())

    def enter(self, flight: Flight, question: Question, place: Hashable) -> Asking:
        """A flight is about to buy an answer to this question, which has a vector. End it with `leave`."""
        self._number += 1
        asking = Asking(flight, question, place, self._number)
        own = self._places.get(place)
        if own is None:
            own = self._places[place] = _Place(len(question.vector))  # type: ignore[arg-type]
        own.add(asking)
        return asking

    def near(self, asking: Asking, far: float) -> list[tuple[float, Asking]]:
        """The nearest that entered before, with their cosines, those of `far` and more, nearest first."""
        found = self._places[asking.place].near(asking.question.vector, far)
        return [(cosine, one) for cosine, one in found if one.number < asking.number][:MOST]

    async def leading(self, near: Sequence[tuple[float, Asking]]) -> list[tuple[float, Asking]]:
        """Those of them that answer their own question, after all have decided."""
        undecided = [one.leads for _, one in near if not one.leads.done()]
        if undecided:
            await asyncio.wait(undecided)
        return [(cosine, one) for cosine, one in near if one.leads.result()]

    def company(self, asking: Asking, leader: Asking, far: float) -> list[Question]:
        """The nearest to a question of those that follow a leader already, and with whom it would share one answer."""
        if leader.followers is None:
            return []
        return [one.question for _, one in leader.followers.near(asking.question.vector, far)[:COMPANY]]

    def decide(self, asking: Asking, leader: Asking | None) -> None:
        """It follows this one and can be found no more; or it answers the question by itself, where there is none to follow."""
        if asking.leads.done():
            return
        asking.leads.set_result(leader is None)
        if leader is not None:
            self._remove(asking)
            if leader.followers is None:
                leader.followers = _Place(len(asking.question.vector))  # type: ignore[arg-type]
            leader.followers.add(asking)

    def leave(self, asking: Asking) -> None:
        """Its flight is over, or about to be."""
        if not asking.leads.done():
            asking.leads.set_result(False)
            self._remove(asking)
        elif asking.leads.result():
            self._remove(asking)

    def _remove(self, asking: Asking) -> None:
        place = self._places[asking.place]
        place.remove(asking)
        if not place.askings:
            del self._places[asking.place]
