"""The ``.relay`` tree as the kernel asks for it.

Invariant: every answer is made of what the journal, the spool and the streams hold now; only what handles have open,
and what a listing has shown a moment ago, is older.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import overload

from fsmount.config import Config
from fsmount.errors import FileError
from fsmount.model import Attr, Ino, State
from fsmount.ports import Cache, Clock, Commands, Facts, ReadableLog, Spool
from fsmount.vfs.control.attributes import Owner
from fsmount.vfs.control.ctl import USAGE, CtlCommands, OpenCtl
from fsmount.vfs.control.fixed import renderers
from fsmount.vfs.control.names import (
    CONFLICT,
    CONTROL_ROOT,
    CTL,
    DIRECTORIES,
    FILES,
    STREAMS,
    OpName,
    fixed_name,
    number_of,
)
from fsmount.vfs.control.opened import Opened, OpenRendering
from fsmount.vfs.control.opfiles import OpFiles
from fsmount.vfs.control.streams import OpenStream, StreamFile
from fsmount.vfs.deliveries import Deliveries
from fsmount.vfs.renderings import Rendering, Renderings

NOREPLACE = 1
"""RENAME_NOREPLACE of renameat2(2); mv sends it."""
_NAMED = 3
"""So many ops are named in an error."""


class Listing(Sequence[tuple[str, Attr]]):
    """The names of a directory at one moment, each with an Attr that is made when it is asked for.

    Ops come with size 0: rendering them all would be dear, and since the kernel may keep no attribute of this tree it
    asks for the true one before it tells anybody.
    """

    def __init__(self, names: Sequence[str | OpName], attr: Callable[[str | OpName], tuple[str, Attr]]) -> None:
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
    """The tree below ``.relay``. Every method is synchronous but ``rename`` and ``sync``; each raises FileError.

    ``hidden``: it is reachable, but the mount's root does not list it.
    """

    def __init__(
        self, config: Config, facts: Facts, commands: Commands, spool: Spool, cache: Cache, deliveries: Deliveries,
        log: ReadableLog, clock: Clock,
    ) -> None:  # fmt: skip
        self.hidden = config.hide_relay
        self._journal = facts.journal
        self._clock = clock
        self._log = log
        self._deliveries = deliveries
        self._owner = Owner(config.uid, config.gid)
        self._renderings = Renderings(facts, clock)
        self._renderers = renderers()
        self._ops = OpFiles(facts, spool, cache, commands, log, clock, self._renderings, self._owner)
        self._commands = CtlCommands(commands, log, facts.identity.root)
        self._streams = {
            name: StreamFile(STREAMS[name], stream, self._owner.file)
            for name, stream in (("log", log), ("events", log.events))
        }
        self._began_at = clock.now()
        self._handles: dict[int, Opened] = {}
        self._handle = 0

    # looking

    def root(self) -> Attr:
        """``.relay`` itself."""
        return self._owner.directory(CONTROL_ROOT, self._began_at, len(DIRECTORIES))

    def lookup(self, parent: Ino, name: str) -> Attr:
        """``name`` in ``parent``; ENOENT, or ENOTDIR where ``parent`` is a file."""
        if parent == CONTROL_ROOT:
            return self._fixed(name)
        return self._ops.lookup(self._directory(parent), name, self._began_at)

    def getattr(self, ino: Ino) -> Attr:
        """What ``stat`` shows; ENOENT if it is gone and nobody has it open."""
        if ino == CONTROL_ROOT:
            return self.root()
        name = fixed_name(ino)
        if name is not None:
            return self._fixed(name)
        stream = self._stream(ino)
        if stream is not None and stream.current().ino == ino:
            return stream.current()
        opened = next((opened for opened in self._handles.values() if opened.attr.ino == ino), None)
        if opened is not None:
            return opened.attr
        if stream is not None:
            raise FileError(errno.ESTALE)  # stat(2) looks the name up once more and finds the new file
        return self._ops.attr(self._op(ino), self._began_at)

    def listdir(self, ino: Ino) -> Listing:
        """The names of a directory as they are now, without ``.`` and ``..``."""
        if ino == CONTROL_ROOT:
            return Listing([*FILES, *STREAMS, *DIRECTORIES], self._listed)
        directory = self._directory(ino)
        named = self._ops.names(directory) if isinstance(directory, str) else self._ops.versions(directory)
        return Listing(named, self._listed)

    def changed(self) -> None:
        """A program changed something through this mount (a close, say): the next look sees it."""
        self._renderings.changed()

    # files

    def open(self, ino: Ino, *, writable: bool = False) -> int:
        """A handle; EPERM for writing anything but ``ctl``, EISDIR, ENOENT, EIO if the body is missing."""
        opened = self._open(ino, writable)
        self._handle += 1
        self._handles[self._handle] = opened
        return self._handle

    def read(self, handle: int, offset: int, size: int) -> bytes:
        """At most ``size`` bytes at ``offset``; empty at the end."""
        return self._handles[handle].read(offset, size)

    def write(self, handle: int, written: bytes) -> int:
        """Carries out each line that is complete now; EINVAL for one that makes no sense."""
        opened = self._handles[handle]
        if not isinstance(opened, OpenCtl):
            raise FileError(errno.EBADF)
        try:
            return opened.write(written)
        finally:
            self.changed()

    def poll(self, handle: int, wake: Callable[[], None] | None) -> int | None:
        """What poll(2) tells of ``log`` and ``events``, see ``OpenStream.poll``; None for what is always ready."""
        opened = self._handles[handle]
        return opened.poll(wake) if isinstance(opened, OpenStream) else None

    def release(self, handle: int) -> None:
        """The handle is not used again."""
        opened = self._handles.pop(handle)
        opened.close()
        if isinstance(opened, OpenCtl):
            self.changed()

    def setattr(self, ino: Ino, *, truncated: bool) -> Attr:
        """``ctl`` may be truncated, since a shell's ``>`` does; EPERM for any other change."""
        if not truncated or fixed_name(ino) != CTL:
            raise self.refuse("setattr", ino)
        return self.getattr(ino)

    async def sync(self) -> None:
        """Waits until none of the ops that wait or are being sent now can move by itself; EIO if one is not delivered,
        or if a damaged journal cannot tell which there are.

        Has no timeout of its own. A checkpoint.
        """
        if self._journal.damage:
            message = f"whether all is delivered cannot be told: {self._journal.damage}"
            self._log.note("sync.failed", message, level="error")
            raise FileError(errno.EIO, message)
        states = (State.PENDING, State.SENDING)
        left = await self._deliveries.settled([op_id for state in states for op_id in self._journal.op_ids(state)])
        if left:
            named = ", ".join(f"{record.op.op_id} ({record.op.target})" for record in left[:_NAMED])
            more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
            raise FileError(errno.EIO, f"not delivered: {named}{more}; see .relay/status")

    def _open(self, ino: Ino, writable: bool) -> Opened:
        name, stream, named = fixed_name(ino), self._stream(ino), self._ops.known(ino)
        if ino == CONTROL_ROOT or name in DIRECTORIES or (named is not None and named.is_directory):
            raise FileError(errno.EISDIR)
        if name == CTL:
            return OpenCtl(self._commands, self._fixed(CTL))
        if writable:
            raise self.refuse("write", ino)
        if name is not None:
            rendering = self._rendering(name)
            return OpenRendering(rendering, self._owner.file(ino, len(rendering.content), rendering.at))
        if stream is None:
            return self._ops.open(self._op(ino))
        if stream.current().ino != ino:
            raise FileError(errno.ESTALE)  # open(2) looks the name up once more and finds the new file
        return stream.open()

    # deciding

    async def rename(self, parent: Ino, name: str, new_parent: Ino, new_name: str, flags: int = 0) -> None:
        """A verb, if it moves an op to ``retry/``, ``force/`` or ``discarded/`` under its own name.

        In the journal when it returns. ENOENT if the op is gone, EBUSY if it is being sent, damaged or older than
        another op of its path, EINVAL for an exchange, EPERM for any other rename; never EINVAL or EXDEV for those,
        which mv takes for something else. The log says why. Not a checkpoint.
        """
        if flags & ~NOREPLACE:
            raise FileError(errno.EINVAL, "names of .relay cannot be exchanged")
        directory = fixed_name(parent)
        if directory not in DIRECTORIES:
            raise FileError(errno.EPERM, f"{name} cannot be moved")
        self._ops.move(directory, name, fixed_name(new_parent) or "", new_name)
        self.changed()

    def refuse(self, operation: str, ino: Ino) -> FileError:
        """The error for a ``create``, ``unlink``, ``write``, …: nothing in this tree changes that way."""
        named = self._ops.known(ino)
        name = fixed_name(ino) or (".relay" if named is None else named.name)
        message = f"{operation} {name}: .relay changes only by mv of an op to retry/, force/ or discarded/, and by ctl"
        if operation == "rename":
            self._log.note("verb.refused", message, level="warning")
        return FileError(errno.EPERM, message)

    # names

    def _directory(self, ino: Ino) -> str | OpName:
        """The directory that has this number, a fixed one or that of a conflict; raises ENOTDIR, ENOENT."""
        name, named = fixed_name(ino), self._ops.known(ino)
        if name in DIRECTORIES:
            return name
        if named is not None and named.is_directory:
            return named
        known = name is not None or named is not None or self._stream(ino) is not None
        raise FileError(errno.ENOTDIR if known else errno.ENOENT)

    def _op(self, ino: Ino) -> OpName:
        named = self._ops.known(ino)
        if named is None:
            raise FileError(errno.ENOENT)
        return named

    def _stream(self, ino: Ino) -> StreamFile | None:
        return next((stream for stream in self._streams.values() if stream.has(ino)), None)

    def _listed(self, name: str | OpName) -> tuple[str, Attr]:
        if isinstance(name, str):
            return name, self._fixed(name)
        return name.name, self._ops.listed(name, self._began_at)

    # what always is there

    def _fixed(self, name: str) -> Attr:
        if name in self._streams:
            return self._streams[name].current()
        if name in DIRECTORIES:
            within = self._ops.conflicts if name == CONFLICT else 0
            return self._owner.directory(number_of(name), self._began_at, within)
        if name == CTL:
            return self._owner.file(number_of(CTL), len(USAGE), self._began_at, 0o600)
        if name not in FILES:
            raise FileError(errno.ENOENT)
        rendering = self._rendering(name)
        return self._owner.file(number_of(name), len(rendering.content), rendering.at)

    def _rendering(self, name: str) -> Rendering:
        return self._renderings.of_snapshot(number_of(name), self._renderers[name])
