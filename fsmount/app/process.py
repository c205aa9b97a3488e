"""What the daemon asks of the system for itself before it begins.

Invariant: what the process holds in memory, a credential above all, leaves it neither as a core file nor through /proc.
What is asked for is in force before the first thread begins.
"""

from __future__ import annotations

import ctypes
import resource

_PR_SET_DUMPABLE = 4
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_LARGE = 1024 * 1024
"""Bytes: below that, getting memory anew costs more than it is worth."""


def allow_descriptors() -> None:
    """Every open file that is being written holds one: as many as the system grants."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def return_memory() -> None:
    """What is large goes back to the system when it is freed (mallopt(3)).

    glibc would keep as much as it ever had to give at once, and that for each of several threads: blocks of files come
    and go through all of them. Other libraries have no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for setting, value in ((_M_MMAP_THRESHOLD, _LARGE), (_M_TRIM_THRESHOLD, _LARGE), (_M_ARENA_MAX, 2)):
            mallopt(setting, value)


def keep_memory_private() -> None:
    """No core file, and no look into memory and environment for other programs of this user (prctl(2), proc(5)).

    Root still may.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
