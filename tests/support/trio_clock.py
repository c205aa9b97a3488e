"""The clock of tests that wait: trio's own, which a ``MockClock`` makes virtual."""

from __future__ import annotations

import trio


class TrioClock:
    """``monotonic`` is trio's time; ``now`` the same, counted from a fixed moment; ``jump`` sets it."""

    def __init__(self) -> None:
        self._began = 1_700_000_000.0

    def jump(self, seconds: float) -> None:
        self._began += seconds

    def now(self) -> float:
        return self._began + trio.current_time()

    def monotonic(self) -> float:
        return trio.current_time()
