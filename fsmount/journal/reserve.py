"""Room on the disk that the journal has for itself when everybody else has filled it.

Invariant: while the file has its length, giving it up makes that many bytes free at once. It holds nothing. After a
quota has taken it, nobody else gets room (``lacking``) until it could be filled again.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SIZE = 16 * 1024**2
"""Bytes: as much as the write-ahead log grows to before it is moved into the database."""
LOW = 1024**2
"""With fewer bytes free the next transaction may find none."""
LOOK = 1.0
"""Seconds between two looks whether there is room again."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Reserve:
    """The file at ``path``. Nothing here raises: without a reserve the journal is as any program on a full disk.

    Safe from any thread.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._directory = os.fspath(path.parent)
        self._held = path.exists() and path.stat().st_size >= SIZE
        self._lock = threading.Lock()
        self._lacking = 0
        self._look_again = 0.0

    def fill(self) -> None:
        """Takes the room where there is more than twice as much. May run in a thread."""
        with self._lock, suppress(OSError):
            if self._held:
                return
            if self._free() < 2 * SIZE:
                self._lacking = 0  # a disk that says itself how full it is needs nobody to find out
                return
            self._take()

    def give_if_low(self) -> None:
        """Before a transaction: gives the room up where the disk has next to none left."""
        if not self._held:
            return
        with self._lock, suppress(OSError):
            if self._free() < LOW:
                self._give()

    def give(self) -> bool:
        """After a write that the disk refused, a quota perhaps, of which it does not tell before: whether there was
        room to give up.
        """
        with self._lock, suppress(OSError):
            if self._held:
                self._lacking = self._refusal()
                self._give()
                return True
        return False

    def refusal(self) -> int:
        """The errno with which the disk refuses more room, ENOSPC or EDQUOT; 0 where it has some."""
        with self._lock:
            return self._refusal()

    def lacking(self) -> int:
        """The errno for whoever wants room while the journal lives on what was its reserve; else 0."""
        if self._lacking and time.monotonic() >= self._look_again:
            self._look_again = time.monotonic() + LOOK
            self.fill()
        return self._lacking

    def _take(self) -> None:
        with self._opened() as file:
            try:
                os.posix_fallocate(file, 0, SIZE)
            except OSError as error:
                self._lacking = error.errno if error.errno in NO_ROOM else 0
                os.ftruncate(file, 0)
            else:
                self._held, self._lacking = True, 0

    def _give(self) -> None:
        """Removes the file: to make it shorter takes room on btrfs, and is refused there as any other write."""
        self._held = False
        os.unlink(self._path)

    def _refusal(self) -> int:
        """Found out beyond the end of the file, which keeps its length."""
        try:
            with self._opened() as file:
                length = os.fstat(file).st_size
                os.posix_fallocate(file, length, LOW)
                os.ftruncate(file, length)
        except OSError as error:
            return error.errno if error.errno in NO_ROOM else 0
        return 0

    @contextmanager
    def _opened(self) -> Iterator[int]:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _free(self) -> int:
        disk = os.statvfs(self._directory)
        return disk.f_bavail * disk.f_frsize
