"""Waiting until ops have settled: what a write-through flush, an fsync of ``.relay`` and the command line wait for.

Invariant: nobody waits for an op that only a person can move on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import trio

from fsmount.model import OpId, Record, State
from fsmount.ports import Journal


class Deliveries:
    """Follows ops to their end; one for a mount, since a journal's watcher stays for good."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._stirred = trio.Event()
        journal.watch(self._stir)

    async def settled(self, ops: Iterable[OpId]) -> list[Record]:
        """Waits until none of ``ops`` can move by itself any more; those that are then not delivered, in their order.

        Such a one is a dead letter, held, or pending behind another that is (``blocked_by``). None are told of those
        that were acknowledged, superseded, cancelled or given up. Has no timeout of its own: a mount that is offline or
        paused keeps it waiting. Always a checkpoint.
        """
        asked = list(ops)
        await trio.lowlevel.checkpoint()
        while True:
            waiting = deque(asked)
            while waiting:
                stirred = self._stirred
                if _moves(self._journal.record(waiting[0])):
                    await stirred.wait()
                else:
                    waiting.popleft()
            # What was looked at first may have been tried again while the others were waited for.
            found = [record for op_id in asked if (record := self._journal.record(op_id)) is not None]
            if not any(map(_moves, found)):
                return [record for record in found if record.state is not State.DISCARDED]

    def _stir(self) -> None:
        stirred, self._stirred = self._stirred, trio.Event()
        stirred.set()


def _moves(record: Record | None) -> bool:
    """Whether the uploader will do something about the op without being told to."""
    if record is None:
        return False
    return record.state is State.SENDING or (record.state is State.PENDING and record.blocked_by is None)
