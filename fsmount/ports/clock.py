"""Time."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Time. ``now`` is UTC epoch seconds; ``monotonic`` is what waiting is measured with."""

    def now(self) -> float: ...
    def monotonic(self) -> float: ...
