"""The system's time, behind the ``Clock`` port.

Invariant: nothing that waits looks at ``now``, which an administrator or NTP may set back.
"""

from __future__ import annotations

import time


class SystemClock:
    """``now`` is UTC epoch seconds; ``monotonic`` is seconds since some moment before this process."""

    def now(self) -> float:
        """UTC epoch seconds; may jump."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never go back (``CLOCK_MONOTONIC``); stands still while the machine sleeps."""
        return time.monotonic()
