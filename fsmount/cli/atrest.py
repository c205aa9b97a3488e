"""The queue of a mount without a daemon: its state directory, under the lock, offline and without credentials.

Invariant: the lock is held from the first look to the last change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fsmount.cli.queue import (
    DEAD,
    DISCARDED,
    FORCE,
    HELD,
    PENDING,
    RETRY,
    Glance,
    Move,
    Version,
    read_status,
    unknown,
)
from fsmount.errors import FsmountError, VerbRefused
from fsmount.model import OpId, Record, State
from fsmount.render import json as as_json
from fsmount.render import text as as_text

if TYPE_CHECKING:
    from fsmount.app.offline import Offline

_STATES = {
    PENDING: (State.PENDING, State.SENDING),
    HELD: (State.HELD,),
    DEAD: (State.DEAD,),
    DISCARDED: (State.DISCARDED,),
}
_DIRECTORY = {state: directory for directory, states in _STATES.items() for state in states}


class AtRestQueue:
    """See ``Queue``."""

    served = False

    def __init__(self, offline: Offline) -> None:
        self._offline = offline

    @classmethod
    @contextmanager
    def under_lock(cls, state_dir: Path) -> Iterator[AtRestQueue]:
        """The queue while the lock is held; raises StateError where another program has it."""
        from fsmount.app.offline import offline

        with offline(state_dir) as journal:
            yield cls(journal)

    def status_json(self) -> bytes:
        """The same bytes as ``.relay/status.json`` would have."""
        return as_json.status(self._offline.snapshot())

    def status_text(self) -> str:
        """The same text as ``.relay/status`` would have."""
        return as_text.status(self._offline.snapshot())

    def glance(self) -> Glance:
        """What the journal holds."""
        pending, held, dead = (self._ids(directory) for directory in (PENDING, HELD, DEAD))
        return Glance(pending=pending, held=held, dead=dead, status=read_status(self.status_json()))

    def ops(self, directories: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Oldest first in each directory."""
        for directory in directories:
            for op_id in self._ids(directory):
                if (found := self.show(op_id)) is not None:
                    yield directory, found[1]

    def show(self, op_id: str) -> tuple[str, bytes] | None:
        """The op's record, as ``.relay`` would show it."""
        record = self._record(op_id)
        if record is None:
            return None
        directory = DEAD if record.malformed is not None else _DIRECTORY[record.state]
        return directory, as_json.op(record, self._offline.root)

    def show_each(self, op_ids: Sequence[str]) -> Iterator[tuple[str, bytes] | None]:
        """The same of several."""
        return map(self.show, op_ids)

    def move(self, moves: Sequence[Move]) -> Iterator[FsmountError | None]:
        """Changes the journal."""
        verbs = {RETRY: self._offline.retry, FORCE: self._offline.force, DISCARDED: self._offline.discard}
        for move in moves:
            if self._record(move.op_id) is None:
                yield unknown(move.op_id)
                continue
            try:
                verbs[move.verb](OpId(move.op_id))
            except VerbRefused as error:
                yield error
            else:
                yield None

    def version(self, op_id: str, side: str) -> Version | None:
        """From the spool: one's own bytes, what was fetched of theirs, and the base where its bytes are still there."""
        record = self._record(op_id)
        found = None if record is None else self._offline.version(record, side)
        return None if found is None else Version.of(*found)

    def _ids(self, directory: str) -> list[str]:
        return sorted(op_id for state in _STATES[directory] for op_id in self._offline.op_ids(state))

    def _record(self, op_id: str) -> Record | None:
        return self._offline.record(OpId(op_id)) if op_id.isascii() else None
