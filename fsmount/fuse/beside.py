"""The requests for what no remote of ours holds: symbolic links, special files, extended attributes.

Invariant: as in ``operations``. The kernel asks for ``security.capability`` at every write: that is answered before
anything else.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Sequence

import pyfuse3

from fsmount.errors import FileError
from fsmount.fuse.answers import Answers
from fsmount.fuse.deadline import handler, in_directory
from fsmount.fuse.names import decoded
from fsmount.model import Ino
from fsmount.vfs.inodes import CONTROL


class Beside(Answers):
    """Links, special files and extended attributes."""

    @in_directory
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        parent, text = self._parent(parent_inode, name, "symlink")
        return await self._looked_up(await self._fs.symlink(parent, text, target, uid=ctx.uid, gid=ctx.gid))

    @handler
    async def readlink(self, inode: int, ctx: object) -> bytes:
        if inode >= CONTROL:
            raise FileError(errno.EINVAL)
        return self._fs.readlink(self._tree.inodes.get(inode))

    @handler
    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: object) -> pyfuse3.EntryAttributes:
        with self.locked(new_parent_inode):
            raise await self._refusal(new_parent_inode, new_name, "link")

    @in_directory
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:  # fmt: skip
        if not stat.S_ISREG(mode):
            raise await self._refusal(parent_inode, name, "mknod")
        parent, text = self._parent(parent_inode, name, "mknod")
        node, number = await self._fs.create(
            parent, text, mode=mode & ~ctx.umask & 0o7777, uid=ctx.uid, gid=ctx.gid, exclusive=True, truncate=False
        )
        try:
            await self._files.flush(number)
            return await self._looked_up(node)
        finally:
            await self._files.release(number)

    async def getxattr(self, inode: int, name: bytes, ctx: object) -> bytes:
        if name.startswith(b"security."):
            raise pyfuse3.FUSEError(pyfuse3.ENOATTR)
        return await self._getxattr(inode, name)

    @handler
    async def _getxattr(self, inode: int, name: bytes) -> bytes:
        if inode >= CONTROL:
            raise FileError(errno.ENODATA)
        return self._fs.xattrs.get(self._tree.inodes.get(inode), decoded(name))

    @handler
    async def listxattr(self, inode: int, ctx: object) -> Sequence[bytes]:
        if inode >= CONTROL:
            return []
        return [name.encode() for name in self._fs.xattrs.names(self._tree.inodes.get(inode))]

    @handler
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: object) -> None:
        if inode >= CONTROL:
            raise self._control.refuse("setxattr", Ino(inode))
        self._fs.set_xattr(self._tree.inodes.get(inode), decoded(name), value)
        self._control.changed()

    @handler
    async def removexattr(self, inode: int, name: bytes, ctx: object) -> None:
        if inode >= CONTROL:
            raise self._control.refuse("removexattr", Ino(inode))
        self._fs.remove_xattr(self._tree.inodes.get(inode), decoded(name))
