"""How many bytes the spool holds and may hold, and whether the disk has them.

Invariant: no body takes the reserve of the disk, so that journal rows, removals and redrives stay possible.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable

RESERVE = 16 * 1024**2
"""Bytes of the disk that no body may take."""
_LOOK_BYTES = 64 * 1024**2
_LOOK_SECONDS = 1.0
_DEFAULT_SHARE = 0.8


class Room:
    """The books of one spool, ``used`` and ``limit`` in bytes; None: 80 % of the disk. Safe from any thread.

    ``lacking`` says with which errno the disk has refused the journal more room, 0 where it has not: of a quota it
    tells in no other way. ``aside`` bytes of those used do not count against the limit: bodies that were given up,
    which have their own.
    """

    def __init__(self, directory: str, limit: int | None, used: int, lacking: Callable[[], int]) -> None:
        disk = os.statvfs(directory)
        self.limit = int(disk.f_blocks * disk.f_frsize * _DEFAULT_SHARE) if limit is None else limit
        self.used = used
        self.aside = 0
        self._directory = directory
        self._lacking = lacking
        self._lock = threading.Lock()
        self._known_free = 0
        self._look_again = 0.0

    @property
    def counted(self) -> int:
        """Bytes used that the limit is for."""
        return max(0, self.used - self.aside)

    def take(self, growth: int, *, allocated: bool = True) -> None:
        """Books ``growth`` bytes; raises OSError EDQUOT or, unless they are only a hole, what the disk has."""
        with self._lock:
            if self.counted + growth > self.limit:
                raise OSError(errno.EDQUOT, f"the spool holds {self.counted} of {self.limit} bytes (--spool-limit)")
            if allocated:
                if lacking := self._lacking():
                    raise OSError(lacking, "what room there is on the disk is the journal's", self._directory)
                if growth > self._known_free or time.monotonic() >= self._look_again:
                    self._look(growth)
                self._known_free -= growth
            self.used += growth

    def give(self, size: int) -> None:
        """Takes ``size`` bytes off the books."""
        with self._lock:
            self.used -= size

    def _look(self, growth: int) -> None:
        disk = os.statvfs(self._directory)
        free = disk.f_bavail * disk.f_frsize - RESERVE
        if growth > free:
            raise OSError(errno.ENOSPC, f"the disk has less than {growth} bytes beyond its reserve", self._directory)
        self._known_free = max(growth, min(free, _LOOK_BYTES))
        self._look_again = time.monotonic() + _LOOK_SECONDS
