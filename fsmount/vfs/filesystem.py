"""The verbs on names: create, mkdir, unlink, rmdir, rename, setattr.

Invariant: a change of the tree is in the journal before the verb returns, and after the checks that may wait for the
remote each verb changes journal, nodes and listings in one synchronous stretch.
"""

from __future__ import annotations

import errno

from msgspec.structs import replace

from fsmount.config import Config
from fsmount.connection import Connection
from fsmount.errors import FileError
from fsmount.model import ABSENT, Kind, LocalNode, RemotePath, join
from fsmount.ports import Cache, Clock, EventLog, KernelCache, KnownListings, Remote, Spool
from fsmount.vfs.arrivals import Arrivals
from fsmount.vfs.contents import Contents
from fsmount.vfs.deliveries import Deliveries
from fsmount.vfs.directories import Directories
from fsmount.vfs.files import Files
from fsmount.vfs.inodes import Node
from fsmount.vfs.listings import Listings
from fsmount.vfs.overlay import Ledger
from fsmount.vfs.problems import Problems
from fsmount.vfs.promises import Promises
from fsmount.vfs.renames import Renames
from fsmount.vfs.shown import AtRemote, Merged, Shown, altered
from fsmount.vfs.tree import Tree
from fsmount.vfs.writethrough import WriteThrough
from fsmount.vfs.xattrs import ExtendedAttributes


