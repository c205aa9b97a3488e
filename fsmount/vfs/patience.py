"""How long the system call that is being served may still take.

Invariant: what waits for many answers of the remote has its time anew with each; what waits for one has it once.
"""

from __future__ import annotations

from contextvars import ContextVar

import trio

_served: ContextVar[tuple[trio.CancelScope, float] | None] = ContextVar("served", default=None)


def serving(scope: trio.CancelScope, seconds: float) -> None:
    """From now on this task serves a system call that ends with ``scope``, after so many seconds without progress."""
    _served.set((scope, seconds))


def progressed() -> None:
    """The remote has just sent part of what is waited for; nothing happens outside of a system call."""
    served = _served.get()
    if served is not None:
        scope, seconds = served
        scope.deadline = max(scope.deadline, trio.current_time() + seconds)
