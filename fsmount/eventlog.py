"""The log file of a mount: what happened, a line each.

Invariant: a caller is never kept waiting and never sees an error: a full disk costs the line. A generation of the file
only grows; past its limit a new one takes the name, and whoever reads the old one goes on reading it.
"""

from __future__ import annotations

import logging
import os
import select
import stat
import sys
import tempfile
import threading
import traceback
from pathlib import Path

from fsmount.errors import MachineLacks
from fsmount.model import OpId, RemotePath
from fsmount.ports import Clock
from fsmount.render.escape import escape, rfc3339

LIMIT = 2 << 20
"""Bytes after which a new file takes the name; it begins with the newest half of that."""
_ECHOED = select.PIPE_BUF
"""The longest echo: so much a pipe that polls as writable takes without blocking (pipe(7))."""


class Generation:
    """One file that had or has the log's name; implements ports.LogFile."""

    def __init__(self, number: int, descriptor: int, size: int, mtime: float) -> None:
        self.generation = number
        self.size = size
        self.mtime = mtime
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._holders = 1

    def append(self, line: bytes, at: float) -> None:
        """Writes the whole line or raises OSError; what a full disk let through of it is ended by the next line."""
        self.size += os.write(self._descriptor, line)
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

    @property
    def ends_torn(self) -> bool:
        """Whether the last line has no end."""
        return self.size > 0 and self.read(self.size - 1, 1) != b"\n"


class FileEventLog:
    """Implements ports.ReadableLog on a file of this disk; notes may come from any thread.

    ``echo`` also writes each line to standard error, unless nobody takes it there.
    """

    def __init__(
        self, path: Path, clock: Clock, *, debug: bool = False, echo: bool = False, limit: int = LIMIT
    ) -> None:
        """Raises MachineLacks if ``path`` cannot be written or is no regular file."""
        self._path = path
        self._clock = clock
        self._debug = debug
        self._echo = echo
        self._limit = limit
        self._lock = threading.Lock()
        self._closed = False
        self._generation = _opened(path)

    @property
    def current(self) -> Generation:
        """The generation that is written now; not to be closed."""
        return self._generation

    def open(self) -> Generation:
        """The current generation, held until it is closed."""
        with self._lock:
            return self._generation.hold()

    def note(
        self,
        event: str,
        message: str = "",
        *,
        op: OpId | None = None,
        path: RemotePath | None = None,
        level: str = "info",
    ) -> None:
        """Appends ``AT LEVEL EVENT OP PATH message``; ``debug`` lines only where debugging was asked for."""
        if level == "debug" and not self._debug:
            return
        at = self._clock.now()
        fields = (level, event, op or "-", path or "-")
        line = " ".join([rfc3339(at), *(_field(field) for field in fields), escape(message)]).rstrip() + "\n"
        encoded = line.encode("utf-8", "replace")
        with self._lock:
            try:
                self._append(encoded, at)
            except OSError:
                pass
        if self._echo:
            _echo(encoded)

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


def _opened(path: Path) -> Generation:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        message = f"cannot write the log {path}: {error.strerror}"
        raise MachineLacks(message, hint="choose another with --log FILE") from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise MachineLacks(f"the log {path} is no regular file", hint="choose another with --log FILE")
    return Generation(1, descriptor, found.st_size, found.st_mtime)


def _field(text: str) -> str:
    """One field of a line: a blank in it would look like the end."""
    return escape(text).replace(" ", "\\x20")


def _echo(line: bytes) -> None:
    """A terminal that was stopped, a full pipe or a reader that left costs the line."""
    try:
        descriptor = sys.stderr.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        if any(events & select.POLLOUT for _, events in poll.poll(0)):
            os.write(descriptor, line[:_ECHOED])
    except (OSError, ValueError, AttributeError):
        pass


class LogHandler(logging.Handler):
    """Puts warnings and errors of Python's ``logging`` into the log; a traceback only with ``debug``."""

    def __init__(self, log: FileEventLog, *, debug: bool = False) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        self._debug = debug

    def emit(self, record: logging.LogRecord) -> None:
        """One line a record; never raises."""
        try:
            self._log.note(record.name, self._text(record), level=record.levelname.lower())
        except Exception:  # noqa: BLE001 - a record that cannot be formatted must not end what was logging
            self._log.note(record.name, "a message that could not be formatted", level="warning")

    def _text(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if not record.exc_info or record.exc_info[1] is None:
            return message
        error = record.exc_info[1]
        if self._debug:
            return f"{message}\n{''.join(traceback.format_exception(error))}"
        return f"{message}: {type(error).__name__}: {error}"
