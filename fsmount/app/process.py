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
_LARGE = 4 * 1024 * 1024
"""Bytes that always go back at once when they are freed. A block of a file has less: to get it anew, a page at a time,
would cost a quarter of the time that it takes to read it.
"""


def allow_descriptors() -> None:
    """Every open file that is being written holds one: as many as the system grants."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def settle_memory() -> None:
    """How much freed memory is kept for the next block of a file (mallopt(3)).

    glibc would learn from the largest that ever came, and for each of many threads. Other libraries have no such
    setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for setting, value in ((_M_MMAP_THRESHOLD, _LARGE), (_M_TRIM_THRESHOLD, 2 * _LARGE), (_M_ARENA_MAX, 2)):
            mallopt(setting, value)


def return_memory() -> None:
    """What is free goes back to the system (malloc_trim(3)): a millisecond or less, for a worker thread."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def keep_memory_private() -> None:
    """No core file, and no look into memory and environment for other programs of this user (prctl(2), proc(5)).

    Root still may.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
