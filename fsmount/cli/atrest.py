"""The queue of a mount without a daemon: its state directory, under the lock, offline and without credentials.

Invariant: the lock is held from the first look to the last change.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fsmount.cli.queue import DEAD, DISCARDED, PENDING, RETRY, unknown
from fsmount.model import OpId, State
from fsmount.render import json as as_json
from fsmount.render import text as as_text

if TYPE_CHECKING:
    from fsmount.app.offline import Offline

_STATES = {PENDING: (State.PENDING, State.SENDING), DEAD: (State.DEAD,), DISCARDED: (State.DISCARDED,)}
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
        return _text(as_text.status(self._offline.snapshot()))

    def ids(self, directory: str) -> list[str]:
        """The ops in one state; ids sort by age."""
        return sorted(record.op.op_id for state in _STATES[directory] for record in self._offline.records(state))

    def show(self, op_id: str) -> tuple[str, bytes] | None:
        """The op's record, as ``.relay`` would show it."""
        record = self._offline.record(OpId(op_id))
        if record is None:
            return None
        return _DIRECTORY[record.state], as_json.op(record, self._offline.snapshot().remote_path)

    def move(self, op_id: str, source: str, verb: str) -> None:  # noqa: ARG002 - a daemon's tree needs to know where it is
        """Changes the journal; raises NotFound or VerbRefused."""
        if self._offline.record(OpId(op_id)) is None:
            raise unknown(op_id)
        (self._offline.retry if verb == RETRY else self._offline.discard)(OpId(op_id))


def _text(rendered: bytes | str) -> str:
    return rendered if isinstance(rendered, str) else rendered.decode()
