"""What the daemon asks of the system for itself before it begins.

Invariant: what the process holds in memory, a credential above all, leaves it neither as a core file nor through /proc.
"""

from __future__ import annotations

import ctypes
import resource

_PR_SET_DUMPABLE = 4


def allow_descriptors() -> None:
    """Every open file that is being written holds one: as many as the system grants."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def keep_memory_private() -> None:
    """No core file, and no look into memory and environment for other programs of this user (prctl(2), proc(5)).

    Root still may.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
