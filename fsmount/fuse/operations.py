"""One method a FUSE request: decode, call the filesystem, encode.

Invariant: every handler ends within the deadline, and no exception but FUSEError leaves one, because any other would
end the daemon. Of the requests for ``.relay`` only its fsync waits.
"""

from __future__ import annotations

import errno
import functools
import os
import select
from collections.abc import Callable, Sequence

import pyfuse3
import trio

from fsmount.errors import FileError
from fsmount.fuse.attributes import absent, entry_attributes
from fsmount.fuse.beside import Beside
from fsmount.fuse.deadline import handler, in_directory, within
from fsmount.fuse.directory import Directory
from fsmount.fuse.names import decoded, encoded
from fsmount.fuse.notifier import KernelNotifier
from fsmount.model import Attr, Ino
from fsmount.ports import Clock, EventLog
from fsmount.vfs.control import CONTROL_ROOT, ControlTree
from fsmount.vfs.filesystem import Filesystem
from fsmount.vfs.inodes import CONTROL, ROOT_INO, Node
from fsmount.vfs.overlay import RELAY
from fsmount.vfs.shown import Shown

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
READY = select.POLLIN | select.POLLRDNORM | select.POLLOUT | select.POLLWRNORM
"""What poll(2) tells of a regular file."""
SYNC_TIMEOUTS = 4
"""An fsync of ``.relay`` waits for so many timeouts."""


