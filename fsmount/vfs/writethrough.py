"""Write-through: a close that returns 0 says that the remote has it.

Invariant: what was journalled stays journalled, whatever the close returns.
"""

from __future__ import annotations

import errno

import trio

from fsmount.connection import Connection
from fsmount.errors import FileError
from fsmount.model import ConnectionState, OpId, Reason, Record, RemotePath, State
from fsmount.vfs.deliveries import Deliveries
from fsmount.vfs.overlay import Ledger

BY_REASON = {
    Reason.FORBIDDEN: errno.EACCES,
    Reason.TOO_LARGE: errno.EFBIG,
    Reason.CONFLICT: errno.ESTALE,
    Reason.REMOTE_DELETED: errno.ESTALE,
}
"""What the program gets for a dead letter; EIO for any other."""


class WriteThrough:
    """Waits for what was just journalled."""

    def __init__(self, ledger: Ledger, deliveries: Deliveries, connection: Connection) -> None:
        self._ledger = ledger
        self._deliveries = deliveries
        self._connection = connection
        self._offline = trio.Event()
        connection.watch(self._look)

    def _look(self) -> None:
        if self._connection.state is ConnectionState.OFFLINE:
            self._offline.set()
        elif self._offline.is_set():
            self._offline = trio.Event()

    async def delivered(self, path: RemotePath) -> None:
        """Returns when the op that decides what stands at ``path`` is acknowledged, at once where there is none.

        Has no deadline of its own. Raises FileError: EHOSTUNREACH while the mount is offline, by ``BY_REASON`` for a
        dead letter, EIO for what only a person can move on.
        """
        record = self._ledger.shown(path)
        if record is None:
            return
        self._ledger.hurry(record.op.op_id)
        if self._connection.state is not ConnectionState.OFFLINE:
            for left in await self._settled(record.op.op_id):
                raise _failure(path, left)
        if self._connection.state is ConnectionState.OFFLINE and self._ledger.record(record.op.op_id) is not None:
            raise FileError(errno.EHOSTUNREACH, f"{path}: the remote cannot be reached; it will be sent later")

    async def _settled(self, op_id: OpId) -> list[Record]:
        """What is left of the op; nothing where the mount went offline meanwhile."""
        left: list[Record] = []

        async def follow() -> None:
            left.extend(await self._deliveries.settled([op_id]))
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await self._offline.wait()
            nursery.cancel_scope.cancel()
        return left


def _failure(path: RemotePath, record: Record) -> FileError:
    if record.state is State.DEAD and record.reason is not None:
        return FileError(BY_REASON.get(record.reason, errno.EIO), f"{path}: {record.op.op_id}: {record.message}")
    why = f"waits behind {record.blocked_by}" if record.blocked_by is not None else f"is {record.state}"
    return FileError(errno.EIO, f"{path}: {record.op.op_id} {why}: see .relay")
