"""Copies of bytes that lie on this disk.

Invariant: a copy is whole or raises; the loop never waits for a long one.
"""

from __future__ import annotations

import errno

import trio

from fsmount.errors import FileError
from fsmount.ports import Draft, Source

INLINE = 1024 * 1024
"""Bytes that may be hashed or copied on the loop; more goes to a thread."""
PIECE = 1024 * 1024


async def copy(source: Source, draft: Draft) -> None:
    """Copies all bytes; in a thread where they are many. Raises OSError when the disk is full."""

    def run() -> None:
        offset = 0
        while offset < source.size:
            piece = source.read(offset, PIECE)
            if not piece:
                raise FileError(errno.EIO, "a body of the spool is shorter than recorded")
            draft.write(offset, piece)
            offset += len(piece)

    if source.size <= INLINE:
        run()
    else:
        await trio.to_thread.run_sync(run)
