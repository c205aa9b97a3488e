"""Every error that fsmount raises on purpose. Each class says who caused it; ``exit_code`` is the command line's.

FsmountError                      something a person is told in one line
├── UsageError            2       the caller: an option, URL or mount point that cannot be right
├── NotFound              3       the caller: no such mount or op
├── RemoteError           4       the remote or the way to it
│   ├── Unreachable               no HTTP answer came: DNS, refused, reset, timed out
│   ├── Refusal                   an answer that is not 2xx, or one entry of a batch that failed
│   └── InvalidAnswer             2xx, but not an answer of the protocol (a captive portal)
├── StateError            5       already mounted, locked, state of another remote or of a newer version
│   └── JournalDamaged            the journal cannot be read, or is gone
├── TimedOut              6       a deadline passed
├── MachineLacks          7       this machine: /dev/fuse, fusermount3, a writable directory
├── FileError             1       a program's system call: carries the errno it gets
└── VerbRefused           1       a person's retry, force or discard that cannot be: carries the errno
"""

from __future__ import annotations

import errno
import traceback
from pathlib import PurePath


class FsmountError(Exception):
    """Something a person is told: what happened, to which file, and in ``hint`` what to do next."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(FsmountError):
    """A value that cannot be right: an option, a URL, a mount point."""

    exit_code = 2


class NotFound(FsmountError):
    """No such mount, or no such op."""

    exit_code = 3


class RemoteError(FsmountError):
    """The remote, or the way to it."""

    exit_code = 4


class Unreachable(RemoteError):
    """No HTTP answer came. ``timed_out`` tells a remote that is silent from one that is not there."""

    def __init__(
        self, message: str, *, timed_out: bool = False, correlation_id: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.timed_out = timed_out
        self.correlation_id = correlation_id


class Refusal(RemoteError):
    """An answer that is not 2xx, or one failed entry of a batch.

    ``body`` is the answer's text, cut at 1 KiB; ``retry_after`` seconds; ``current_revision`` what a conflict names.
    """

    def __init__(
        self,
        status: int,
        *,
        code: str = "",
        message: str = "",
        body: str = "",
        retry_after: float | None = None,
        current_revision: str | None = None,
        correlation_id: str | None = None,
    ) -> None:
        super().__init__(
            " ".join(part for part in (str(status), code, f": {message}" if message else "") if part).replace(
                " : ", ": "
            )
        )
        self.status = status
        self.code = code
        self.detail = message
        self.body = body
        self.retry_after = retry_after
        self.current_revision = current_revision
        self.correlation_id = correlation_id


class InvalidAnswer(RemoteError):
    """A 2xx that is not an answer of the protocol: treated as 502."""

    def __init__(self, message: str, *, status: int = 200, body: str = "", correlation_id: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = body
        self.correlation_id = correlation_id


class StateError(FsmountError):
    """The state directory belongs to somebody or something else."""

    exit_code = 5


class JournalDamaged(StateError):
    """The journal cannot be read or is not there any more; nothing of it was changed."""

    WAY_OUT = "keep the file: it may hold unsent writes; move the state directory aside to start without it"

    def __init__(self, message: str) -> None:
        super().__init__(message, hint=self.WAY_OUT)


class TimedOut(FsmountError):
    """A deadline passed."""

    exit_code = 6


class MachineLacks(FsmountError):
    """This machine lacks something; the hint says what mends it."""

    exit_code = 7


class FileError(FsmountError):
    """What a program's system call gets: ``errno``."""

    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(message or errno.errorcode.get(code, str(code)))
        self.errno = code


class VerbRefused(FileError):
    """A person's retry, force or discard that cannot be carried out as things stand."""


def kind_and_place(error: BaseException) -> str:
    """What to log of an error that nobody expected: its class and where it arose; of a group, of each in it.

    Its text is left out, for a library's may quote what it was given, a credential too.
    """
    if isinstance(error, BaseExceptionGroup):
        return ", ".join(kind_and_place(each) for each in error.exceptions)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"
