"""What one small read can tell before a long body is sent.

Invariant: a look never decides that something may be replaced: the precondition of the put itself does.
"""

from __future__ import annotations

from fsmount.errors import Refusal, RemoteError
from fsmount.ports import Remote, Upload
from fsmount.retry import GONE

LONG = 8 * 1024 * 1024
"""Bytes that take so long to send that a request before them is worth its time."""


async def overtaken(upload: Upload, remote: Remote) -> RemoteError | None:
    """Why the put of a long body is sure to fail; None where it may not, or nothing can be found out. A checkpoint."""
    if upload.source.size < LONG or not remote.capabilities.ranges:
        return None
    try:
        there = (await remote.read(upload.path, None, 0, 1)).revision
    except Refusal as refusal:
        return refusal if refusal.status in GONE and not upload.base.absent else None
    except RemoteError:
        return None
    if there == upload.base.revision:
        return None
    return RemoteError(f"not sent: revision {there} is there, and the change was made from {_named(upload)}")


def _named(upload: Upload) -> str:
    return "nothing" if upload.base.revision is None else f"revision {upload.base.revision}"
