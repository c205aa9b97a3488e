"""The verbs on names: lookup, create, mkdir, unlink, rmdir, rename, setattr, and what the uploader and the feed report.

Invariant: a change of the tree is in the journal before the verb returns, and after the checks that may wait for the
remote each verb changes journal, nodes and listings in one synchronous stretch.
"""

from __future__ import annotations

import errno
from collections import OrderedDict

import trio
from msgspec.structs import replace

from fsmount.config import Config
from fsmount.connection import Connection
from fsmount.errors import FileError
from fsmount.model import (
    ABSENT,
    Attr,
    Base,
    Body,
    Change,
    DraftId,
    Entry,
    Kind,
    LocalNode,
    Op,
    OpKind,
    Receipt,
    RemotePath,
    Revision,
    content_type_of,
    is_below,
    join,
    name_of,
    parent_of,
)
from fsmount.ports import Cache, Clock, EventLog, KernelCache, Remote, Spool
from fsmount.vfs.contents import Contents
from fsmount.vfs.files import Files, copy
from fsmount.vfs.inodes import Node
from fsmount.vfs.listings import Listings
from fsmount.vfs.overlay import Ledger
from fsmount.vfs.shown import AtRemote, Shown, Unsent
from fsmount.vfs.tree import Tree

OWN = 20_000
"""Paths whose last own revision is remembered, so that its echo in the feed is recognised."""


