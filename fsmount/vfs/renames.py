"""Names that are taken away or given anew: what becomes of the journal, the nodes and the files that stay on this
mount.

Invariant: every change is one synchronous stretch over journal, nodes and listings; bytes that it needs from the remote
are brought here before. Litter never becomes an op by itself, and leaves this mount only under another name.
"""

from __future__ import annotations

import errno

import trio
from msgspec.structs import replace

from fsmount.config import Config
from fsmount.errors import FileError
from fsmount.model import ABSENT, Base, Body, Kind, LocalNode, RemotePath, content_type_of, is_below, join, parent_of
from fsmount.ports import Clock, Spool
from fsmount.vfs.copying import copy
from fsmount.vfs.files import Files
from fsmount.vfs.inodes import Node
from fsmount.vfs.overlay import Ledger
from fsmount.vfs.shown import AtRemote, Unsent
from fsmount.vfs.tree import Tree


class Renames:
    """The verbs on names, once ``Filesystem`` has looked up the nodes and checked what may be done."""

    def __init__(self, config: Config, ledger: Ledger, spool: Spool, clock: Clock, tree: Tree, files: Files) -> None:
        self._config = config
        self._ledger = ledger
        self._spool = spool
        self._clock = clock
        self._tree = tree
        self._files = files

    # removing

    def remove(self, node: Node, *, settle: float | None = None) -> None:
        path, shown, local = self._tree.path(node), node.shown, self._tree.is_local(node)
        self.keep_directory(parent_of(path))
        self._files.unlink(node)
        if local:
            self._ledger.forget(path)
        else:
            self._ledger.delete(path, shown.base if shown is not None else ABSENT, settle=settle)
        self._tree.listings.touched(path)
        self._tree.inodes.detach(node)

    def keep_directory(self, path: RemotePath) -> None:
        """A directory stays when its last file goes, although the remote forgets it: a program removes it when it wants
        to.
        """
        node = self._ledger.node(path)
        if path != self._config.remote.root and (node is None or node.kind is None):
            self._ledger.keep(replace(node or LocalNode(path=path), kind=Kind.DIRECTORY))

    # directories and files

    async def directory(self, node: Node, target: Node | None, parent: Node, name: str) -> None:
        old, new = self._tree.path(node), join(self._tree.path(parent), name)
        if is_below(new, old):
            raise FileError(errno.EINVAL, f"{new} lies below {old}")
        if target is not None and target.kind is not Kind.DIRECTORY:
            raise FileError(errno.ENOTDIR, name)
        if target is not None and await self._tree.children(target):
            raise FileError(errno.ENOTEMPTY, name)
        if (
            await self._tree.children(node)
            or self._tree.listings.entry(old) is not None
            or self._ledger.shown_below(old)
        ):
            raise FileError(errno.EXDEV, f"{old} holds files: they are copied and removed one by one")
        kept = self._ledger.node(old) or LocalNode(path=old)
        self._ledger.forget(old)
        self._ledger.cancel_rmdir(new)
        self._ledger.keep(replace(kept, path=new, kind=Kind.DIRECTORY))
        self._tree.inodes.move(node, parent, name)

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
        if node.detached or parent.detached or (target is not None and target.detached):
            if body is not None:
                self._spool.remove(body)
            raise FileError(errno.ESTALE, f"{new}: changed elsewhere while it was renamed")
        with self._ledger.transaction():
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
        self.keep_directory(parent_of(old))
        base = self._replace(target)
        inherited = self._ledger.inherited(new)
        self._ledger.rename(old, new, node.shown.base if node.shown is not None else ABSENT, base)
        draft = node.draft
        if draft is not None and not draft.journalled:
            self._ledger.move_draft(draft.draft.draft_id, new, base if inherited is None else inherited)
        self._tree.listings.touched(old)
        self._tree.inodes.move(node, parent, name)
        if draft is None or draft.journalled:
            self._look_again(node, parent, name)
        elif node.shown is not None:
            node.shown = replace(node.shown, base=base if inherited is None else inherited)

    def _look_again(self, node: Node, parent: Node, name: str) -> None:
        size = node.shown.size if node.shown is not None else None
        shown = self._tree.look(parent, name)
        if shown is not None:
            self._tree.show(node, shown if shown.size is not None else replace(shown, size=size))

    def _to_litter(self, node: Node, target: Node | None, parent: Node, name: str, body: Body) -> None:
        """A file becomes an editor's backup, whose bytes are here by now; the delete of the old name waits for a new
        file there.
        """
        old, new = self._tree.path(node), join(self._tree.path(parent), name)
        kept = self._ledger.node(old) or LocalNode(path=old)
        shown = node.shown
        self._replace(target)
        self.remove(node, settle=self._config.litter_delete_settle)
        mtime = shown.mtime if shown is not None else self._clock.now()
        self._ledger.keep(
            LocalNode(path=new, kind=Kind.FILE, mode=kept.mode, uid=kept.uid, gid=kept.gid, mtime=mtime, body=body)
        )
        self._tree.inodes.adopt(node, parent, name)
        self._files.keep_here(node)
        if shown is not None:
            self._tree.show(
                node, replace(shown, content=Unsent(body), base=ABSENT, local=True, op_id=None, size=body.size)
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
                await self._tree.contents.copy(shown.content, draft)
            return await trio.to_thread.run_sync(lambda: draft.body)
        except BaseException:
            self._spool.remove(Body(size=0, digest=None, draft=draft.draft_id))
            raise
        finally:
            draft.close()

    def _litter_to_litter(self, node: Node, target: Node | None, parent: Node, name: str) -> None:
        old, new = self._tree.path(node), join(self._tree.path(parent), name)
        kept = self._ledger.node(old)
        self._replace(target)
        if kept is not None:
            self._ledger.keep(replace(kept, path=new))
            self._ledger.forget(old)
        if node.draft is not None:
            self._ledger.move_draft(node.draft.draft.draft_id, new, ABSENT)
        self._tree.inodes.move(node, parent, name)

    def _from_litter(self, node: Node, target: Node | None, parent: Node, name: str) -> None:
        """A temporary takes a real name: its bytes are a put there."""
        old, new = self._tree.path(node), join(self._tree.path(parent), name)
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
                None if draft is None else draft.draft.draft_id, new, base, body, content_type=content_type_of(new),
                mtime=mtime,
                still_open=draft is not None,
            )  # fmt: skip
            if draft is not None:
                draft.journalled = True
        self._ledger.forget(old)
        self._tree.inodes.move(node, parent, name)
        if shown is not None:
            node.shown = replace(shown, base=self._ledger.inherited(new) or base, local=False)
        self._look_again(node, parent, name)
