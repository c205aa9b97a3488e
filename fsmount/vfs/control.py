"""The ``.relay`` tree: what waits and what failed as files, and a person's decisions as renames.

Invariant: nothing here waits for the remote, and nothing but a verb's rename changes anything. When that rename returns
the decision is in the journal. Inode numbers are at or above ``CONTROL`` and belong to a name for good.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Sequence
from typing import overload

from msgspec import Struct

from fsmount.errors import FileError, VerbRefused
from fsmount.model import Attr, Ino, Kind, OpId, Record, State
from fsmount.ports import Clock, Commands, Facts, LogFile, ReadableLog, Source, Spool
from fsmount.render import json, readme, text
from fsmount.status import Snapshot
from fsmount.vfs.inodes import CONTROL
from fsmount.vfs.renderings import Rendering, Renderings

CONTROL_ROOT = Ino(CONTROL + 1)
NOREPLACE = 1
"""RENAME_NOREPLACE of renameat2(2); mv sends it."""
ECHO = 1.0
"""Seconds that a verb's destination name answers a lookup: GNU mv stats each destination after renaming it."""

_DIRECTORIES = {"pending": 2, "dead-letter": 3, "discarded": 4, "content": 5, "retry": 6}
_FILES = {"README": 16, "status": 17, "status.json": 18, "state.json": 19, ".gitignore": 20, "CACHEDIR.TAG": 21}
_LOG = CONTROL + (1 << 32)
_OPS = CONTROL + (1 << 61)
_STATES = {
    "pending": (State.PENDING, State.SENDING),
    "dead-letter": (State.DEAD,),
    "discarded": (State.DISCARDED,),
    "content": tuple(State),
    "retry": (),
}
_RETRIED_FROM = ("dead-letter", "discarded")
_DISCARDED_FROM = ("pending", "dead-letter")
_VERBS = "an op keeps its name and goes from dead-letter/ or discarded/ to retry/, or is given up in discarded/"
_RENDERERS: dict[str, Callable[[Snapshot], bytes]] = {
    "README": lambda _: readme.README.encode(),
    "status": lambda snapshot: text.status(snapshot).encode("utf-8", "replace"),
    "status.json": json.status,
    "state.json": json.state,
    ".gitignore": lambda _: readme.GITIGNORE.encode(),
    "CACHEDIR.TAG": lambda _: readme.CACHEDIR_TAG.encode(),
}


class OpFile(Struct, frozen=True):
    """One op as a name in one of the directories."""

    directory: str
    op_id: OpId

    @property
    def ino(self) -> Ino:
        """Always the same for this op in this directory."""
        digest = hashlib.blake2b(f"{self.directory}/{self.op_id}".encode("utf-8", "replace"), digest_size=8).digest()
        return Ino(_OPS + (int.from_bytes(digest) >> 3))

    @property
    def name(self) -> str:
        """``OP.json``; in ``content/`` the bare id."""
        return self.op_id if self.directory == "content" else f"{self.op_id}.json"


class _Bytes(Struct):
    """The body of an op that somebody reads; what a draft got since it was journalled is not shown."""

    source: Source
    attr: Attr


class Listing(Sequence[tuple[str, Attr]]):
    """The names of a directory at one moment, each with an Attr that is made when it is asked for.

    Ops come with size 0: rendering them all would be dear, and since the kernel may keep no attribute of this tree it
    asks for the true one before it tells anybody.
    """

    def __init__(self, names: Sequence[str | OpFile], attr: Callable[[str | OpFile], tuple[str, Attr]]) -> None:
        self._names = names
        self._attr = attr

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> tuple[str, Attr]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[str, Attr]]: ...
    def __getitem__(self, index: int | slice) -> tuple[str, Attr] | list[tuple[str, Attr]]:
        if isinstance(index, slice):
            return [self._attr(name) for name in self._names[index]]
        return self._attr(self._names[index])


