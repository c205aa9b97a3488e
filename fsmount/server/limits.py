"""Limits on how much one caller may ask for, off unless the server was told otherwise.

Invariant: what is counted is counted before it is looked at, refused requests included.
"""

import time
from collections import deque
from collections.abc import Callable

from fsmount.server.messages import Rejected
from fsmount.server.principal import Principal

WINDOW = 60


class RateLimit:
    """At most `most` requests a minute of each workspace and subject. `now` gives monotonic seconds."""

    def __init__(self, most: int, now: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._now = now
        self._window = 0
        self._counts: dict[tuple[str, str], int] = {}

    def count(self, principal: Principal) -> None:
        """One more request. Raises Rejected (429) beyond the limit; it names the whole window as the wait."""
        window = int(self._now() // WINDOW)
        if window != self._window:
            self._window, self._counts = window, {}
        whose = (principal.workspace, principal.subject)
        self._counts[whose] = self._counts.get(whose, 0) + 1
        if self._counts[whose] > self._most:
            message = f"more than {self._most} requests within {WINDOW} s"
            raise Rejected(429, "rate_limited", message, retry_after=WINDOW)


class DeleteStorm:
    """At most `most` deletes in a workspace within any minute; stays shut until it has been quiet for that long."""

    def __init__(self, most: int, now: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._now = now
        self._recent: dict[str, deque[float]] = {}

    def count(self, workspace: str) -> None:
        """One more delete. Raises Rejected (429) beyond the limit."""
        recent = self._recent.setdefault(workspace, deque(maxlen=self._most + 1))
        recent.append(self._now())
        if len(recent) > self._most and recent[-1] - recent[0] < WINDOW:
            message = f"more than {self._most} deletes within {WINDOW} s"
            raise Rejected(429, "delete_storm_rejected", message, retry_after=WINDOW)
