"""A file of lines that is read while it grows.

Invariant: a generation of the file only grows, by whole lines; past its limit a new one takes the name, and whoever
reads the old one goes on reading it.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fsmount.errors import MachineLacks


class Generation:
    """One file that had or has the stream's name; implements ports.LogFile."""

    def __init__(self, number: int, descriptor: int, size: int, mtime: float) -> None:
        self.generation = number
        self.size = size
        self.mtime = mtime
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._holders = 1

    def append(self, line: bytes, at: float) -> None:
        """Writes the whole line or raises OSError; what a full disk let through of it is taken back."""
        written = os.write(self._descriptor, line)
        if written < len(line):
            with suppress(OSError):
                os.ftruncate(self._descriptor, self.size)
                written = 0
            self.size += written
            raise OSError(errno.ENOSPC, "only part of the line was written")
        self.size += written
        self.mtime = at

    def read(self, offset: int, size: int) -> bytes:
        """What is there of ``size`` bytes at ``offset``; empty at the end."""
        return os.pread(self._descriptor, max(0, min(size, self.size - offset)), offset) if size > 0 else b""

    def hold(self) -> Generation:
        """One holder more."""
        with self._lock:
            self._holders += 1
        return self

    def close(self) -> None:
        """One holder fewer; the last one closes the file."""
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                os.close(self._descriptor)

    def cut(self, size: int) -> None:
        """What is behind ``size`` goes; only while nobody reads. Raises OSError."""
        os.ftruncate(self._descriptor, size)
        self.size = size

    @property
    def ends_torn(self) -> bool:
        """Whether the last line has no end."""
        return self.size > 0 and self.read(self.size - 1, 1) != b"\n"


class FileStream:
    """Implements ports.Stream on a file of this disk; ``append`` may come from any thread and one at a time."""

    def __init__(self, path: Path, limit: int, *, option: str) -> None:
        """Raises MachineLacks if ``path`` cannot be written or is no regular file; ``option`` chooses another."""
        self._path = path
        self._limit = limit
        self._lock = threading.Lock()
        self._closed = False
        self._watchers: list[Callable[[], None]] = []
        self._generation = _opened(path, option)

    @property
    def current(self) -> Generation:
        return self._generation

    def open(self) -> Generation:
        with self._lock:
            return self._generation.hold()

    def watch(self, grown: Callable[[], None]) -> None:
        self._watchers.append(grown)

    def append(self, line: bytes, at: float) -> None:
        """The line, or nothing where the disk is full; ``at`` (epoch seconds) is the file's time then."""
        with self._lock, suppress(OSError):
            self._append(line, at)
        for grown in self._watchers:
            grown()

    def close(self) -> None:
        """Ends writing; readers keep what they hold."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._generation.close()

    def _append(self, line: bytes, at: float) -> None:
        if self._closed:  # the descriptor's number may be another file's by now
            return
        if self._generation.ends_torn:
            line = b"\n" + line
        self._generation.append(line, at)
        if self._generation.size > self._limit:
            self._begin_anew()

    def _begin_anew(self) -> None:
        """A new file with the newest lines takes the name in one step."""
        old = self._generation
        newest = old.read(old.size - self._limit // 2, self._limit // 2)
        newest = newest[newest.find(b"\n") + 1 :]
        descriptor, temporary = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
        new = Generation(old.generation + 1, descriptor, 0, old.mtime)
        try:
            new.append(newest, old.mtime)
            os.replace(temporary, self._path)
        except OSError:
            new.close()
            os.unlink(temporary)
            raise
        self._generation = new
        old.close()


def _opened(path: Path, option: str) -> Generation:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        message = f"cannot write the log {path}: {error.strerror}"
        raise MachineLacks(message, hint=f"choose another with {option}") from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise MachineLacks(f"the log {path} is no regular file", hint=f"choose another with {option}")
    return Generation(1, descriptor, found.st_size, found.st_mtime)
