"""Clocks of the tests: one that moves only when a test moves it, and trio's virtual one with time for threads."""

from __future__ import annotations

import time

import trio
from trio.testing import MockClock


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


def patient_clock() -> MockClock:
    """Jumps to the next deadline once nothing runs; trio's own takes a task that awaits a thread for idle.

    Of threads it sees those of ``trio.to_thread.run_sync``.
    """
    clock = MockClock(autojump_threshold=0)
    jump = clock._autojump

    def patient() -> None:
        if trio.to_thread.current_default_thread_limiter().borrowed_tokens:
            time.sleep(0.0005)  # of real time; then trio asks again
        else:
            jump()

    clock._autojump = patient  # type: ignore[method-assign]
    return clock
