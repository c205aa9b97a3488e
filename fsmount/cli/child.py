"""Work that may hang for ever, done in a child process under a deadline.

Invariant: whatever the action meets (a wedged mount leaves its process unkillable), the caller goes on after
``deadline``.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from typing import NoReturn

from fsmount.errors import TimedOut

DEADLINE = 2.0
"""Seconds that a mount has to answer a command."""
_DONE, _FAILED, _BROKE = b"=", b"!", b"?"


class ChildFailed(Exception):
    """The action raised something other than OSError; the text is its repr."""


def in_child(action: Callable[[], bytes], *, what: str, hint: str, deadline: float = DEADLINE) -> bytes:
    """What ``action`` returns, run in a forked child within ``deadline`` seconds.

    Raises the OSError that the action raised, or TimedOut with ``what`` (who is silent) and ``hint``. Fork only while
    this process has one thread.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _answer(action, writer)
    os.close(writer)
    try:
        return _result(_read_all(reader, time.monotonic() + deadline), what, hint)
    finally:
        os.close(reader)
        _end(pid)


def _answer(action: Callable[[], bytes], writer: int) -> NoReturn:
    """The child's part: one kind byte, then the result or the error; never returns into the parent's code."""
    try:
        reply = _DONE + action()
    except OSError as error:
        reply = _FAILED + f"{error.errno or 0} {error.strerror or error}".encode(errors="surrogateescape")
    except BaseException as error:  # noqa: BLE001 - the child must end here, whatever happened
        reply = _BROKE + repr(error).encode(errors="replace")
    try:
        view = memoryview(reply)
        while view:
            view = view[os.write(writer, view) :]
    finally:
        os._exit(0)


def _read_all(reader: int, deadline: float) -> bytes | None:
    """Everything up to the end of the pipe, or None when the deadline came first."""
    chunks: list[bytes] = []
    while (left := deadline - time.monotonic()) > 0 and select.select([reader], [], [], left)[0]:
        chunk = os.read(reader, 1 << 16)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
    return None


def _result(reply: bytes | None, what: str, hint: str) -> bytes:
    if reply is None:
        raise TimedOut(f"{what} does not answer", hint=hint)
    kind, rest = reply[:1], reply[1:]
    if kind == _DONE:
        return rest
    if kind == _FAILED:
        code, _, text = rest.decode(errors="surrogateescape").partition(" ")
        raise OSError(int(code), text)
    raise ChildFailed(rest.decode(errors="replace") or "the child was killed")


def _end(pid: int) -> None:
    """Ends the child without waiting for one that cannot die; a zombie goes when this command ends."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, os.WNOHANG)