class Filesystem:
    """The mount in domain terms.

    ``tree`` finds nodes, ``files`` has the handles, ``arrivals`` hears what happened at the remote; this has the verbs.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - every port that a part of it needs
        self, config: Config, ledger: Ledger, spool: Spool, cache: Cache, remote: Remote, connection: Connection,
        kernel: KernelCache, clock: Clock, log: EventLog, known: KnownListings | None = None,
    ) -> None:  # fmt: skip
        self._config = config
        self._ledger = ledger
        self._spool = spool
        self._remote = remote
        self._kernel = kernel
        self._clock = clock
        self._log = log
        self.listings = Listings(remote, connection, clock, config.attr_ttl, config.timeout / 2, known)
        self.contents = Contents(remote, cache, connection, log)
        self.tree = Tree(config, ledger, self.listings, self.contents, spool, clock)
        self.deliveries = Deliveries(ledger)
        self.files = Files(self.tree, ledger, spool, kernel, clock, log)
        if config.write_through:
            self.files.through = WriteThrough(ledger, self.deliveries, connection)
        self._renames = Renames(config, ledger, spool, clock, log, self.tree, self.files)
        self._directories = Directories(ledger, self.tree)
        self.xattrs = ExtendedAttributes(ledger, connection, clock, log, self.tree)
        self.problems = Problems(self.tree.overlay.clashes)
        self.max_deletes = config.max_deletes
        """Deletes within a minute beyond which they are held."""
        self.promises = Promises(self.tree, connection, kernel, config.attr_ttl)
        self.arrivals = Arrivals(ledger, spool, clock, log, self.tree, self.files, self.promises)
        connection.watch_feed(self.arrivals.feed_changed)

    # making

    async def create(
        self, parent: Node, name: str, *, mode: int, uid: int, gid: int, exclusive: bool, truncate: bool
    ) -> tuple[Node, int]:
        """A new empty file and a handle on it; an existing one is opened (EEXIST if ``exclusive``)."""
        self._writable()
        node = await self.tree.vacant(parent, name)
        if node is not None:
            if exclusive:
                raise FileError(errno.EEXIST, name)
            self.check_open(node, writable=True)
            number, _ = await self.files.open(node, writable=True, truncate=truncate)
            return node, number
        self._standing(parent)
        path = join(self.tree.path(parent), name)
        local = self.tree.overlay.is_litter(path, self.tree.held(parent))
        self._permitted(path, local=local)
        node = self.tree.inodes.node(parent, name, Kind.FILE)
        node.shown = Merged(kind=Kind.FILE, size=0, mode=mode, uid=uid, gid=gid, mtime=self._clock.now(), local=local)
        self._forget_stale(path)
        base = self._ledger.inherited(path) or ABSENT
        if local:
            self._renames.keep_directory(self.tree.path(parent))
        number = self.files.create(node, base, self._unusual(mode, uid, gid), local=local)
        self._touch_parent(parent)
        return node, number

    def _forget_stale(self, path: RemotePath) -> None:
        """What was kept of a file that vanished elsewhere is nothing of the new one."""
        if self._ledger.node(path) is not None or self._ledger.xattrs(path):
            self._ledger.forget(path)

    def _unusual(self, mode: int, uid: int, gid: int) -> dict[str, int]:
        """Those attributes of a new file that the mount would not show by itself."""
        usual = {"mode": 0o666 & ~self._config.umask, "uid": self._config.uid, "gid": self._config.gid}
        given = {"mode": mode, "uid": uid, "gid": gid}
        return {name: value for name, value in given.items() if value != usual[name]}

    async def mkdir(self, parent: Node, name: str, *, mode: int, uid: int, gid: int) -> Node:
        """A directory that this mount keeps until it is removed; the remote learns of it with its first file."""
        self._writable()
        if await self.tree.vacant(parent, name) is not None:
            raise FileError(errno.EEXIST, name)
        self._standing(parent)
        path = join(self.tree.path(parent), name)
        self._ledger.cancel_rmdir(path)
        node = self.tree.inodes.node(parent, name, Kind.DIRECTORY)
        node.shown = Merged(kind=Kind.DIRECTORY, size=0, mode=mode, uid=uid, gid=gid, mtime=self._clock.now())
        self._renames.keep_directory(self.tree.path(parent))
        self._ledger.keep(
            LocalNode(path=path, kind=Kind.DIRECTORY, mode=mode, uid=uid, gid=gid, mtime=node.shown.mtime)
        )
        self._touch_parent(parent)
        return node

    async def symlink(self, parent: Node, name: str, target: bytes, *, uid: int, gid: int) -> Node:
        """A symbolic link, which this mount keeps."""
        self._writable()
        if await self.tree.vacant(parent, name) is not None:
            raise FileError(errno.EEXIST, name)
        self._standing(parent)
        path = join(self.tree.path(parent), name)
        node = self.tree.inodes.node(parent, name, Kind.SYMLINK)
        now = self._clock.now()
        node.shown = Merged(
            kind=Kind.SYMLINK, size=len(target), mode=0o777, uid=uid, gid=gid, mtime=now, local=True, target=target
        )
        with self._ledger.transaction():
            self._renames.keep_directory(self.tree.path(parent))
            self._ledger.forget(path)
            self._ledger.keep(LocalNode(path=path, kind=Kind.SYMLINK, uid=uid, gid=gid, mtime=now, target=target))
        self._touch_parent(parent)
        return node

    @staticmethod
    def readlink(node: Node) -> bytes:
        """What the symbolic link says; raises FileError EINVAL for anything else."""
        target = None if node.shown is None else node.shown.target
        if target is None:
            raise FileError(errno.EINVAL, node.name)
        return target

    # removing

    async def unlink(self, parent: Node, name: str) -> None:
        """Removes the name here at once and queues a delete at its base."""
        self._writable()
        node = await self.tree.existing(parent, name)
        if node.kind is Kind.DIRECTORY:
            raise FileError(errno.EISDIR, name)
        self._permitted(self.tree.path(node), local=self.tree.is_local(node))
        await self.files.drafts.keep_for_readers(node)
        self._renames.remove(node, brake=self.listings.brake(self.max_deletes))
        self._touch_parent(parent)

    async def rmdir(self, parent: Node, name: str) -> None:
        """Removes an empty directory; where the remote has files below whose deletes are under way, an rmdir waits for
        them.
        """
        self._writable()
        node = await self.tree.existing(parent, name)
        if node.kind is not Kind.DIRECTORY:
            raise FileError(errno.ENOTDIR, name)
        if await self.tree.children(node):
            raise FileError(errno.ENOTEMPTY, name)
        path = self.tree.path(node)
        self._renames.keep_directory(self.tree.path(parent))
        self._ledger.forget(path)
        if self.listings.entry(path) is not None or self._ledger.shown_below(path):
            self._ledger.rmdir(path)
        self.listings.touched(path)
        self.tree.inodes.detach(node)
        self._touch_parent(parent)

    # renaming

    async def rename(self, parent: Node, name: str, to_parent: Node, to_name: str, *, replace_target: bool) -> None:
        """Another name for what stands there; a file, a link or an empty directory of that name is replaced."""
        self._writable()
        node = await self.tree.existing(parent, name)
        target = await self.tree.vacant(to_parent, to_name)
        self._standing(to_parent)
        if target is not None and not replace_target:
            raise FileError(errno.EEXIST, to_name)
        if target is node:
            return
        if node.kind is Kind.FILE:
            self._permitted(self.tree.path(node), local=self.tree.is_local(node))
            self._permitted(join(self.tree.path(to_parent), to_name), local=self._stays_here(to_parent, to_name))
        if node.kind is Kind.DIRECTORY:
            # What lies in it gets another path, and so a grant has to cover what lies below both names.
            for path in (self.tree.path(node), join(self.tree.path(to_parent), to_name)):
                self._permitted(join(path, to_name), local=False)
            await self._directories.rename(node, target, to_parent, to_name)
        elif node.kind is Kind.SYMLINK:
            self._renames.link(node, target, to_parent, to_name)
        else:
            await self._renames.file(node, target, to_parent, to_name)
        self._touch_parent(parent)
        self._touch_parent(to_parent)

    # attributes

    async def setattr(
        self, node: Node, *, mode: int | None = None, uid: int | None = None, gid: int | None = None,
        mtime: float | None = None,
        size: int | None = None, handle: int | None = None,
    ) -> None:  # fmt: skip
        """Changes what is given. Size is content; the rest is kept by this mount and makes no op."""
        if size is not None:
            if handle is None:
                self.check_open(node, writable=True)
            if node.kind is Kind.DIRECTORY:
                raise FileError(errno.EISDIR, node.name)
            await self.files.truncate(node, size, handle)
        if (mode, uid, gid, mtime) != (None, None, None, None):
            self._keep_attributes(node, mode, uid, gid, mtime)

    def _keep_attributes(
        self, node: Node, mode: int | None, uid: int | None, gid: int | None, mtime: float | None
    ) -> None:
        shown = node.shown or self.tree.overlay.root()
        given: dict[str, int | None] = {"mode": mode, "uid": uid, "gid": gid}
        changed = {key: value for key, value in given.items() if value is not None and value != getattr(shown, key)}
        node.shown = altered(shown, **changed, mtime=shown.mtime if mtime is None else mtime)
        draft = node.draft
        if draft is not None and mtime is not None:
            draft.mtime = mtime
        if draft is not None and draft.dirty and not draft.journalled:
            draft.attributes.update(changed)
        elif not node.detached and (changed or mtime is not None):
            self._keep(node, shown, changed, mtime)

    def _keep(self, node: Node, shown: Shown, changed: dict[str, int], mtime: float | None) -> None:
        path = self.tree.path(node)
        directory = Kind.DIRECTORY if node.kind is Kind.DIRECTORY else None
        kept = replace(self._ledger.node(path) or LocalNode(path=path, kind=directory), **changed)
        if mtime is not None:
            revision = shown.content.revision if isinstance(shown.content, AtRemote) else None
            kept = replace(kept, mtime=mtime, mtime_revision=revision)
        self._ledger.keep(kept)

    def set_xattr(self, node: Node, name: str, value: bytes) -> None:
        """See ``ExtendedAttributes.set``; raises FileError EROFS where nothing is written."""
        self._writable()
        self.xattrs.set(node, name, value)

    def remove_xattr(self, node: Node, name: str) -> None:
        """See ``ExtendedAttributes.remove``; raises FileError EROFS where nothing is written."""
        self._writable()
        self.xattrs.remove(node, name)

    def _touch_parent(self, parent: Node) -> None:
        """A directory's time is that of its last change here."""
        if parent.parent is None or parent.detached:
            return
        path = self.tree.path(parent)
        kept = self._ledger.node(path)
        now = self._clock.now()
        if kept is not None and kept.kind is Kind.DIRECTORY and now - (kept.mtime or 0) > 1.0:
            self._ledger.keep(replace(kept, mtime=now))
            if parent.shown is not None:
                parent.shown = altered(parent.shown, mtime=now)

    def _writable(self) -> None:
        """Raises FileError EROFS where nothing is written."""
        if self.files.closing:
            raise FileError(errno.EROFS, "the mount is being unmounted")
        if self._config.read_only:
            raise FileError(errno.EROFS, "the mount is read-only")
        if not self._remote.may_write():
            raise FileError(errno.EROFS, "the credential grants no writing")

    def _permitted(self, path: RemotePath, *, local: bool) -> None:
        """Raises FileError EACCES where the credential says that it may not write; what stays here it need not."""
        if not local and not self._remote.may_write(path):
            raise FileError(errno.EACCES, f"{path}: the credential grants no writing there")

    def _stays_here(self, parent: Node, name: str) -> bool:
        """Whether the file lives on this mount only under that name."""
        return self.tree.overlay.is_litter(join(self.tree.path(parent), name), self.tree.held(parent))

    def _standing(self, directory: Node) -> None:
        """After the checks that may have waited: nothing is made in a directory that was removed meanwhile."""
        if directory.detached:
            raise FileError(errno.ENOENT, directory.name)

    def check_open(self, node: Node, *, writable: bool) -> None:
        """Raises FileError EROFS for a writer on a mount that takes no writes, EACCES where its credential may not."""
        if writable:
            self._writable()
            self._permitted(self.tree.path(node), local=self.tree.is_local(node))

    def durable(self) -> None:
        """Puts the journal on the disk; blocks: call it in a thread."""
        self._ledger.durable()
