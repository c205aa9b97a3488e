"""One method a FUSE request: decode, call the filesystem, encode.

Invariant: every handler ends within the deadline, and no exception but FUSEError leaves one, because any other would
end the daemon. Requests for ``.relay`` never wait for anything.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyfuse3
import trio

from fsmount.errors import FileError, RemoteError
from fsmount.fuse.attributes import absent, entry_attributes
from fsmount.fuse.errno import errno_of
from fsmount.fuse.names import decoded, encoded
from fsmount.model import Attr, Ino
from fsmount.ports import Clock, EventLog
from fsmount.vfs.control import CONTROL_ROOT, ControlTree
from fsmount.vfs.filesystem import Filesystem
from fsmount.vfs.inodes import CONTROL, ROOT_INO, Node
from fsmount.vfs.listings import NOTHING
from fsmount.vfs.shown import Shown

RELAY = ".relay"
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
AGAIN = 1.0
"""Seconds for which a read that failed is answered alike at once: after a failed readahead the kernel asks for the same
page again.
"""

P = ParamSpec("P")
T = TypeVar("T")


def handler(
    method: Callable[Concatenate[Operations, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Operations, P], Coroutine[Any, Any, T]]:
    """Deadline and errors of every request."""

    @functools.wraps(method)
    async def answer(self: Operations, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with trio.move_on_after(self.timeout):
            try:
                return await method(self, *args, **kwargs)
            except pyfuse3.FUSEError:
                raise
            except Exception as error:
                raise pyfuse3.FUSEError(self.errno_for(error, method.__name__)) from error
        raise pyfuse3.FUSEError(errno.ETIMEDOUT)

    return answer


class Directory:
    """An open directory: its names as they were when it was read from the start.

    ``failure`` ends them where the remote could not be asked: a list that is not whole is never passed off as one. What
    stands under them may have changed since, if the tree's ``stamp`` has.
    """

    __slots__ = ("control", "failure", "listing", "names", "node", "stamp")

    def __init__(self, node: Node | None, control: Ino | None) -> None:
        self.node = node
        self.control = control
        self.names: Sequence[tuple[str, Shown | Attr]] | Sequence[tuple[str, Attr]] = ()
        self.failure: RemoteError | None = None
        self.listing = NOTHING
        self.stamp = (0, 0)


class Operations(pyfuse3.Operations):
    """See the module. ``ttl`` is how long the kernel may answer by itself, ``timeout`` the deadline; seconds."""

    enable_writeback_cache = False
    supports_dot_lookup = False

    def __init__(
        self, filesystem: Filesystem, control: ControlTree, clock: Clock, log: EventLog, *, timeout: float, ttl: float,
        state_dir: str,
    ) -> None:  # fmt: skip
        super().__init__()
        self._fs = filesystem
        self._tree = filesystem.tree
        self._files = filesystem.files
        self._control = control
        self._clock = clock
        self._log = log
        self.timeout = timeout
        self._ttl = ttl
        self._state_dir = state_dir
        self._directories: dict[int, Directory] = {}
        self._next_directory = 1
        self._failed_reads: dict[int, tuple[float, int]] = {}

    def errno_for(self, error: Exception, request: str) -> int:
        """The errno of an error; one that nobody foresaw is logged."""
        code = errno_of(error)
        if code is None:
            self._log.note("request.failed", f"{request}: {type(error).__name__}: {error}", level="error")
            return errno.EIO
        if code in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            self._log.note("request.failed", f"{request}: {error}", level="warning")
        return code

    # attributes

    def _entry(self, attr: Attr) -> pyfuse3.EntryAttributes:
        return entry_attributes(attr, 0 if attr.ino >= CONTROL else self._ttl)

    async def _node_entry(self, node: Node) -> pyfuse3.EntryAttributes:
        return self._entry(self._tree.quick_attr(node) or await self._tree.attr(node))

    @handler
    async def lookup(self, parent_inode: int, name: bytes, ctx: object) -> pyfuse3.EntryAttributes:
        text = decoded(name)
        if parent_inode >= CONTROL:
            return self._entry(self._control.lookup(Ino(parent_inode), text))
        if parent_inode == ROOT_INO and text == RELAY:
            return self._entry(self._control.root())
        parent = self._tree.inodes.get(parent_inode)
        node = await self._tree.find(parent, text)
        if node is None:
            return absent(self._ttl)
        return await self._looked_up(node)

    async def _looked_up(self, node: Node) -> pyfuse3.EntryAttributes:
        """The answer by which the kernel knows the node once more; it stays here while its size is fetched."""
        node.lookups += 1
        try:
            return await self._node_entry(node)
        except BaseException:
            self._tree.inodes.forget(node.ino, 1)
            raise

    @handler
    async def getattr(self, inode: int, ctx: object) -> pyfuse3.EntryAttributes:
        if inode >= CONTROL:
            return self._entry(self._control.getattr(Ino(inode)))
        node = self._tree.inodes.get(inode)
        await self._tree.refresh(node)
        return await self._node_entry(node)

    @handler
    async def setattr(
        self, inode: int, attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields, fh: int | None, ctx: object
    ) -> pyfuse3.EntryAttributes:  # fmt: skip
        if inode >= CONTROL:
            raise self._control.refuse("setattr", Ino(inode))
        node = self._tree.inodes.get(inode)
        changed = await self._fs.setattr(
            node,
            mode=attr.st_mode & 0o7777 if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            mtime=attr.st_mtime_ns / 1e9 if fields.update_mtime else None,
            size=attr.st_size if fields.update_size else None,
            handle=fh,
        )
        return self._entry(changed)

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
        if start_id == 0:
            await self._read_names(directory)
        if start_id < 2 and not await self._reply_dots(directory, start_id, token):
            return
        for index in range(max(0, start_id - 2), len(directory.names)):
            if not await self._reply_name(directory, index, token):
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
            await self._tree.measure(names)
        directory.names = [(RELAY, self._control.root()), *names] if node.ino == ROOT_INO else names

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

    async def _reply_name(self, directory: Directory, index: int, token: pyfuse3.ReaddirToken) -> bool:
        name, found = directory.names[index]
        parent = directory.node
        if isinstance(found, Attr) or parent is None:
            known = found if isinstance(found, Attr) else self._control.root()
            return pyfuse3.readdir_reply(token, encoded(name), self._entry(known), index + 3)
        changed = directory.stamp != self._tree.stamp
        current = self._tree.look(parent, name, directory.listing) if changed else found
        node = self._tree.bind(parent, name, current)
        if node is None or current is None:
            return True
        attr = self._tree.quick_attr(node)
        entry = self._entry(attr) if attr is not None else entry_attributes(self._unmeasured(node, current), 0)
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

    @handler
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Names are in the journal when their system call returns; this puts the journal on the disk."""
        if self._directories[fh].control is None:
            await trio.to_thread.run_sync(self._fs.durable)

    @handler
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        parent, text = self._parent(parent_inode, name, "mkdir")
        node = await self._fs.mkdir(parent, text, mode=mode & ~ctx.umask & 0o7777, uid=ctx.uid, gid=ctx.gid)
        return await self._looked_up(node)

    @handler
    async def rmdir(self, parent_inode: int, name: bytes, ctx: object) -> None:
        await self._fs.rmdir(*self._parent(parent_inode, name, "rmdir"))

    @handler
    async def unlink(self, parent_inode: int, name: bytes, ctx: object) -> None:
        await self._fs.unlink(*self._parent(parent_inode, name, "unlink"))
        self._control.changed()

    @handler
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
        await self._fs.rename(parent, old, to_parent, new, replace_target=not flags & RENAME_NOREPLACE)
        self._control.changed()

    def _parent(self, inode: int, name: bytes, request: str) -> tuple[Node, str]:
        """The directory and the name of a change; the control tree refuses it."""
        text = decoded(name)
        if inode >= CONTROL or (inode == ROOT_INO and text == RELAY):
            raise self._control.refuse(request, Ino(inode) if inode >= CONTROL else CONTROL_ROOT)
        return self._tree.inodes.get(inode), text

    # what no remote of ours can hold

    @handler
    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: object) -> pyfuse3.EntryAttributes:
        raise await self._refusal(parent_inode, name, "symlink")

    @handler
    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: object) -> pyfuse3.EntryAttributes:
        raise await self._refusal(new_parent_inode, new_name, "link")

    @handler
    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: object) -> pyfuse3.EntryAttributes:
        raise await self._refusal(parent_inode, name, "mknod")

    async def _refusal(self, inode: int, name: bytes, request: str) -> FileError:
        """EPERM (symlink(2), link(2), mknod(2)), unless the name itself is impossible."""
        parent, text = self._parent(inode, name, request)
        await self._tree.vacant(parent, text)
        return FileError(errno.EPERM, f"{request} {text}: a remote holds files and directories only")

    # files

    @handler
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
            number = self._control.open(Ino(inode), writable)
            return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(CONTROL + number), direct_io=True, keep_cache=False)
        node = self._tree.inodes.get(inode)
        self._fs.check_open(writable)
        number, keep = await self._files.open(node, writable=writable, truncate=bool(flags & os.O_TRUNC))
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(number), keep_cache=keep)

    @handler
    async def read(self, fh: int, off: int, size: int) -> bytes:
        if fh >= CONTROL:
            return self._control.read(fh - CONTROL, off, size)
        failed = self._failed_reads.get(fh)
        if failed is not None and self._clock.monotonic() < failed[0]:
            raise pyfuse3.FUSEError(failed[1])
        try:
            return await self._files.read(fh, off, size)
        except trio.Cancelled:
            self._failed_reads[fh] = (self._clock.monotonic() + AGAIN, errno.ETIMEDOUT)
            raise
        except RemoteError as error:
            self._failed_reads[fh] = (self._clock.monotonic() + AGAIN, errno_of(error) or errno.EIO)
            raise

    @handler
    async def write(self, fh: int, off: int, buf: bytes) -> int:
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
    async def release(self, fh: int) -> None:
        if fh >= CONTROL:
            self._control.release(fh - CONTROL)
            return
        self._failed_reads.pop(fh, None)
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