class Filesystem:
    """The mount in domain terms. ``tree`` finds nodes, ``files`` has the handles; this has the verbs on names."""

    def __init__(
        self, config: Config, ledger: Ledger, spool: Spool, cache: Cache, remote: Remote, connection: Connection,
        kernel: KernelCache, clock: Clock, log: EventLog,
    ) -> None:  # fmt: skip
        self._config = config
        self._ledger = ledger
        self._spool = spool
        self._cache = cache
        self._remote = remote
        self._kernel = kernel
        self._clock = clock
        self._log = log
        self.listings = Listings(remote, connection, clock, config.attr_ttl)
        self.contents = Contents(remote, cache, connection, log)
        self.tree = Tree(config, ledger, self.listings, self.contents, spool, clock)
        self.files = Files(self.tree, ledger, spool, clock, log)
        self._unexplained: dict[RemotePath, Change] = {}
        self._own: OrderedDict[RemotePath, Revision | None] = OrderedDict()

    # making

    async def create(
        self, parent: Node, name: str, *, mode: int, uid: int, gid: int, exclusive: bool
    ) -> tuple[Node, int]:
        """A new empty file and a handle on it; an existing one is opened (EEXIST if ``exclusive``)."""
        self._writable()
        node = await self.tree.find(parent, name)
        if node is not None:
            if exclusive:
                raise FileError(errno.EEXIST, name)
            number, _ = await self.files.open(node, writable=True, truncate=False)
            return node, number
        self._standing(parent)
        path = join(self.tree.path(parent), name)
        listing = self.listings.held(parent_of(path))
        local = self.tree.overlay.is_litter(path, listing) if listing is not None else False
        node = self.tree.inodes.node(parent, name, Kind.FILE)
        node.shown = self._new(Kind.FILE, path, mode, uid, gid, local=local)
        number = self.files.create(node, self._ledger.inherited(path) or ABSENT, local=local)
        self._touch_parent(parent)
        return node, number

    def _new(self, kind: Kind, path: RemotePath, mode: int, uid: int, gid: int, *, local: bool = False) -> Shown:
        """The attributes of a new name, kept where they are not what the mount gives by itself."""
        now = self._clock.now()
        default = (0o777 if kind is Kind.DIRECTORY else 0o666) & ~self._config.umask
        if kind is Kind.DIRECTORY or (mode, uid, gid) != (default, self._config.uid, self._config.gid):
            self._ledger.keep(
                LocalNode(
                    path=path, kind=kind if kind is Kind.DIRECTORY else None, mode=mode, uid=uid, gid=gid, mtime=now
                )
            )
        return Shown(kind=kind, size=0, mode=mode, uid=uid, gid=gid, mtime=now, local=local)

    async def mkdir(self, parent: Node, name: str, *, mode: int, uid: int, gid: int) -> Node:
        """A directory that this mount keeps until it is removed; the remote learns of it with its first file."""
        self._writable()
        if await self.tree.find(parent, name) is not None:
            raise FileError(errno.EEXIST, name)
        self._standing(parent)
        path = join(self.tree.path(parent), name)
        self._ledger.cancel_rmdir(path)
        node = self.tree.inodes.node(parent, name, Kind.DIRECTORY)
        node.shown = self._new(Kind.DIRECTORY, path, mode, uid, gid)
        self._touch_parent(parent)
        return node

    # removing

    async def unlink(self, parent: Node, name: str) -> None:
        """Removes the name here at once and queues a delete at its base."""
        self._writable()
        node = await self.tree.existing(parent, name)
        if node.kind is Kind.DIRECTORY:
            raise FileError(errno.EISDIR, name)
        await self.files.keep_for_readers(node)
        self._remove(node)
        self._touch_parent(parent)

    def _remove(self, node: Node, *, settle: float | None = None) -> None:
        path, shown = self.tree.path(node), node.shown
        local = (node.draft is not None and node.draft.local) or (shown is not None and shown.local)
        self._keep_directory(parent_of(path))
        self.files.unlink(node)
        if local:
            self._ledger.forget(path)
        else:
            self._ledger.delete(path, shown.base if shown is not None else ABSENT, settle=settle)
        self.listings.touched(path)
        self.tree.inodes.detach(node)

    def _keep_directory(self, path: RemotePath) -> None:
        """A directory stays when its last file goes, although the remote forgets it: a program removes it when it wants to."""
        node = self._ledger.node(path)
        if path != self._config.remote.root and (node is None or node.kind is None):
            self._ledger.keep(replace(node or LocalNode(path=path), kind=Kind.DIRECTORY))

    async def rmdir(self, parent: Node, name: str) -> None:
        """Removes an empty directory; where the remote has files below whose deletes are under way, an rmdir waits for them."""
        self._writable()
        node = await self.tree.existing(parent, name)
        if node.kind is not Kind.DIRECTORY:
            raise FileError(errno.ENOTDIR, name)
        if await self.tree.children(node):
            raise FileError(errno.ENOTEMPTY, name)
        path = self.tree.path(node)
        self._ledger.forget(path)
        if self.listings.entry(path) is not None:
            self._ledger.rmdir(path)
        self.listings.touched(path)
        self.tree.inodes.detach(node)
        self._touch_parent(parent)

    # renaming

    async def rename(self, parent: Node, name: str, to_parent: Node, to_name: str, *, replace_target: bool) -> None:
        """Another name for a file; whatever file stood there is replaced. EXDEV for a directory that holds anything, so that ``mv`` copies it."""
        self._writable()
        node = await self.tree.existing(parent, name)
        target = await self.tree.find(to_parent, to_name)
        self._standing(to_parent)
        if target is not None and not replace_target:
            raise FileError(errno.EEXIST, to_name)
        if target is node:
            return
        if node.kind is Kind.DIRECTORY:
            await self._rename_directory(node, target, to_parent, to_name)
        else:
            await self._rename_file(node, target, to_parent, to_name)
        self._touch_parent(parent)
        self._touch_parent(to_parent)

    async def _rename_directory(self, node: Node, target: Node | None, parent: Node, name: str) -> None:
        old, new = self.tree.path(node), join(self.tree.path(parent), name)
        if is_below(new, old):
            raise FileError(errno.EINVAL, f"{new} lies below {old}")
        if target is not None and target.kind is not Kind.DIRECTORY:
            raise FileError(errno.ENOTDIR, name)
        if target is not None and await self.tree.children(target):
            raise FileError(errno.ENOTEMPTY, name)
        if await self.tree.children(node) or self.listings.entry(old) is not None:
            raise FileError(errno.EXDEV, f"{old} holds files: they are copied and removed one by one")
        kept = self._ledger.node(old) or LocalNode(path=old)
        self._ledger.forget(old)
        self._ledger.cancel_rmdir(new)
        self._ledger.keep(replace(kept, path=new, kind=Kind.DIRECTORY))
        self.tree.inodes.move(node, parent, name)

    async def _rename_file(self, node: Node, target: Node | None, parent: Node, name: str) -> None:
        new = join(self.tree.path(parent), name)
        if target is not None:
            if target.kind is Kind.DIRECTORY:
                raise FileError(errno.EISDIR, name)
            await self.files.keep_for_readers(target)
        listing = await self.tree.listing(parent)
        local = (node.draft is not None and node.draft.local) or (node.shown is not None and node.shown.local)
        becomes_local = self.tree.overlay.is_litter(new, listing) and (target is None or self._is_local(target))
        if becomes_local and not local:
            await self._to_litter(node, target, parent, name)
        elif local and becomes_local:
            self._litter_to_litter(node, target, parent, name)
        elif local:
            self._from_litter(node, target, parent, name)
        else:
            self._readdress(node, target, parent, name)
        self.listings.touched(new)

    def _is_local(self, node: Node) -> bool:
        return node.draft.local if node.draft is not None else node.shown is not None and node.shown.local

    def _replace(self, target: Node | None) -> Base:
        """The target's name is taken over: its handles keep their bytes. Returns what the remote is known to hold there."""
        if target is None:
            return ABSENT
        base = target.shown.base if target.shown is not None else ABSENT
        path = self.tree.path(target)
        self.files.unlink(target)
        if self._is_local(target):
            self._ledger.forget(path)
        self.tree.inodes.detach(target)
        return base

    def _readdress(self, node: Node, target: Node | None, parent: Node, name: str) -> None:
        old, new = self.tree.path(node), join(self.tree.path(parent), name)
        self._keep_directory(parent_of(old))
        base = self._replace(target)
        inherited = self._ledger.inherited(new)
        self._ledger.rename(old, new, node.shown.base if node.shown is not None else ABSENT, base)
        draft = node.draft
        if draft is not None and not draft.journalled:
            self._ledger.move_draft(draft.draft.draft_id, new, base if inherited is None else inherited)
        self.listings.touched(old)
        self.tree.inodes.move(node, parent, name)
        if draft is None or draft.journalled:
            self._look_again(node, parent, name)
        elif node.shown is not None:
            node.shown = replace(node.shown, base=base if inherited is None else inherited)

    def _look_again(self, node: Node, parent: Node, name: str) -> None:
        listing = self.listings.held(self.tree.path(parent))
        if listing is not None:
            size = node.shown.size if node.shown is not None else None
            shown = self.tree.overlay.look(self.tree.path(parent), name, listing)
            if shown is not None:
                self.tree.show(node, shown if shown.size is not None else replace(shown, size=size))

    async def _to_litter(self, node: Node, target: Node | None, parent: Node, name: str) -> None:
        """A file becomes an editor's backup: its bytes come here first, and the delete of the old name waits for a new file there."""
        await self.files.journal(node)
        body = await self._bring(node)
        old, new = self.tree.path(node), join(self.tree.path(parent), name)
        kept = self._ledger.node(old) or LocalNode(path=old)
        shown = node.shown
        self._replace(target)
        self._remove(node, settle=self._config.litter_delete_settle)
        mtime = shown.mtime if shown is not None else self._clock.now()
        self._ledger.keep(
            LocalNode(path=new, kind=Kind.FILE, mode=kept.mode, uid=kept.uid, gid=kept.gid, mtime=mtime, body=body)
        )
        self.tree.inodes.adopt(node, parent, name)
        if shown is not None:
            self.tree.show(
                node, replace(shown, content=Unsent(body), base=ABSENT, local=True, op_id=None, size=body.size)
            )

    async def _bring(self, node: Node) -> Body:
        """A copy of the file's bytes in a spool draft that the journal knows as litter."""
        shown = node.shown
        draft = self._spool.create()
        try:
            if node.draft is not None:
                await copy(node.draft.draft, draft)
            elif shown is not None and isinstance(shown.content, Unsent):
                source = self._spool.open(shown.content.body)
                await copy(source, draft)
                source.close()
            elif shown is not None and isinstance(shown.content, AtRemote):
                await self.contents.copy(shown.content.path, shown.content.revision, draft)
            return await trio.to_thread.run_sync(lambda: draft.body)
        except BaseException:
            self._spool.remove(Body(size=0, digest=None, draft=draft.draft_id))
            raise
        finally:
            draft.close()

    def _litter_to_litter(self, node: Node, target: Node | None, parent: Node, name: str) -> None:
        old, new = self.tree.path(node), join(self.tree.path(parent), name)
        kept = self._ledger.node(old)
        self._replace(target)
        if kept is not None:
            self._ledger.keep(replace(kept, path=new))
            self._ledger.forget(old)
        if node.draft is not None:
            self._ledger.move_draft(node.draft.draft.draft_id, new, ABSENT)
        self.tree.inodes.move(node, parent, name)

    def _from_litter(self, node: Node, target: Node | None, parent: Node, name: str) -> None:
        """A temporary takes a real name: its bytes are a put there."""
        old, new = self.tree.path(node), join(self.tree.path(parent), name)
        kept = self._ledger.node(old)
        shown = node.shown
        base = self._replace(target)
        draft = node.draft
        if draft is not None:
            draft.local = False
            self._ledger.adopt_draft(draft.draft.draft_id, new, self._ledger.inherited(new) or base)
        body = draft.draft.body if draft is not None else kept.body if kept is not None else None
        mtime = draft.mtime if draft is not None else shown.mtime if shown is not None else self._clock.now()
        if kept is not None:
            self._ledger.keep(LocalNode(path=new, mode=kept.mode, uid=kept.uid, gid=kept.gid, mtime=mtime))
        if body is not None and not (draft is not None and draft.dirty):
            self._ledger.put(
                None if draft is None else draft.draft.draft_id, new, base, body, content_type=content_type_of(new), mtime=mtime,
                still_open=draft is not None,
            )  # fmt: skip
            if draft is not None:
                draft.journalled = True
        self._ledger.forget(old)
        self.tree.inodes.move(node, parent, name)
        if shown is not None:
            node.shown = replace(shown, base=self._ledger.inherited(new) or base, local=False)
        self._look_again(node, parent, name)

    # attributes

    async def setattr(
        self, node: Node, *, mode: int | None = None, uid: int | None = None, gid: int | None = None, mtime: float | None = None,
        size: int | None = None, handle: int | None = None,
    ) -> Attr:  # fmt: skip
        """Changes what is given. Size is content; the rest is kept by this mount and makes no op."""
        if size is not None:
            self._writable()
            if node.kind is Kind.DIRECTORY:
                raise FileError(errno.EISDIR, node.name)
            await self.files.truncate(node, size, handle)
        if (mode, uid, gid, mtime) != (None, None, None, None):
            self._keep_attributes(node, mode, uid, gid, mtime)
        return await self.tree.attr(node)

    def _keep_attributes(
        self, node: Node, mode: int | None, uid: int | None, gid: int | None, mtime: float | None
    ) -> None:
        shown = node.shown or self.tree.overlay.root()
        changed = {
            key: value
            for key, value in (("mode", mode), ("uid", uid), ("gid", gid), ("mtime", mtime))
            if value is not None
        }
        if not node.detached:
            path = self.tree.path(node)
            kept = self._ledger.node(path) or LocalNode(
                path=path, kind=Kind.DIRECTORY if node.kind is Kind.DIRECTORY else None
            )
            revision = (
                shown.content.revision
                if isinstance(shown.content, AtRemote) and mtime is not None
                else kept.mtime_revision
            )
            self._ledger.keep(
                replace(kept, **changed, mtime_revision=revision if isinstance(shown.content, AtRemote) else None)
            )
        node.shown = replace(shown, **changed)
        if mtime is not None and node.draft is not None:
            node.draft.mtime = mtime

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
                parent.shown = replace(parent.shown, mtime=now)

    def _writable(self) -> None:
        if self._config.read_only or self.files.closing:
            raise FileError(
                errno.EROFS, "the mount is read-only" if self._config.read_only else "the mount is being unmounted"
            )

    def _standing(self, directory: Node) -> None:
        """After the checks that may have waited: nothing is made in a directory that was removed meanwhile."""
        if directory.detached:
            raise FileError(errno.ENOENT, directory.name)

    def check_open(self, writable: bool) -> None:
        """Raises FileError EROFS for a writer on a mount that takes no writes."""
        if writable:
            self._writable()

    def durable(self) -> None:
        """Puts the journal on the disk; blocks: call it in a thread."""
        self._ledger.durable()

    async def settle_drafts(self) -> None:
        """At the end: whatever is written and not yet journalled is journalled."""
        for node in self.tree.drafts():
            await self.files.journal(node)

    # what the uploader reports (ports.Overlay)

    def freeze(self, draft_id: DraftId) -> Body | None:
        return self.files.freeze(draft_id)

    def acknowledged(self, op: Op, receipt: Receipt) -> None:
        if op.kind is OpKind.RMDIR:
            self.listings.outdated(join(op.path, "x"))
            self.listings.outdated(op.path)
            return
        if op.kind is not OpKind.PUT:
            self._delivered(op.path, None)
        if op.kind is not OpKind.DELETE and receipt.revision is not None:
            self._arrived(op, receipt)

    def _arrived(self, op: Op, receipt: Receipt) -> None:
        path, node = op.target, self._ledger.node(op.target)
        size = op.body.size if op.body is not None else None
        if size is None and op.base.revision is not None:
            size = self.contents.known_size(op.path, op.base.revision)
        entry = Entry(
            path=path, kind=Kind.FILE, size=size, mtime=node.mtime if node is not None and node.mtime is not None else self._clock.now(),
            revision=receipt.revision, digest=receipt.digest, content_type=op.content_type,
        )  # fmt: skip
        if op.body is not None and receipt.revision is not None:
            self._adopt(path, op.body, receipt)
        self._delivered(path, entry)

    def _adopt(self, path: RemotePath, body: Body, receipt: Receipt) -> None:
        try:
            source = self._spool.open(body)
        except OSError:
            return
        try:
            assert receipt.revision is not None
            self._cache.adopt(path, receipt.revision, body, source)
        finally:
            source.close()

    def _delivered(self, path: RemotePath, entry: Entry | None) -> None:
        self.tree.delivered(path, entry)
        self._own[path] = None if entry is None else entry.revision
        self._own.move_to_end(path)
        if len(self._own) > OWN:
            self._own.popitem(last=False)
        self._explain(path, None if entry is None else entry.revision)

    def changed(self, op: Op) -> None:
        for path in {op.path, op.target}:
            self._explain(path, None)
            self._outdated(path)

    # what the feed reports

    def remote_changed(self, change: Change) -> None:
        """The feed says that a file stands at a revision. What we know already (our own echo) is nothing new."""
        if change.path in self._own and self._own[change.path] == change.revision:
            return
        entry = self.listings.entry(change.path)
        if entry is not None and entry.revision == change.revision:
            return
        record = self._ledger.shown(change.path)
        if record is not None and record.state == "sending":
            self._unexplained[change.path] = change
            return
        self._outdated(change.path, gone=change.revision is None)

    def _explain(self, path: RemotePath, revision: str | None) -> None:
        """An op on ``path`` is settled: what the feed said meanwhile was its echo, or somebody else's change."""
        change = self._unexplained.pop(path, None)
        if change is not None and change.revision != revision:
            self._outdated(path)

    def missed(self) -> None:
        """The feed may have lost changes: everything is looked at again."""
        self.listings.expire()
        for node in self.tree.inodes.all():
            self._kernel.attributes_changed(node.ino)
            if node.parent is not None and not node.detached:
                self._kernel.entry_changed(node.parent.ino, node.name)

    def _outdated(self, path: RemotePath, *, gone: bool = True) -> None:
        """What stands at ``path`` is unknown. A directory that may have gone keeps its name in the kernel, for the sake of
        those who work in it: their next look at its attributes tells."""
        _, *above = self.listings.outdated(path, gone=gone)
        self._tell_kernel(path)
        for directory in above:
            node = self.tree.inodes.find(directory)
            if node is not None:
                self._kernel.attributes_changed(node.ino)

    def _tell_kernel(self, path: RemotePath) -> None:
        """Drops what the kernel knows of the path, and of the nearest directory above it that it knows."""
        node = self.tree.inodes.find(path)
        if node is not None and node.parent is not None:
            if node.handles or node.draft is not None:
                self._kernel.attributes_changed(node.ino)
            else:
                self._kernel.content_changed(node.ino)
            self._kernel.entry_changed(node.parent.ino, node.name)
            return
        while path != self._config.remote.root and path != "/":
            parent = self.tree.inodes.find(parent_of(path))
            if parent is not None:
                self._kernel.entry_changed(parent.ino, name_of(path))
                return
            path = parent_of(path)
