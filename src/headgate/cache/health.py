"""Health: whether a part of the cache works, so that a part that is down is counted at every call and told once.

The cache fails open, so what breaks in it would be seen by nobody: here it is counted for the metrics, and the log has a line when a
part stops working and one when it works again.
"""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)


class Health:
    """One part of the cache."""

    def __init__(self, part: str) -> None:
        """`part` names it in metrics and log lines."""
        self.part = part
        self.failures = 0
        self.well = True

    def failed(self, error: Exception) -> None:
        """It did not do what it was asked; the call goes on without it."""
        self.failures += 1
        if self.well:
            reason = " ".join(str(error).split()) or type(error).__name__
            log.warning("the cache's %s does not work, calls go on without it: %s", self.part, reason)
            log.debug("the cache's %s does not work", self.part, exc_info=error)
        self.well = False

    def worked(self) -> None:
        """It did what it was asked."""
        if not self.well:
            log.warning("the cache's %s works again, after %d failures in all", self.part, self.failures)
        self.well = True
