"""Room on the disk that the journal has for itself when everybody else has filled it.

Invariant: while the file has its length, giving it up makes that many bytes free at once. It holds nothing.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

SIZE = 16 * 1024**2
"""Bytes: as much as the write-ahead log grows to before it is moved into the database."""
LOW = 1024**2
"""With fewer bytes free the next transaction may find none."""


class Reserve:
    """The file at ``path``. Nothing here raises: without a reserve the journal is as any program on a full disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._directory = os.fspath(path.parent)
        self._held = path.exists() and path.stat().st_size >= SIZE

    def fill(self) -> None:
        """Takes the room where there is more than twice as much. May run in a thread."""
        with suppress(OSError):
            if self._held or self._free() < 2 * SIZE:
                return
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, SIZE)
            finally:
                os.close(descriptor)
            self._held = True

    def give_if_low(self) -> None:
        """Before a transaction: gives the room up where the disk has next to none left."""
        if not self._held:
            return
        with suppress(OSError):
            if self._free() < LOW:
                self._held = False
                os.truncate(self._path, 0)

    def _free(self) -> int:
        disk = os.statvfs(self._directory)
        return disk.f_bavail * disk.f_frsize
