"""Error to errno, one table. See *Errors a program sees* in the README."""

from __future__ import annotations

import errno

from fsmount.errors import FileError, InvalidAnswer, Refusal, RemoteError, TimedOut, Unreachable

BY_STATUS = {
    401: errno.EACCES,
    403: errno.EACCES,
    404: errno.ENOENT,
    408: errno.ETIMEDOUT,
    410: errno.ENOENT,
    413: errno.EFBIG,
    507: errno.ENOSPC,
}


def errno_of(error: Exception) -> int | None:
    """The errno that the program gets; None for an error that nobody foresaw."""
    if isinstance(error, FileError):
        return error.errno
    if isinstance(error, Unreachable):
        return errno.ETIMEDOUT if error.timed_out else errno.EHOSTUNREACH
    if isinstance(error, Refusal):
        return BY_STATUS.get(error.status, errno.EHOSTUNREACH if error.status in (502, 503, 504) else errno.EIO)
    if isinstance(error, InvalidAnswer | RemoteError):
        return errno.EIO
    if isinstance(error, TimedOut):
        return errno.ETIMEDOUT
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else errno.EIO
    return None
