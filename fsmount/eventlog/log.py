"""The log file, and what of Python's own logging goes into it.

Invariant: whatever a name or a message holds, a note is one line with its fields in their places.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

from fsmount.eventlog.events import EVENTS, Events
from fsmount.eventlog.stream import FileStream, Generation
from fsmount.model import ROOT, OpId, RemotePath
from fsmount.ports import Clock, Details
from fsmount.render.escape import escape, rfc3339

LIMIT = 2 << 20
"""Bytes after which a new file takes the name; it begins with the newest half of that."""
_ECHOED = select.PIPE_BUF
"""The longest echo: so much a pipe that polls as writable takes without blocking (pipe(7))."""


class FileEventLog:
    """Implements ports.ReadableLog on two files of this disk; notes may come from any thread.

    ``events`` is the file for programs, by default beside the log; ``root`` is what the mount shows of the remote.
    ``echo`` also writes each line of the log to standard error, unless nobody takes it there.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        events: Path | None = None,
        root: RemotePath = ROOT,
        debug: bool = False,
        echo: bool = False,
        limit: int = LIMIT,
    ) -> None:
        """Raises MachineLacks if a file cannot be written or is no regular file."""
        self._clock = clock
        self._debug = debug
        self._echo = echo
        self._lock = threading.Lock()
        self._lines = FileStream(path, limit, option="--log FILE")
        try:
            beside = FileStream(events or path.with_name("events"), limit, option="--state-dir DIR")
            self._events = Events(beside, root)
        except BaseException:
            self._lines.close()
            raise

    @property
    def events(self) -> FileStream:
        """The stream for programs."""
        return self._events.stream

    @property
    def current(self) -> Generation:
        return self._lines.current

    def open(self) -> Generation:
        return self._lines.open()

    def watch(self, grown: Callable[[], None]) -> None:
        self._lines.watch(grown)

    def note(
        self,
        event: str,
        message: str = "",
        *,
        op: OpId | None = None,
        path: RemotePath | None = None,
        level: str = "info",
        details: Details | None = None,
    ) -> None:
        """Appends ``AT LEVEL EVENT OP PATH message``; ``debug`` lines only where debugging was asked for.

        One of ``EVENTS`` stands in ``events`` too, unless it names nothing: neither op nor path nor any detail.
        """
        at = self._clock.now()
        if event in EVENTS and (op or path or details):
            with self._lock:
                self._events.append(event, at, op, path, details)
        if level == "debug" and not self._debug:
            return
        fields = (level, event, op or "-", path or "-")
        line = " ".join([rfc3339(at), *(_field(field) for field in fields), escape(message)]).rstrip() + "\n"
        encoded = line.encode("utf-8", "replace")
        self._lines.append(encoded, at)
        if self._echo:
            _echo(encoded)

    def close(self) -> None:
        """Ends writing; readers keep what they hold."""
        self._lines.close()
        self._events.stream.close()


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
