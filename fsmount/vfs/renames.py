"""Names that are taken away or given anew: what becomes of the journal, the nodes and the files that stay on this
mount.

Invariant: every change is one synchronous stretch over journal, nodes and listings; bytes that it needs from the remote
are brought here before. Litter never becomes an op by itself, and leaves this mount only under another name.
"""

from __future__ import annotations

import errno

import trio

from fsmount.config import Config
from fsmount.errors import FileError
from fsmount.model import ABSENT, Base, Body, Kind, LocalNode, RemotePath, join, parent_of
from fsmount.ports import Clock, EventLog, Spool
from fsmount.vfs.copying import copy
from fsmount.vfs.files import Files
from fsmount.vfs.inodes import Node
from fsmount.vfs.keeping import keep_directory, keep_mtime
from fsmount.vfs.lasting import sync_what_replaces
from fsmount.vfs.overlay import Ledger
from fsmount.vfs.shown import AtRemote, Unsent, altered
from fsmount.vfs.tree import Tree
from fsmount.vfs.xattrs import content_type


class Renames:
    """The verbs on names, once ``Filesystem`` has looked up the nodes and checked what may be done."""

    def __init__(
        self, config: Config, ledger: Ledger, spool: Spool, clock: Clock, log: EventLog, tree: Tree, files: Files
    ) -> None:  # fmt: skip
        self._config = config
        self._ledger = ledger
        self._spool = spool
        self._clock = clock
        self._log = log
        self._tree = tree
        self._files = files

    # removing

    def remove(self, node: Node, *, settle: float | None = None, brake: int | None = None) -> None:
        """``brake``: the delete counts towards so many within a minute."""
        path, shown, local = self._tree.path(node), node.shown, self._tree.is_local(node)
        self._files.unlink(node)
        self.keep_directory(parent_of(path))
        if local:
            self._ledger.forget(path)
        else:
            self._ledger.delete(path, shown.base if shown is not None else ABSENT, settle=settle, brake=brake)
        self._tree.listings.touched(path)
        self._tree.inodes.detach(node)

    def keep_directory(self, path: RemotePath) -> None:
        """See ``keeping.keep_directory``."""
        keep_directory(self._ledger, self._config.remote.root, path)

    # links and files

    def link(self, node: Node, target: Node | None, parent: Node, name: str) -> None:
        """A symbolic link gets another name. It replaces a file only where the remote never had one."""
        old, new = self._tree.path(node), join(self._tree.path(parent), name)
        if target is not None and target.kind is Kind.DIRECTORY:
            raise FileError(errno.EISDIR, name)
        if target is not None and not self._tree.is_local(target) and not self._never_sent(new, target):
            message = f"{old} is a symbolic link, which the remote cannot hold: it does not replace a file there"
            self._log.note("rename.refused", f"{message}; remove {new} first", path=new, level="warning")
            raise FileError(errno.EPERM, message)
        with self._ledger.transaction():
            self.keep_directory(parent_of(old))
            if target is not None:
                self.remove(target)
            self._ledger.rename_nodes(old, new)
        self._tree.inodes.move(node, parent, name)

    def _never_sent(self, path: RemotePath, target: Node) -> bool:
        base = self._ledger.inherited(path) or (target.shown.base if target.shown is not None else ABSENT)
        return base.absent and self._tree.listings.entry(path) is None

    async def file(self, node: Node, target: Node | None, parent: Node, name: str) -> None:
        new = join(self._tree.path(parent), name)
        if target is not None:
            if target.kind is Kind.DIRECTORY:
                raise FileError(errno.EISDIR, name)
            await self._files.drafts.keep_for_readers(target)
        local = self._tree.is_local(node)
        becomes_local = self._tree.overlay.is_litter(new, self._tree.held(parent)) and (
            target is None or self._tree.is_local(target)
        )
        body = await self._brought(node) if becomes_local and not local else None
        brings = body or _own_bytes(node)
        if target is not None and brings is not None:
            await sync_what_replaces(self._ledger, self._spool, new, target.shown, brings)
        if node.detached or parent.detached or (target is not None and target.detached):
            if body is not None:
                self._spool.remove(body)
            raise FileError(errno.ESTALE, f"{new}: changed elsewhere while it was renamed")
        with self._ledger.transaction():
            self.keep_directory(parent_of(self._tree.path(node)))
            if becomes_local:
                self.keep_directory(self._tree.path(parent))
            if body is not None:
                self._to_litter(node, target, parent, name, body)
            elif local and becomes_local:
                self._litter_to_litter(node, target, parent, name)
            elif local:
                self._from_litter(node, target, parent, name)
            else:
                self._readdress(node, target, parent, name)
        self._tree.listings.touched(new)

    def _replace(self, target: Node | None) -> Base:
        """The target's name is taken over: its handles keep their bytes. Returns what the remote is known to hold
        there.
        """
        if target is None:
            return ABSENT
        base = target.shown.base if target.shown is not None else ABSENT
        path = self._tree.path(target)
        self._files.unlink(target)
        if self._tree.is_local(target):
            self._ledger.forget(path)
        self._tree.inodes.detach(target)
        return base

    def _readdress(self, node: Node, target: Node | None, parent: Node, name: str) -> None:
        old, new = self._tree.path(node), join(self._tree.path(parent), name)
        base = self._replace(target)
        inherited = self._ledger.inherited(new)
        self._ledger.rename(old, new, node.shown.base if node.shown is not None else ABSENT, base)
        keep_mtime(self._ledger, new, node.shown)
        draft = node.draft
        if draft is not None and not draft.journalled:
            self._ledger.move_draft(draft.draft.draft_id, new, base if inherited is None else inherited)
        self._tree.listings.touched(old)
        self._tree.inodes.move(node, parent, name)
        if draft is None or draft.journalled:
            self._tree.look_again(node)
        elif node.shown is not None:
            node.shown = altered(node.shown, base=base if inherited is None else inherited)

    def _to_litter(self, node: Node, target: Node | None, parent: Node, name: str, body: Body) -> None:
        """A file becomes an editor's backup, whose bytes are here by now; the delete of the old name waits for a new
        file there.
        """
        old, new = self._tree.path(node), join(self._tree.path(parent), name)
        kept = self._ledger.node(old) or LocalNode(path=old)
        shown, attributes = node.shown, self._ledger.xattrs(old)
        self._replace(target)
        self.remove(node, settle=self._config.litter_delete_settle)
        mtime = shown.mtime if shown is not None else self._clock.now()
        self._ledger.keep(
            LocalNode(path=new, kind=Kind.FILE, mode=kept.mode, uid=kept.uid, gid=kept.gid, mtime=mtime, body=body)
        )
        self._give_xattrs(new, attributes)
        self._tree.inodes.adopt(node, parent, name)
        self._files.keep_here(node)
        if shown is not None:
            self._tree.show(
                node, altered(shown, content=Unsent(body), base=ABSENT, local=True, op_id=None, size=body.size)
            )

    async def _brought(self, node: Node) -> Body:
        """A copy of the file's bytes in a spool draft, for the journal to know as litter."""
        await self._files.journal(node)
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
                await self._tree.fetched(node, shown.content, lambda at: self._tree.contents.copy(at, draft))
            body = await trio.to_thread.run_sync(lambda: draft.body)
            await sync_what_replaces(self._ledger, self._spool, self._tree.path(node), node.shown, body)
            return body
        except BaseException:
            self._spool.remove(Body(size=0, digest=None, draft=draft.draft_id))
            raise
        finally:
            draft.close()

    def _litter_to_litter(self, node: Node, target: Node | None, parent: Node, name: str) -> None:
        old, new = self._tree.path(node), join(self._tree.path(parent), name)
        self._replace(target)
        self._ledger.rename_nodes(old, new)
        if node.draft is not None:
            self._ledger.move_draft(node.draft.draft.draft_id, new, ABSENT)
        self._tree.inodes.move(node, parent, name)

    def _from_litter(self, node: Node, target: Node | None, parent: Node, name: str) -> None:
        """A temporary takes a real name: its bytes are a put there."""
        old, new = self._tree.path(node), join(self._tree.path(parent), name)
        kept = self._ledger.node(old)
        shown = node.shown
        base = self._replace(target)
        self._give_xattrs(new, self._ledger.xattrs(old))
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
                None if draft is None else draft.draft.draft_id, new, base, body,
                content_type=content_type(self._ledger, new), mtime=mtime, still_open=draft is not None,
            )  # fmt: skip
            if draft is not None:
                draft.journalled = True
        self._ledger.forget(old)
        self._tree.inodes.move(node, parent, name)
        if shown is not None:
            node.shown = altered(shown, base=self._ledger.inherited(new) or base, local=False)
        if draft is None or draft.journalled:
            self._tree.look_again(node)

    def _give_xattrs(self, path: RemotePath, attributes: dict[str, bytes]) -> None:
        """The file at ``path`` has these extended attributes and no others."""
        for name in self._ledger.xattrs(path).keys() - attributes.keys():
            self._ledger.keep_xattr(path, name, None)
        for name, value in attributes.items():
            self._ledger.keep_xattr(path, name, value)


def _own_bytes(node: Node) -> Body | None:
    """The bytes of a file that are here and not at the remote."""
    if node.draft is not None:
        return Body(size=node.draft.draft.size, digest=None, draft=node.draft.draft.draft_id)
    content = node.shown.content if node.shown is not None else None
    return content.body if isinstance(content, Unsent) else None
