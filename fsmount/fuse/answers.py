"""What every request handler needs: the parts of the mount, errno of errors, attributes of nodes.

Invariant: a node that is told to the kernel is counted as known to it, and only then. What the kernel is promised is
looked up when it is told, with no checkpoint between (see ``vfs.promises``).
"""

from __future__ import annotations

import errno
from contextlib import AbstractContextManager

import pyfuse3

from fsmount.errors import FileError
from fsmount.fuse.attributes import entry_attributes
from fsmount.fuse.errno import errno_of
from fsmount.fuse.names import decoded
from fsmount.fuse.notifier import KernelNotifier
from fsmount.model import Ino
from fsmount.ports import EventLog
from fsmount.vfs.control import CONTROL_ROOT, ControlTree
from fsmount.vfs.filesystem import Filesystem
from fsmount.vfs.inodes import CONTROL, ROOT_INO, Node
from fsmount.vfs.overlay import RELAY


class Answers(pyfuse3.Operations):
    """``timeout`` is the deadline of a request; seconds."""

    def __init__(
        self, filesystem: Filesystem, control: ControlTree, kernel: KernelNotifier, log: EventLog, *, timeout: float
    ) -> None:
        super().__init__()
        self._fs = filesystem
        self._kernel = kernel
        self._promises = filesystem.promises
        self._tree = filesystem.tree
        self._files = filesystem.files
        self._control = control
        self._log = log
        self.timeout = timeout

    def errno_for(self, error: Exception, request: str) -> int:
        """The errno of an error; one that nobody foresaw is logged."""
        code = errno_of(error)
        if code is None:
            self._log.note("request.failed", f"{request}: {type(error).__name__}: {error}", level="error")
            return errno.EIO
        if code in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            self._log.note("request.failed", f"{request}: {error}", level="warning")
        return code

    def locked(self, directory: int) -> AbstractContextManager[None]:
        """While a request is answered during which the kernel holds the lock of the directory."""
        return self._kernel.locked(directory)

    async def _node_entry(self, node: Node) -> pyfuse3.EntryAttributes:
        """Promises nothing where the size had to be waited for: what the node was looked up from may be old by now."""
        attr = self._tree.quick_attr(node)
        if attr is None:
            return entry_attributes(await self._tree.attr(node), 0)
        return entry_attributes(attr, self._promises.of(node))

    async def _looked_up(self, node: Node) -> pyfuse3.EntryAttributes:
        """The answer by which the kernel knows the node once more; it stays here while its size is fetched."""
        node.lookups += 1
        try:
            return await self._node_entry(node)
        except BaseException:
            self._tree.inodes.forget(node.ino, 1)
            raise

    def _parent(self, inode: int, name: bytes, request: str) -> tuple[Node, str]:
        """The directory and the name of a change; the control tree refuses it."""
        text = decoded(name)
        if inode >= CONTROL or (inode == ROOT_INO and text == RELAY):
            raise self._control.refuse(request, Ino(inode) if inode >= CONTROL else CONTROL_ROOT)
        return self._tree.inodes.get(inode), text

    async def _refusal(self, inode: int, name: bytes, request: str) -> FileError:
        """EPERM (link(2), mknod(2)), unless the name itself is impossible."""
        parent, text = self._parent(inode, name, request)
        await self._tree.vacant(parent, text)
        return FileError(errno.EPERM, f"{request} {text}: no remote holds this kind of file")
