"""What both drafts and bodies need of a file: read a part, write all, hash, fsync.

Invariant: everything goes by offset, so that one descriptor serves any number of readers.
"""

from __future__ import annotations

import hashlib
import os

from fsmount.model import Digest

PIECE = 1024**2
"""Bytes read at once when a file is hashed."""


class BodyFile:
    """The first ``size`` bytes of a file of the spool, for reading only."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size

    @property
    def size(self) -> int:
        """Bytes that can be read; less than was recorded where the file was cut."""
        return self._size

    def read(self, offset: int, size: int) -> bytes:
        """A pread; shorter only at the end."""
        return os.pread(self._fd, max(0, min(size, self._size - offset)), offset)

    def close(self) -> None:
        """Gives the descriptor back; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def write_all(fd: int, offset: int, content: bytes) -> None:
    """Writes every byte or raises OSError; write(2) may stop early without an error when the disk fills up."""
    done = os.pwrite(fd, content, offset)
    while done < len(content):
        done += os.pwrite(fd, memoryview(content)[done:], offset + done)


def digest_of(path: str) -> Digest:
    """The sha256 of a whole file; raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return digest_of_open(fd)
    finally:
        os.close(fd)


def digest_of_open(fd: int) -> Digest:
    """The sha256 of everything that ``fd`` reads; raises OSError."""
    hasher, offset = hashlib.sha256(), 0
    while piece := os.pread(fd, PIECE, offset):
        hasher.update(piece)
        offset += len(piece)
    return Digest(hasher.hexdigest())


def fsync(path: str) -> None:
    """Makes a file's bytes, or a directory's names, survive power loss (fsync(2): a new name needs both). Blocks."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