class ControlTree:
    """The tree below ``.relay``. Every method is synchronous but ``rename``; each raises FileError with the errno."""

    def __init__(
        self, facts: Facts, commands: Commands, spool: Spool, log: ReadableLog, clock: Clock, *, uid: int, gid: int
    ) -> None:
        self._facts = facts
        self._journal = facts.journal
        self._commands = commands
        self._spool = spool
        self._log = log
        self._clock = clock
        self._uid, self._gid = uid, gid
        self._renderings = Renderings(facts, clock)
        self._decided_at = clock.now()
        self._ops: dict[Ino, OpFile] = {}
        self._forget_above = 4096
        self._echoes: dict[OpFile, float] = {}
        self._handles: dict[int, Rendering | LogFile | _Bytes] = {}
        self._handle = 0

    # looking

    def root(self) -> Attr:
        """``.relay`` itself."""
        return self._directory(CONTROL_ROOT, 2 + len(_DIRECTORIES))

    def lookup(self, parent: Ino, name: str) -> Attr:
        """``name`` in ``parent``; ENOENT, or ENOTDIR where ``parent`` is a file."""
        if parent == CONTROL_ROOT:
            return self._fixed(name)
        file = self._named(parent, name)
        record = self._existing(file)
        self._remember(file)
        return self._op_attr(file, record)

    def getattr(self, ino: Ino) -> Attr:
        """What ``stat`` shows; ENOENT if it is gone and nobody has it open."""
        if ino == CONTROL_ROOT:
            return self.root()
        name = _BY_INO.get(ino)
        if name is not None:
            return self._fixed(name)
        if _LOG <= ino < _OPS:
            return self._log_attr(self._generation(ino))
        file = self._op(ino)
        return self._read_attr(file) or self._op_attr(file, self._existing(file))

    def listdir(self, ino: Ino) -> Listing:
        """The names of a directory as they are now, without ``.`` and ``..``."""
        if ino == CONTROL_ROOT:
            return Listing([*_FILES, "log", *_DIRECTORIES], self._listed)
        directory = self._directory_named(ino)
        with_body = directory == "content"
        ids = (self._journal.op_ids(state, with_body=with_body) for state in _STATES[directory])
        return Listing([OpFile(directory, op_id) for found in ids for op_id in found], self._listed)

    def changed(self) -> None:
        """A program changed something through this mount (a close, say): the next look sees it."""
        self._renderings.changed()

    # reading

    def open(self, ino: Ino, writable: bool = False) -> int:
        """A handle for ``read`` and ``release``; EPERM for writing, EISDIR, ENOENT, EIO if the body is missing."""
        if ino == CONTROL_ROOT or _BY_INO.get(ino) in _DIRECTORIES:
            raise FileError(errno.EISDIR)
        if writable:
            raise self.refuse("write", ino)
        opened = self._open(ino)
        if isinstance(opened, Rendering):
            opened.readers += 1
        self._handle += 1
        self._handles[self._handle] = opened
        return self._handle

    def read(self, handle: int, offset: int, size: int) -> bytes:
        """At most ``size`` bytes at ``offset``; empty at the end."""
        opened = self._handles[handle]
        if isinstance(opened, Rendering):
            return opened.content[offset : offset + size]
        if isinstance(opened, _Bytes):
            return opened.source.read(offset, max(0, min(size, opened.attr.size - offset)))
        return opened.read(offset, size)

    def release(self, handle: int) -> None:
        """The handle is not used again."""
        opened = self._handles.pop(handle)
        if isinstance(opened, Rendering):
            opened.readers -= 1
        elif isinstance(opened, _Bytes):
            opened.source.close()
        else:
            opened.close()

    def _open(self, ino: Ino) -> Rendering | LogFile | _Bytes:
        name = _BY_INO.get(ino)
        if name is not None:
            return self._renderings.of_snapshot(ino, _RENDERERS[name])
        if ino == _LOG + self._log.current.generation:
            return self._log.open()
        if _LOG <= ino < _OPS:
            raise FileError(errno.ESTALE)  # open(2) looks the name up once more and finds the new file
        file = self._op(ino)
        if file.directory == "content":
            return self._open_body(file)
        return self._renderings.read(ino) or self._render(file, self._existing(file))

    def _open_body(self, file: OpFile) -> _Bytes:
        record = self._existing(file)
        if record is None or record.op.body is None:
            raise FileError(errno.ENOENT)
        try:
            return _Bytes(self._spool.open(record.op.body), self._op_attr(file, record))
        except OSError as error:
            message = f"the bytes of this op cannot be read: {error.strerror}"
            self._log.note("spool.missing", message, op=file.op_id, path=record.op.path, level="error")
            raise FileError(errno.EIO, message) from error

    # deciding

    async def rename(self, parent: Ino, name: str, new_parent: Ino, new_name: str, flags: int = 0) -> None:
        """A verb, if it moves an op to ``retry/`` or ``discarded/`` under its own name; in the journal when it returns.

        ENOENT if the op is gone, EBUSY if it is being sent, damaged or older than another op of its path, EINVAL for
        an exchange, EPERM for any other rename; never EINVAL or EXDEV for those, which mv takes for something else.
        The log says why. Not a checkpoint.
        """
        if flags & ~NOREPLACE:
            raise FileError(errno.EINVAL, "names of .relay cannot be exchanged")
        source = self._movable(parent, name)
        target = _BY_INO.get(new_parent, "")
        if new_name != name or not _is_verb(source.directory, target):
            self._refused(source, f"{source.directory}/ to {target}/{new_name} is no verb; {_VERBS}")
            raise FileError(errno.EPERM)
        record = self._journal.record(source.op_id)
        try:
            (self._commands.retry if target == "retry" else self._commands.discard)(source.op_id)
        except VerbRefused as error:
            self._refused(source, str(error))
            raise FileError(errno.EBUSY if error.errno == errno.EINVAL else error.errno, str(error)) from error
        self._note_decision(source, target, record)

    def refuse(self, operation: str, ino: Ino) -> FileError:
        """The error for a ``create``, ``unlink``, ``write``, …: nothing in this tree changes that way."""
        name = _BY_INO.get(ino) or (self._ops[ino].name if ino in self._ops else ".relay")
        return FileError(errno.EPERM, f"{operation} {name}: .relay changes only by mv of an op to retry/ or discarded/")

    def _movable(self, parent: Ino, name: str) -> OpFile:
        if parent == CONTROL_ROOT or parent not in _BY_INO:
            raise FileError(errno.EPERM, f"{name} cannot be moved")
        file = self._named(parent, name)
        if file.directory in _RETRIED_FROM or file.directory in _DISCARDED_FROM:
            self._existing(file)
        return file

    def _note_decision(self, source: OpFile, target: str, record: Record | None) -> None:
        now = self._clock.monotonic()
        self._echoes = {file: until for file, until in self._echoes.items() if until > now}
        self._echoes[OpFile(target, source.op_id)] = now + ECHO
        self._decided_at = self._clock.now()
        self.changed()
        event, done = ("op.queued", "to be tried again") if target == "retry" else ("op.discarded", "given up")
        path = None if record is None else record.op.path
        self._log.note(event, f"moved from {source.directory}/ {done}", op=source.op_id, path=path)

    def _refused(self, source: OpFile, message: str) -> None:
        record = self._journal.record(source.op_id)
        path = None if record is None else record.op.path
        self._log.note("verb.refused", message, op=source.op_id, path=path, level="warning")

    # names, inodes, attributes

    def _directory_named(self, ino: Ino) -> str:
        name = _BY_INO.get(ino)
        if name in _DIRECTORIES:
            return name
        raise FileError(errno.ENOENT if name is None and ino not in self._ops else errno.ENOTDIR)

    def _named(self, parent: Ino, name: str) -> OpFile:
        directory = self._directory_named(parent)
        file = OpFile(directory, OpId(name.removesuffix(".json")))
        if file.name != name or not name.isascii():
            raise FileError(errno.ENOENT)
        return file

    def _op(self, ino: Ino) -> OpFile:
        file = self._ops.get(ino)
        if file is None:
            raise FileError(errno.ENOENT)
        return file

    def _existing(self, file: OpFile) -> Record | None:
        """The op if it stands in that directory, None for the echo of one that has gone; raises ENOENT otherwise."""
        record = self._journal.record(file.op_id)
        if record is not None and record.state in _STATES[file.directory]:
            if file.directory != "content" or record.op.body is not None:
                return record
        elif self._echoes.get(file, 0.0) > self._clock.monotonic():
            return record
        raise FileError(errno.ENOENT)

    def _render(self, file: OpFile, record: Record | None) -> Rendering:
        root = self._facts.identity.root
        return self._renderings.of_op(file.ino, lambda: json.op(record, root, self._clock) if record else b"")

    def _op_attr(self, file: OpFile, record: Record | None) -> Attr:
        if file.directory == "content" and record is not None and record.op.body is not None:
            return self._file(file.ino, record.op.body.size, record.op.created_at)
        rendering = self._render(file, record)
        return self._file(file.ino, len(rendering.content), rendering.at, 0o600 if file.directory == "retry" else 0o400)

    def _read_attr(self, file: OpFile) -> Attr | None:
        """What somebody has open, though the op itself may be gone from there."""
        if file.directory == "content":
            held = (opened.attr for opened in self._handles.values() if isinstance(opened, _Bytes))
            return next((attr for attr in held if attr.ino == file.ino), None)
        rendering = self._renderings.read(file.ino)
        return None if rendering is None else self._file(file.ino, len(rendering.content), rendering.at)

    def _remember(self, file: OpFile) -> None:
        """Keeps what the kernel may ask for by number; ops that are gone are forgotten now and then."""
        if len(self._ops) >= self._forget_above:
            alive = {op_id for state in State for op_id in self._journal.op_ids(state)}
            self._ops = {ino: known for ino, known in self._ops.items() if known.op_id in alive}
            self._forget_above = 4096 + 2 * len(self._ops)
        self._ops[file.ino] = file

    def _fixed(self, name: str) -> Attr:
        if name == "log":
            return self._log_attr(self._log.current)
        if name in _DIRECTORIES:
            return self._directory(Ino(CONTROL + _DIRECTORIES[name]))
        if name not in _FILES:
            raise FileError(errno.ENOENT)
        ino = Ino(CONTROL + _FILES[name])
        rendering = self._renderings.of_snapshot(ino, _RENDERERS[name])
        return self._file(ino, len(rendering.content), rendering.at)

    def _generation(self, ino: Ino) -> LogFile:
        """The log's current file, or an older one that is still being read; ESTALE makes stat(2) look it up again."""
        wanted = ino - _LOG
        held = (log for log in self._handles.values() if not isinstance(log, Rendering | _Bytes))
        for log in (self._log.current, *held):
            if log.generation == wanted:
                return log
        raise FileError(errno.ESTALE)

    def _log_attr(self, log: LogFile) -> Attr:
        return self._file(Ino(_LOG + log.generation), log.size, log.mtime)

    def _listed(self, name: str | OpFile) -> tuple[str, Attr]:
        if isinstance(name, str):
            return name, self._fixed(name)
        self._remember(name)
        return name.name, self._file(name.ino, 0, self._decided_at)

    def _file(self, ino: Ino, size: int, at: float, mode: int = 0o400) -> Attr:
        return Attr(ino=ino, kind=Kind.FILE, size=size, mode=mode, uid=self._uid, gid=self._gid, mtime=at, ctime=at)

    def _directory(self, ino: Ino, nlink: int = 2) -> Attr:
        at = self._decided_at
        return Attr(
            ino=ino, kind=Kind.DIRECTORY, size=0, mode=0o700, uid=self._uid, gid=self._gid, mtime=at, ctime=at,
            nlink=nlink,
        )  # fmt: skip


_BY_INO = {Ino(CONTROL + number): name for name, number in (_DIRECTORIES | _FILES).items()}


def _is_verb(source: str, target: str) -> bool:
    return (target == "retry" and source in _RETRIED_FROM) or (target == "discarded" and source in _DISCARDED_FROM)
