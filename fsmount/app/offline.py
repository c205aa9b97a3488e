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
from fsmount.model import ROOT, Body, MountIdentity, OpId, Record, RemotePath, Revision, SpoolUse, State, Timing
from fsmount.ports import Source
from fsmount.spool import FileSpool
from fsmount.statedir import StateDirectory
from fsmount.status import AtRest, Snapshot, snapshot

_PIECE = 1 << 20
_ANY = 1 << 62
"""The size of a body whose length nobody recorded: all that is there."""


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
                self._spool.apart(),
            )
        )

    @property
    def root(self) -> RemotePath:
        """What the mount shows of its remote."""
        return _root(self._state)

    def op_ids(self, state: State) -> list[OpId]:
        """See the journal."""
        return self._journal.op_ids(state)

    def record(self, op_id: OpId) -> Record | None:
        """See the journal."""
        return self._journal.record(op_id)

    def retry(self, op_id: OpId) -> None:
        """Raises VerbRefused; the next mount sends it."""
        self._journal.retry(op_id)

    def force(self, op_id: OpId) -> None:
        """Raises VerbRefused; the next mount sends it."""
        self._journal.force(op_id)

    def discard(self, op_id: OpId) -> None:
        """Raises VerbRefused."""
        self._journal.discard(op_id)

    def version(self, record: Record, side: str) -> tuple[Iterator[bytes], Revision | None] | None:
        """The bytes of ``mine``, ``theirs`` or ``base`` and their revision, as far as the spool has them.

        Raises OSError where they cannot be read.
        """
        body, revision = _versions(record)[side]
        try:
            source = None if body is None else self._spool.open(body)
        except FileNotFoundError:
            return None
        return None if source is None else (_pieces(source), revision)


def _versions(record: Record) -> dict[str, tuple[Body | None, Revision | None]]:
    """The base has no body of its own: one of the same digest may still be there."""
    theirs, base = record.theirs, record.op.target_base
    like_base = None if base.digest is None else Body(size=_ANY, digest=base.digest)
    return {
        "mine": (record.op.body, None),
        "theirs": (None, None) if theirs is None else (theirs.body, theirs.base.revision),
        "base": (like_base, base.revision),
    }


def _pieces(source: Source) -> Iterator[bytes]:
    try:
        offset = 0
        while piece := source.read(offset, _PIECE):
            yield piece
            offset += len(piece)
    finally:
        source.close()


def _root(state: StateDirectory) -> RemotePath:
    """What the mount shows of its remote."""
    identity = state.identity()
    return ROOT if identity is None else parse_remote(identity.remote).root


@contextmanager
def offline(state_dir: Path) -> Iterator[Offline]:
    """The state directory, locked; raises NotFound where there is no journal, StateError where a daemon has it."""
    state = StateDirectory(state_dir)
    known = state.identity() is not None
    if not known and not state.journal.exists():
        raise NotFound(
            f"{state_dir} holds no journal", hint="name a mount, or the directory that 'fsmount mount' printed"
        )
    state.lock()
    try:
        clock = SystemClock()
        timing = Timing(settle=0, max_settle=0, delete_settle=0, open_settle=0)
        journal = open_journal(state.journal, clock, timing, known=known)
        log = FileEventLog(state.log, clock, events=state.events, root=_root(state))
        try:
            spool = FileSpool(state.spool, None)
            recover(journal, spool, log)
            journal.tell(log)
            yield Offline(state, journal, spool)
            if leaving := journal.leaving():
                journal.durable()
                remove_released(leaving, journal, spool)
        finally:
            log.close()
            journal.close()
    finally:
        state.unlock()
