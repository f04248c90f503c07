"""Pouring: from one flight into another, the parts of an answer and how it was come by.

As long as nobody was given any of it the one that is poured into can still answer by itself; from then on there is no way back.
"""

from __future__ import annotations

from collections.abc import Callable

from headgate.coalesce.coalesce import Flight
from headgate.model.chat import Completion

Fits = Callable[[Flight, Completion | None], bool]


class Pouring:
    """What `flight` gets of the answer of another, its `leader`."""

    def __init__(self, flight: Flight, leader: Flight, *, fits: Fits, note: Callable[[], None]) -> None:
        """`fits`: whether a flight's answer is for this one, too, as far as is known of it; `note` writes down in the flight's trail what is
        known of it now."""
        self._flight = flight
        self._leader = leader
        self._fits = fits
        self._note = note
        self._position = 0

    def takes(self, completion: Completion) -> bool:
        """Whether this answer of the other is the flight's, too: of one that was given out in part, whatever became of it."""
        return self._fits(self._leader, None if self._position else completion)

    async def read(self, patience: float) -> Completion | None:
        """The answer; None where it is not for this flight, or nothing was heard for so many seconds. Raises what the leader failed of where
        somebody was given a part already."""
        leader, flight = self._leader, self._flight
        if not await leader.heard(patience, self._price) or not self._promising():
            return None
        self._price()
        flight.tapped(self._pour)
        try:
            self._pour()
            while not leader.ended:
                await leader.news()
                self._pour()
        finally:
            flight.tapped(lambda: None)
        return self._whole()

    def _promising(self) -> bool:
        """Whether a flight of which something is known now may have an answer for this one."""
        return self._leader.error is None and self._fits(self._leader, self._leader.completion)

    def _price(self) -> None:
        """Pass on what the answer will cost at most."""
        most = self._leader.trail.ceiling
        if most != self._flight.trail.ceiling and self._fits(self._leader, None):
            self._flight.price(most)

    def _pour(self) -> None:
        """Give what there is to those who read in parts."""
        if not self._flight.streamed:
            return
        for event in self._leader.events_from(self._position):
            self._note()
            self._position += 1
            self._flight.publish(event)

    def _whole(self) -> Completion | None:
        leader, completion = self._leader, self._leader.completion
        if completion is not None and self.takes(completion):
            self._note()
            return completion
        if self._position and leader.error is not None:
            raise leader.error.with_traceback(None)
        return None
