"""A state directory without its daemon: inspection and decisions that need no mount, network or credential.

Invariant: all of it happens under the lock that a daemon would hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fsmount import __version__, registry
from fsmount.app.recovery import recover, remove_released
from fsmount.clock import SystemClock
from fsmount.config import parse_remote
from fsmount.errors import NotFound
from fsmount.eventlog import FileEventLog
from fsmount.journal import SqliteJournal, open_journal
from fsmount.model import ROOT, MountIdentity, OpId, Record, SpoolUse, State, Timing
from fsmount.spool import FileSpool
from fsmount.statedir import StateDirectory
from fsmount.status import AtRest, Snapshot, snapshot


class Offline:
    """A state directory without its daemon: what the command line reads and changes, under the same lock."""

    def __init__(self, state: StateDirectory, journal: SqliteJournal, spool: FileSpool) -> None:
        self._state = state
        self._journal = journal
        self._spool = spool

    def snapshot(self) -> Snapshot:
        """The status; its health is ``stopped``."""
        identity = self._state.identity()
        url = None if identity is None else parse_remote(identity.remote)
        found = registry.using(self._state.path)
        return snapshot(
            AtRest(
                MountIdentity(
                    name=self._state.path.name if found is None else found.name,
                    remote="" if url is None else str(url),
                    workspace="" if url is None else url.workspace,
                    root=ROOT if url is None else url.root,
                    mountpoint=None if found is None else found.mountpoint,
                    version=__version__,
                ),
                self._journal,
                SystemClock(),
                SpoolUse(bytes=self._spool.used, limit=self._spool.limit),
            )
        )

    def records(self, state: State | None = None) -> list[Record]:
        """See the journal."""
        return self._journal.records(state)

    def record(self, op_id: OpId) -> Record | None:
        """See the journal."""
        return self._journal.record(op_id)

    def retry(self, op_id: OpId) -> None:
        """Raises VerbRefused; the next mount sends it."""
        self._journal.retry(op_id)

    def discard(self, op_id: OpId) -> None:
        """Raises VerbRefused."""
        self._journal.discard(op_id)


@contextmanager
def offline(state_dir: Path) -> Iterator[Offline]:
    """The state directory, locked; raises NotFound where there is no journal, StateError where a daemon has it."""
    state = StateDirectory(state_dir)
    if not state.journal.exists():
        raise NotFound(
            f"{state_dir} holds no journal", hint="name a mount, or the directory that 'fsmount mount' printed"
        )
    state.lock()
    try:
        clock = SystemClock()
        timing = Timing(settle=0, max_settle=0, delete_settle=0, open_settle=0)
        journal = open_journal(state.journal, clock, timing)
        log = FileEventLog(state.log, clock)
        try:
            spool = FileSpool(state.spool, None)
            recover(journal, spool, log)
            yield Offline(state, journal, spool)
            remove_released(journal, spool)
        finally:
            log.close()
            journal.close()
    finally:
        state.unlock()
