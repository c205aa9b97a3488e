"""The journal: every op, durable before the system call that made it returns.

Invariant: whatever the program was told is written is in here, or at the remote. One SQLite connection holds the ops,
their attempts, the open drafts and what the remote cannot hold, because a rename changes all of them in one
transaction. Everything is synchronous, so that each call is atomic between two checkpoints of the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from fsmount.journal.attributes import LocalNodes
from fsmount.journal.database import Database
from fsmount.journal.facts import Facts
from fsmount.journal.following import RemoteRenames
from fsmount.journal.intents import Intents
from fsmount.journal.migration import SCHEMA_VERSION
from fsmount.journal.recovery import Recovery
from fsmount.journal.renames import Renames
from fsmount.journal.sending import Sending
from fsmount.journal.telling import Telling
from fsmount.model import Timing
from fsmount.ports import Clock

__all__ = ["SCHEMA_VERSION", "SqliteJournal", "open_journal", "stand_in"]


class SqliteJournal(Renames, Intents, Sending, RemoteRenames, Recovery, LocalNodes, Telling, Facts):
    """Implements ports.Journal and ports.Attributes."""

    def transaction(self) -> AbstractContextManager[None]:
        return self._db.transaction()

    def watch(self, changed: Callable[[], None]) -> None:
        self._db.watch(changed)

    def retime(self, timing: Timing) -> None:
        """What is journalled from now on settles for so long."""
        self._timing = timing

    @property
    def damage(self) -> str:
        return self._db.damage

    @property
    def lost_commits(self) -> bool:
        """Whether the log went on behind what could be read of it: rows may be missing that name bodies."""
        return self._db.lost_commits

    def keep_reserve(self) -> None:
        """Takes the reserve again that a full disk has cost, where there is room; may run in a thread."""
        if self._db.reserve is not None:
            self._db.reserve.fill()

    def lacking(self) -> int:
        """The errno for whoever wants room on the disk while the journal lives on what was its reserve; else 0."""
        return 0 if self._db.reserve is None else self._db.reserve.lacking()

    def durable(self) -> None:
        self._db.flush_to_disk()

    def close(self) -> None:
        self._db.close()


def open_journal(path: Path, clock: Clock, timing: Timing, *, known: bool = False) -> SqliteJournal:
    """Opens the journal at ``path``, making it if it is not there, unless it is ``known`` to have been.

    Raises JournalDamaged, or StateError if it was written by a newer version; the file is then left as it is.
    """
    return SqliteJournal(Database(path, known=known), clock, timing)


def stand_in(damage: str, clock: Clock, timing: Timing) -> SqliteJournal:
    """An empty journal in memory for a mount that can only read, because its own is damaged."""
    database = Database(None)
    database.damage = damage
    return SqliteJournal(database, clock, timing)
