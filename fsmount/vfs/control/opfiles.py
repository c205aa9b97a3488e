"""Ops as names: ``OP.json`` in the directory of its state, its bytes in ``content/``, its versions in ``conflict/``.

Invariant: an op is listed exactly where it stands now; where a listing showed it a moment ago it can still be read.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from fsmount.errors import FileError
from fsmount.model import Attr, Ino, OpId, Record, State
from fsmount.ports import Cache, Clock, Commands, EventLog, Facts, Source, Spool
from fsmount.render import json
from fsmount.vfs.control.attributes import Owner
from fsmount.vfs.control.conflicts import VERSIONS, Conflicts, is_conflict
from fsmount.vfs.control.lingering import Lingering
from fsmount.vfs.control.names import CONFLICT, CONTENT, FORCE, RETRY, STATES, OpName, op_named
from fsmount.vfs.control.opened import OpenBytes, Opened, OpenRendering, size_of
from fsmount.vfs.control.verbs import MOVABLE, Verbs
from fsmount.vfs.renderings import Rendering, Renderings

_KNOWN = 4096
"""So many names are remembered before those of ops that are gone are forgotten."""


class OpFiles:
    """What stands under the names of ops."""

    def __init__(
        self, facts: Facts, spool: Spool, cache: Cache, commands: Commands, log: EventLog, clock: Clock,
        renderings: Renderings, owner: Owner,
    ) -> None:  # fmt: skip
        journal = self._journal = facts.journal
        self._spool = spool
        self._log = log
        self._clock = clock
        self._renderings = renderings
        self._root = facts.identity.root
        self._owner = owner
        self._lingering = Lingering(journal, spool, clock)
        self._conflicts = Conflicts(journal, spool, cache)
        self._verbs = Verbs(journal, commands, log, clock, self._lingering)
        self._known: dict[Ino, OpName] = {}
        self._forget_above = _KNOWN

    @property
    def conflicts(self) -> int:
        """How many directories ``conflict/`` has."""
        return self._conflicts.count()

    def known(self, ino: Ino) -> OpName | None:
        """The name that was given this number."""
        return self._known.get(ino)

    def names(self, directory: str) -> list[OpName]:
        """The ops in a directory as it is now."""
        op_ids = self._conflicts.op_ids() if directory == CONFLICT else self._of_states(directory)
        self._lingering.show(directory, op_ids)
        return [OpName(directory, op_id) for op_id in op_ids]

    def versions(self, conflict: OpName) -> list[OpName]:
        """The files of one conflict that are known; raises ENOENT."""
        record = self._existing(conflict)
        self._lingering.show(CONFLICT, [conflict.op_id])
        versions = () if record is None else self._conflicts.versions(record)
        return [OpName(CONFLICT, conflict.op_id, version) for version in versions]

    def listed(self, named: OpName, at: float) -> Attr:
        """An Attr for a listing that costs nothing."""
        self._remember(named)
        return self._owner.directory(named.ino, at) if named.is_directory else self._owner.file(named.ino, 0, at)

    def lookup(self, directory: str | OpName, name: str, at: float) -> Attr:
        """``name`` in a directory, or in that of a conflict; raises ENOENT."""
        named = op_named(directory, name) if isinstance(directory, str) else self._version(directory, name)
        attr = self.attr(named, at)
        self._remember(named)
        return attr

    def attr(self, named: OpName, at: float) -> Attr:
        """What ``stat`` shows; ``at`` is a directory's time. Raises ENOENT."""
        record = self._existing(named)
        if named.is_directory:
            return self._owner.directory(named.ino, at)
        if named.directory in (CONTENT, CONFLICT):
            return self._owner.file(named.ino, *self._size_and_time(named, record))
        rendering = self._render(named, record)
        mode = 0o600 if named.directory in (RETRY, FORCE) else 0o400
        return self._owner.file(named.ino, len(rendering.content), rendering.at, mode)

    def open(self, named: OpName) -> Opened:
        """Raises ENOENT, or EIO if the bytes are missing."""
        if named.directory in (CONTENT, CONFLICT):
            return self._open_bytes(named, self._existing(named))
        rendering = self._renderings.read(named.ino) or self._render(named, self._existing(named))
        return OpenRendering(rendering, self._owner.file(named.ino, len(rendering.content), rendering.at))

    def move(self, directory: str, name: str, target: str, new_name: str) -> None:
        """A verb; raises ENOENT, EBUSY or EPERM."""
        source = op_named(directory, name)
        if directory in MOVABLE and not self._stands(source, self._journal.record(source.op_id)):
            raise FileError(errno.ENOENT)
        self._verbs.carry_out(source, target, new_name)

    # what stands there

    def _of_states(self, directory: str) -> list[OpId]:
        found: Iterable[list[OpId]] = (
            self._journal.op_ids(state, with_body=directory == CONTENT) for state in STATES[directory]
        )
        return [op_id for ids in found for op_id in ids]

    def _version(self, conflict: OpName, name: str) -> OpName:
        if name not in VERSIONS:
            raise FileError(errno.ENOENT)
        return OpName(CONFLICT, conflict.op_id, name)

    def _stands(self, named: OpName, record: Record | None) -> bool:
        """Whether the op is in that directory now."""
        if record is None:
            return False
        if named.directory == CONFLICT:
            return is_conflict(record)
        return record.state in STATES[named.directory] and (named.directory != CONTENT or record.op.body is not None)

    def _existing(self, named: OpName) -> Record | None:
        """The op if it stands in that directory, or did when it was listed; None for the echo of one that has gone.

        Raises ENOENT otherwise.
        """
        record = self._journal.record(named.op_id)
        if self._stands(named, record):
            return record
        if self._lingering.shows(named.directory, named.op_id):
            left = self._lingering.record(named.op_id)
            if left is not None:
                return left
        if self._verbs.echoes(named):
            return record
        raise FileError(errno.ENOENT)

    def _remember(self, named: OpName) -> None:
        """Keeps what the kernel may ask for by number; ops that are gone are forgotten now and then."""
        if len(self._known) >= self._forget_above:
            alive = {op_id for state in State for op_id in self._journal.op_ids(state)}
            self._known = {
                ino: known
                for ino, known in self._known.items()
                if known.op_id in alive or self._lingering.shows(known.directory, known.op_id)
            }
            self._forget_above = _KNOWN + 2 * len(self._known)
        self._known[named.ino] = named

    # what it shows

    def _render(self, named: OpName, record: Record | None) -> Rendering:
        return self._renderings.of_op(named.ino, lambda: json.op(record, self._root, self._clock) if record else b"")

    def _size_and_time(self, named: OpName, record: Record | None) -> tuple[int, float]:
        if record is None:
            raise FileError(errno.ENOENT)
        body = record.op.body
        content = None if body is None else size_of(self._spool, body)
        size = self._conflicts.size(record, named.version) if named.version else content
        if size is None:
            raise FileError(errno.ENOENT)
        return size, record.op.created_at

    def _open_bytes(self, named: OpName, record: Record | None) -> OpenBytes:
        size, at = self._size_and_time(named, record)
        if record is None:
            raise FileError(errno.ENOENT)
        try:
            source = self._source(named, record)
        except OSError as error:
            message = f"the bytes of this op cannot be read: {error.strerror}"
            self._log.note("spool.missing", message, op=named.op_id, path=record.op.path, level="error")
            raise FileError(errno.EIO, message) from error
        return OpenBytes(source, self._owner.file(named.ino, min(size, source.size), at))

    def _source(self, named: OpName, record: Record) -> Source:
        """Raises OSError, or ENOENT where the version is not known any more."""
        body = self._conflicts.body(record, named.version) if named.version else record.op.body
        return self._conflicts.base(record) if body is None else self._lingering.open(named.op_id, body)
