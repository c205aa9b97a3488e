"""A clock that moves only when a test moves it."""

from __future__ import annotations


class ManualClock:
    """``advance`` moves both times; ``set_now`` moves the wall clock alone, as an administrator would."""

    def __init__(self, now: float = 1_700_000_000.0, monotonic: float = 1000.0) -> None:
        self._now = now
        self._monotonic = monotonic

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Lets ``seconds`` pass; never backwards."""
        assert seconds >= 0, "monotonic time never goes back"
        self._now += seconds
        self._monotonic += seconds

    def set_now(self, now: float) -> None:
        self._now = now