class Operations(Beside):
    """See the module. ``timeout`` is the deadline of a request; seconds."""

    enable_writeback_cache = False
    supports_dot_lookup = False

    def __init__(
        self, filesystem: Filesystem, control: ControlTree, kernel: KernelNotifier, clock: Clock, log: EventLog, *,
        timeout: float, state_dir: str,
    ) -> None:  # fmt: skip
        super().__init__(filesystem, control, kernel, log, timeout=timeout)
        self._clock = clock
        self._state_dir = state_dir
        self._directories: dict[int, Directory] = {}
        self._next_directory = 1

    # attributes

    @in_directory
    async def lookup(self, parent_inode: int, name: bytes, ctx: object) -> pyfuse3.EntryAttributes:
        text = decoded(name)
        if parent_inode >= CONTROL:
            return entry_attributes(self._control.lookup(Ino(parent_inode), text), 0)
        if parent_inode == ROOT_INO and text == RELAY:
            return entry_attributes(self._control.root(), 0)
        parent = self._tree.inodes.get(parent_inode)
        node = await self._tree.find(parent, text)
        if node is None:
            return absent(self._promises.of_absence(parent, text))
        return await self._looked_up(node)

    @handler
    async def getattr(self, inode: int, ctx: object) -> pyfuse3.EntryAttributes:
        if inode >= CONTROL:
            return entry_attributes(self._control.getattr(Ino(inode)), 0)
        node = self._tree.inodes.get(inode)
        await self._tree.refresh(node)
        return await self._node_entry(node)

    @handler
    async def setattr(
        self, inode: int, attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields, fh: int | None, ctx: object
    ) -> pyfuse3.EntryAttributes:  # fmt: skip
        if inode >= CONTROL:
            truncated = fields.update_size and attr.st_size == 0
            return entry_attributes(self._control.setattr(Ino(inode), truncated=truncated), 0)
        node = self._tree.inodes.get(inode)
        await self._fs.setattr(
            node,
            mode=attr.st_mode & 0o7777 if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            mtime=attr.st_mtime_ns / 1e9 if fields.update_mtime else None,
            size=attr.st_size if fields.update_size else None,
            handle=fh,
        )
        return await self._node_entry(node)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for inode, lookups in inode_list:
            if inode < CONTROL:
                self._tree.inodes.forget(inode, lookups)

    # directories

    @handler
    async def opendir(self, inode: int, ctx: object) -> int:
        if inode >= CONTROL:
            directory = Directory(None, Ino(inode))
        else:
            directory = Directory(self._tree.inodes.get(inode), None)
            await self._tree.refresh(self._tree.inodes.get(inode))
        number, self._next_directory = self._next_directory, self._next_directory + 1
        self._directories[number] = directory
        return number

    @handler
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        directory = self._directories[fh]
        with self.locked(directory.ino):
            await self._reply_names(directory, start_id, token)

    async def _reply_names(self, directory: Directory, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        if start_id == 0:
            await self._read_names(directory)
        if start_id < 2 and not await self._reply_dots(directory, start_id, token):
            return
        lasting = self._promises.in_directory(directory.node or self._tree.inodes.root)
        for index in range(max(0, start_id - 2), len(directory.names)):
            if not self._reply_name(directory, index, token, lasting):
                return
        if directory.failure is not None and start_id >= 2 + len(directory.names):
            raise directory.failure

    async def _read_names(self, directory: Directory) -> None:
        node = directory.node
        if node is None:
            directory.names = self._control.listdir(directory.control or CONTROL_ROOT)
            return
        names: list[tuple[str, Shown]] = []
        if not node.detached:
            names, directory.failure = await self._tree.known_children(node)
        directory.listing, directory.stamp = self._tree.held(node), self._tree.stamp
        # A directory is listed in time, whatever its sizes cost: those not fetched by then are asked for by ``stat``.
        with trio.move_on_after(self.timeout / 2):
            await self._tree.measure(node, names)
        shown = node.ino == ROOT_INO and not self._control.hidden
        directory.names = [(RELAY, self._control.root()), *names] if shown else names

    async def _reply_dots(self, directory: Directory, start_id: int, token: pyfuse3.ReaddirToken) -> bool:
        if directory.node is None:
            here = above = entry_attributes(self._control.root(), 0)
        else:
            here = await self._node_entry(directory.node)
            above = await self._node_entry(directory.node.parent or directory.node)
        names = ((b".", here), (b"..", above))
        return all(
            pyfuse3.readdir_reply(token, name, entry, start_id + n + 1)
            for n, (name, entry) in enumerate(names[start_id:])
        )

    def _reply_name(
        self, directory: Directory, index: int, token: pyfuse3.ReaddirToken, lasting: Callable[[str], float]
    ) -> bool:
        name, found = directory.names[index]
        parent = directory.node
        if isinstance(found, Attr) or parent is None:
            known = found if isinstance(found, Attr) else self._control.root()
            return pyfuse3.readdir_reply(token, encoded(name), entry_attributes(known, 0), index + 3)
        changed = directory.stamp != self._tree.stamp
        current = self._tree.look(parent, name, directory.listing) if changed else found
        node = self._tree.bind(parent, name, current)
        if node is None or current is None:
            return True
        attr = self._tree.quick_attr(node)
        known = attr if attr is not None else self._unmeasured(node, current)
        entry = entry_attributes(known, lasting(name) if attr is not None else 0)
        if pyfuse3.readdir_reply(token, encoded(name), entry, index + 3):
            node.lookups += 1
            return True
        self._tree.inodes.settle(node)
        return False

    def _unmeasured(self, node: Node, shown: Shown) -> Attr:
        """For a name whose size could not be fetched: the kernel keeps nothing of it and asks when it needs to know."""
        return Attr(
            ino=node.ino,
            kind=node.kind,
            size=0,
            mode=shown.mode,
            uid=shown.uid,
            gid=shown.gid,
            mtime=shown.mtime,
            ctime=shown.mtime,
        )

    @handler
    async def releasedir(self, fh: int) -> None:
        self._directories.pop(fh, None)

    @within(SYNC_TIMEOUTS)
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Names are in the journal when their system call returns; this puts the journal on the disk.

        Of ``.relay`` itself: waits until what was queued is delivered.
        """
        control = self._directories[fh].control
        if control is None:
            await trio.to_thread.run_sync(self._fs.durable)
        elif control == CONTROL_ROOT:
            await self._control.sync()

    @in_directory
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        parent, text = self._parent(parent_inode, name, "mkdir")
        node = await self._fs.mkdir(parent, text, mode=mode & ~ctx.umask & 0o7777, uid=ctx.uid, gid=ctx.gid)
        return await self._looked_up(node)

    @in_directory
    async def rmdir(self, parent_inode: int, name: bytes, ctx: object) -> None:
        await self._fs.rmdir(*self._parent(parent_inode, name, "rmdir"))

    @in_directory
    async def unlink(self, parent_inode: int, name: bytes, ctx: object) -> None:
        await self._fs.unlink(*self._parent(parent_inode, name, "unlink"))
        self._control.changed()

    @in_directory
    async def rename(
        self, parent_inode_old: int, name_old: bytes, parent_inode_new: int, name_new: bytes, flags: int, ctx: object
    ) -> None:  # fmt: skip
        old, new = decoded(name_old), decoded(name_new)
        if parent_inode_old >= CONTROL and parent_inode_new >= CONTROL:
            await self._control.rename(Ino(parent_inode_old), old, Ino(parent_inode_new), new, flags)
            return
        parent, old = self._parent(parent_inode_old, name_old, "rename")
        to_parent, new = self._parent(parent_inode_new, name_new, "rename")
        if flags & ~RENAME_NOREPLACE:
            raise FileError(errno.EINVAL, "names cannot be exchanged")
        with self.locked(parent_inode_new):
            await self._fs.rename(parent, old, to_parent, new, replace_target=not flags & RENAME_NOREPLACE)
        self._control.changed()

    # files

    @in_directory
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:  # fmt: skip
        parent, text = self._parent(parent_inode, name, "create")
        node, number = await self._fs.create(
            parent, text, mode=mode & ~ctx.umask & 0o7777, uid=ctx.uid, gid=ctx.gid,
            exclusive=bool(flags & os.O_EXCL), truncate=bool(flags & os.O_TRUNC),
        )  # fmt: skip
        entry = await self._looked_up(node)
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(number), keep_cache=False), entry

    @handler
    async def open(self, inode: int, flags: int, ctx: object) -> pyfuse3.FileInfo:
        writable = flags & os.O_ACCMODE != os.O_RDONLY
        if inode >= CONTROL:
            number = self._control.open(Ino(inode), writable=writable)
            return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(CONTROL + number), direct_io=True, keep_cache=False)
        node = self._tree.inodes.get(inode)
        self._fs.check_open(node, writable=writable)
        number, keep = await self._files.open(node, writable=writable, truncate=bool(flags & os.O_TRUNC))
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(number), keep_cache=keep)

    @handler
    async def read(self, fh: int, off: int, size: int) -> bytes:
        if fh >= CONTROL:
            return self._control.read(fh - CONTROL, off, size)
        return await self._files.read(fh, off, size)

    @handler
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        if fh >= CONTROL:
            return self._control.write(fh - CONTROL, buf)
        return await self._files.write(fh, off, buf)

    @handler
    async def flush(self, fh: int) -> None:
        if fh < CONTROL:
            await self._files.flush(fh)
            self._control.changed()

    @handler
    async def fsync(self, fh: int, datasync: bool) -> None:
        if fh < CONTROL:
            await self._files.fsync(fh)

    @handler
    async def poll(self, inode: int, fh: int, poll_handle: pyfuse3.PollHandle | None, ctx: object) -> int:
        """What is in ``.relay`` is ready while there is more than the handle has read; it is woken when there is."""
        if fh < CONTROL:
            return READY
        wake = None if poll_handle is None else functools.partial(self._kernel.wake, poll_handle.notify)
        ready = self._control.poll(fh - CONTROL, wake)
        return READY if ready is None else ready

    @handler
    async def release(self, fh: int) -> None:
        if fh >= CONTROL:
            self._control.release(fh - CONTROL)
            return
        await self._files.release(fh)

    @handler
    async def statfs(self, ctx: object) -> pyfuse3.StatvfsData:
        """The disk that holds the spool: what is written here must fit there first."""
        disk = os.statvfs(self._state_dir)
        answer = pyfuse3.StatvfsData()
        for name in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail"):
            setattr(answer, name, getattr(disk, name))
        answer.f_namemax = 255
        return answer
