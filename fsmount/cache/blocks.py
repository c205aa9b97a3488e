"""The cache's files: blocks at their own offsets, checked when they are read.

Invariant: ``read`` returns bytes that have the checksums given, or None. The disk keeps a margin that no block takes.
"""

from __future__ import annotations

import os
import shutil
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from fsmount.cache.index import BLOCK

MARGIN = 64 * 1024**2
"""Bytes of the disk that are left free: programs and the spool need them more."""
_LOOK_BYTES = 64 * 1024**2
_LOOK_SECONDS = 1.0
_KEY_LENGTH = 64


class Blocks:
    """The files below ``directory``. Every method raises OSError, ``remove`` only for other reasons than absence."""

    def __init__(self, directory: Path) -> None:
        self._directory = os.fspath(directory)
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        self._known_free = 0
        self._look_again = 0.0

    def write(self, key: bytes, first: int, content: memoryview) -> list[int]:
        """Writes blocks from ``first`` on; their checksums."""
        fd = self._open_for_writing(self._path(key))
        try:
            if os.pwrite(fd, content, first * BLOCK) != len(content):
                raise OSError(f"only part of a cache block could be written below {self._directory}")
        finally:
            os.close(fd)
        return [zlib.crc32(content[at : at + BLOCK]) for at in range(0, len(content), BLOCK)]

    def read(self, key: bytes, first: int, length: int, checksums: Sequence[int]) -> bytes | None:
        """``length`` bytes from block ``first`` on, or None where they are cut or not what was written."""
        try:
            fd = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            content = os.pread(fd, length, first * BLOCK)
        finally:
            os.close(fd)
        if len(content) != length:
            return None
        if length <= BLOCK:
            return content if zlib.crc32(content) == checksums[0] else None
        view = memoryview(content)
        intact = all(
            zlib.crc32(view[at * BLOCK : (at + 1) * BLOCK]) == expected for at, expected in enumerate(checksums)
        )
        return content if intact else None

    def remove(self, key: bytes) -> None:
        """Removes the file of one key; nothing happens if it is gone."""
        try:
            os.unlink(self._path(key))
        except FileNotFoundError:
            pass

    def has_room(self, growth: int) -> bool:
        """Whether the disk has ``growth`` bytes beyond the margin; asked of it at most once a second or 64 MiB."""
        if growth > self._known_free or time.monotonic() >= self._look_again:
            disk = os.statvfs(self._directory)
            self._known_free = min(disk.f_bavail * disk.f_frsize - MARGIN, max(_LOOK_BYTES, growth))
            self._look_again = time.monotonic() + _LOOK_SECONDS
        if growth > self._known_free:
            return False
        self._known_free -= growth
        return True

    def _path(self, key: bytes) -> str:
        name = key.hex()
        return f"{self._directory}/{name[:2]}/{name}"

    def _open_for_writing(self, path: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            return os.open(path, flags, 0o600)


def sweep(directory: Path, before: float, listed: Callable[[bytes], bool]) -> None:
    """Removes the files that were written before ``before`` (epoch seconds) and that ``listed`` does not know.

    For a worker thread; errors leave the rest for the next time.
    """
    try:
        for folder in os.listdir(directory):
            with os.scandir(directory / folder) as entries:
                for entry in entries:
                    if not _key_of(entry.name) or entry.stat().st_mtime >= before:
                        continue
                    if not listed(_key_of(entry.name)):
                        os.unlink(entry.path)
    except OSError:
        pass


def discard(directory: Path) -> None:
    """Removes a whole tree of blocks; for a worker thread, errors leave the rest for the next time."""
    shutil.rmtree(directory, ignore_errors=True)


def _key_of(name: str) -> bytes:
    """The key that a file's name says; empty for a foreign file."""
    try:
        return bytes.fromhex(name) if len(name) == _KEY_LENGTH else b""
    except ValueError:
        return b""
