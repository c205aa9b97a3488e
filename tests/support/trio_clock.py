"""The clock of tests that wait: trio's own, which a ``MockClock`` makes virtual."""

from __future__ import annotations

import trio


class TrioClock:
    """``monotonic`` is trio's time; ``now`` the same, counted from a fixed moment."""

    def now(self) -> float:
        return 1_700_000_000.0 + trio.current_time()

    def monotonic(self) -> float:
        return trio.current_time()
