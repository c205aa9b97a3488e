"""Verbs: an op that is moved to ``retry/``, ``force/`` or ``discarded/`` is decided about.

Invariant: the op keeps its name, and the decision is in the journal when the call returns. What cannot be is refused
with an errno on which ``mv`` neither copies nor removes, and the log says why.
"""

from __future__ import annotations

import errno

from fsmount.errors import FileError, VerbRefused
from fsmount.ports import Clock, Commands, EventLog, Journal
from fsmount.vfs.control.lingering import Lingering
from fsmount.vfs.control.names import DISCARDED, FORCE, RETRY, OpName

ECHO = 1.0
"""Seconds that a verb's destination name answers a lookup: GNU mv stats each destination after renaming it."""
_SOURCES = {
    RETRY: ("dead-letter", "held", DISCARDED),
    FORCE: ("dead-letter",),
    DISCARDED: ("pending", "dead-letter", "held"),
}
MOVABLE = frozenset(source for sources in _SOURCES.values() for source in sources)
"""The directories whose ops can be moved at all."""
_VERBS = (
    "an op keeps its name and goes from dead-letter/, held/ or discarded/ to retry/, from dead-letter/ to force/,"
    " or from pending/, dead-letter/ or held/ to discarded/"
)


class Verbs:
    """What a rename within ``.relay`` does."""

    def __init__(self, journal: Journal, commands: Commands, log: EventLog, clock: Clock, lingering: Lingering) -> None:
        self._journal = journal
        self._log = log
        self._clock = clock
        self._lingering = lingering
        self._decide = {RETRY: commands.retry, FORCE: commands.force, DISCARDED: commands.discard}
        self._echoes: dict[OpName, float] = {}

    def carry_out(self, source: OpName, target: str, new_name: str) -> None:
        """``source``, which is there, is moved to ``target``. Raises FileError ENOENT, EBUSY or EPERM."""
        if new_name != source.name or source.directory not in _SOURCES.get(target, ()):
            self._refused(source, f"{source.directory}/ to {target}/{new_name} is no verb; {_VERBS}")
            raise FileError(errno.EPERM)
        self._lingering.leaves(source.op_id)
        try:
            self._decide[target](source.op_id)
        except VerbRefused as error:
            self._refused(source, str(error))
            # mv words EINVAL as "to a subdirectory of itself".
            raise FileError(errno.EBUSY if error.errno == errno.EINVAL else error.errno, str(error)) from error
        now = self._clock.monotonic()
        self._echoes = {name: until for name, until in self._echoes.items() if until > now}
        self._echoes[OpName(target, source.op_id)] = now + ECHO

    def echoes(self, name: OpName) -> bool:
        """Whether ``name`` is where an op was moved to a moment ago."""
        return self._echoes.get(name, 0.0) > self._clock.monotonic()

    def _refused(self, source: OpName, message: str) -> None:
        record = self._journal.record(source.op_id)
        path = None if record is None else record.op.path
        self._log.note("verb.refused", message, op=source.op_id, path=path, level="warning")
