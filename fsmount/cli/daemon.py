"""Going into the background, and telling the caller when the mount answers or why it never will.

Invariant: the fork comes before any loop or FUSE session exists; the daemon keeps nothing of its caller: no
descriptor, no terminal, no working directory.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn, Protocol

import msgspec
from msgspec import Struct

from fsmount.errors import FsmountError, TimedOut
from fsmount.render.escape import escape


class Ready(Protocol):
    """What a server calls when everything is ready, with what a person has to know of it all the same."""

    def __call__(self, warning: str = "") -> None: ...


Serve = Callable[[Ready], int]
"""Runs until the end; calls its argument once when everything is ready; returns the exit code."""


class Report(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of what the daemon tells its caller."""

    pid: int = 0
    ready: bool = False
    warning: str = ""
    message: str = ""
    hint: str | None = None
    code: int = 0
    trace: str = ""


class StartFailed(FsmountError):
    """The daemon ended before it was ready; ``exit_code`` is the one of its own error."""

    def __init__(self, report: Report) -> None:
        super().__init__(report.message, hint=report.hint)
        self.exit_code = report.code
        self.trace = report.trace


def launch(serve: Serve, *, patience: float, log: str) -> int:
    """Starts ``serve`` in the background and returns its pid once it is ready.

    Raises StartFailed with what went wrong before that, or TimedOut after ``patience`` seconds; no daemon is left
    then. In the daemon itself it never returns: it ends by SystemExit.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if (middle := os.fork()) == 0:
        _detach(writer)
        _serve(serve, writer)
    os.close(writer)
    os.waitpid(middle, 0)
    with os.fdopen(reader, "rb") as reports:
        return _await_ready(reports.fileno(), time.monotonic() + patience, patience, log)


def _detach(writer: int) -> None:
    """Second fork, own session, no descriptor of the caller but ``writer``."""
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != writer:
            _close(int(name))
    os.set_inheritable(writer, False)
    os.umask(0o077)


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:
        return  # the one that listed the directory


def _serve(serve: Serve, writer: int) -> NoReturn:
    _tell(writer, Report(pid=os.getpid()))
    told = False

    def ready(warning: str = "") -> None:
        nonlocal told
        if not told:
            told = True
            _tell(writer, Report(ready=True, warning=warning))
            os.close(writer)

    try:
        code = serve(ready)
    except FsmountError as error:
        code = error.exit_code
        report = Report(message=error.message, hint=error.hint, code=code, trace=traceback.format_exc())
    except Exception as error:  # noqa: BLE001 - the caller words it
        code = 1
        report = Report(message=f"unexpected: {type(error).__name__}: {error}", code=code, trace=traceback.format_exc())
    else:
        report = Report(message="the mount ended before it was ready", code=code or 1)
    if not told:
        _tell(writer, report)
    sys.exit(code)


def _tell(writer: int, report: Report) -> None:
    try:
        os.write(writer, msgspec.json.encode(report) + b"\n")
    except OSError:
        return  # the caller is gone; the mount goes on


def _await_ready(reader: int, deadline: float, patience: float, log: str) -> int:
    """Follows the daemon's lines until it is ready or has failed; ends it where the caller gives up."""
    pid = 0
    pending = b""
    try:
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([reader], [], [], left)[0]:
                continue
            chunk = os.read(reader, 1 << 16)
            if not chunk:
                raise FsmountError("the mount died before it was ready", hint=f"see {log}")
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                report = msgspec.json.decode(line, type=Report)
                if report.ready:
                    warn(report.warning)
                    return pid
                if report.code:
                    raise StartFailed(report)
                pid = report.pid
        raise TimedOut(f"the mount was not ready within {patience:g} s", hint=f"it was ended; see {log}")
    except (TimedOut, KeyboardInterrupt):
        _end(pid)
        raise


def warn(warning: str) -> None:
    """Says on stderr what a person has to know of a mount that was made all the same; nothing where that is empty."""
    if warning:
        offer(2, f"fsmount: warning: {escape(warning)}\n")


def offer(descriptor: int, text: str) -> None:
    """Writes to a standard stream what a mount says of itself, unless nobody takes it: a reader that stopped or left
    must not hold up or end a mount that runs.
    """
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        if any(events & select.POLLOUT for _, events in poll.poll(0)):
            os.write(descriptor, text.encode(errors="replace")[: select.PIPE_BUF])
    except OSError:
        return


def _end(pid: int) -> None:
    try:
        if pid:
            os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
