"""Work that may hang for ever, done in a child process under a deadline.

Invariant: whatever the action meets (a wedged mount leaves its process unkillable), the caller goes on after
``deadline``.
"""

from __future__ import annotations

import os
import select
import signal
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn, Self

from fsmount.errors import TimedOut

DEADLINE = 2.0
"""Seconds that a mount has to answer a command."""
_PIECE, _FAILED, _BROKE, _END = b"=", b"!", b"?", b"."
_HEAD = struct.Struct("<cI")
_unreaped: set[int] = set()
"""Children that were told to end and had not yet."""


class ChildFailed(Exception):
    """The action raised something other than OSError; the text is its repr."""


def in_child(action: Callable[[], bytes], *, what: str, hint: str, deadline: float = DEADLINE) -> bytes:
    """What ``action`` returns, run in a forked child within ``deadline`` seconds.

    Raises the OSError that the action raised, or TimedOut with ``what`` (who is silent) and ``hint``. Fork only while
    this process has one thread.
    """
    return b"".join(pieces(lambda: [action()], what=what, hint=hint, deadline=deadline))


def pieces(
    action: Callable[[], Iterable[bytes]], *, what: str, hint: str, deadline: float = DEADLINE
) -> Iterator[bytes]:
    """What ``action`` yields, piece by piece as it comes; ``deadline`` seconds for each. Raises as ``in_child``."""
    with Child(action, what=what, hint=hint) as child:
        while (piece := child.next(time.monotonic() + deadline)) is not None:
            yield piece


class Child:
    """One forked child; several may run side by side. Fork only while this process has one thread."""

    def __init__(self, action: Callable[[], Iterable[bytes]], *, what: str, hint: str) -> None:
        self._what, self._hint = what, hint
        self._reader, writer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._reader)
            _answer(action, writer)
        os.close(writer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def next(self, until: float) -> bytes | None:
        """The next piece, None at the end; raises TimedOut once monotonic ``until`` has passed with nothing there."""
        head = self._read(_HEAD.size, until)
        if len(head) < _HEAD.size:
            raise ChildFailed("the child was killed")
        kind, size = _HEAD.unpack(head)
        rest = self._read(size, until)
        if kind == _PIECE and len(rest) == size:
            return rest
        if kind == _END:
            return None
        if kind == _FAILED:
            code, _, text = rest.decode(errors="surrogateescape").partition(" ")
            raise OSError(int(code), text)
        raise ChildFailed(rest.decode(errors="replace") or "the child was killed")

    def end(self) -> None:
        """Ends the child without waiting for one that cannot die; a zombie goes with the next that ends."""
        reader, self._reader = self._reader, -1
        if reader >= 0:
            os.close(reader)
            os.kill(self._pid, signal.SIGKILL)
            _unreaped.add(self._pid)
            _unreaped.difference_update([pid for pid in _unreaped if os.waitpid(pid, os.WNOHANG)[0]])

    def _read(self, size: int, until: float) -> bytes:
        """``size`` bytes, fewer at the end of the pipe; what lies there already is read even when the time is up."""
        chunks: list[bytes] = []
        while size > 0:
            if not select.select([self._reader], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimedOut(f"{self._what} does not answer", hint=self._hint)
            chunk = os.read(self._reader, min(size, 1 << 20))
            if not chunk:
                break
            chunks.append(chunk)
            size -= len(chunk)
        return b"".join(chunks)


def _answer(action: Callable[[], Iterable[bytes]], writer: int) -> NoReturn:
    """The child's part: each piece, then how it ended; never returns into the parent's code."""
    try:
        try:
            for piece in action():
                _say(writer, _PIECE, piece)
            _say(writer, _END, b"")
        except OSError as error:
            _say(writer, _FAILED, f"{error.errno or 0} {error.strerror or error}".encode(errors="surrogateescape"))
        except BaseException as error:  # noqa: BLE001 - the child must end here, whatever happened
            _say(writer, _BROKE, repr(error).encode(errors="replace"))
    finally:
        os._exit(0)


def _say(writer: int, kind: bytes, content: bytes) -> None:
    view = memoryview(_HEAD.pack(kind, len(content)) + content)
    while view:
        view = view[os.write(writer, view) :]
