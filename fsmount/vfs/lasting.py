"""What fsync promised is there after a power failure, also while something that nobody synced is taking its place.

Invariant: bytes that are on the disk are replaced in the journal only by bytes that are on the disk: the disk may take
the journal's change at any time, and then nothing names the old ones any more.
"""

from __future__ import annotations

import trio

from fsmount.model import Body, RemotePath
from fsmount.ports import Spool
from fsmount.vfs.overlay import Ledger
from fsmount.vfs.shown import Shown, Unsent


async def sync_what_replaces(ledger: Ledger, spool: Spool, path: RemotePath, shown: Shown | None, body: Body) -> None:
    """Before ``body`` takes the place of what is ``shown`` at ``path``: syncs it if the bytes of that one were synced.

    A checkpoint then; raises OSError.
    """
    if shown is None or not isinstance(shown.content, Unsent):
        return
    record, node = ledger.shown(path), ledger.node(path)
    before = record.op.body if record is not None else node.body if node is not None else None
    if before is None or before == body or (before.draft is not None and before.draft == body.draft):
        return
    if spool.lasting(before) and not spool.lasting(body):
        await trio.to_thread.run_sync(spool.sync, body)
