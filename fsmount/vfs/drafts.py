"""How a file comes to have a draft, and where its local bytes are.

Invariant: the journal knows a draft before its first byte, and a draft that stands holds the whole base: one that could
not be filled is forgotten. The caller holds ``node.busy``.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from fsmount.errors import FileError
from fsmount.model import ABSENT, Base, Body, Kind, RemotePath
from fsmount.ports import Clock, Draft, EventLog, KernelCache, Source, Spool
from fsmount.vfs.copying import copy
from fsmount.vfs.handles import OpenDraft
from fsmount.vfs.inodes import Node
from fsmount.vfs.overlay import Ledger
from fsmount.vfs.shown import AtRemote, Shown, Unsent
from fsmount.vfs.tree import Tree


class Drafts:
    """Begins, fills and replaces the drafts of nodes."""

    def __init__(
        self, tree: Tree, ledger: Ledger, spool: Spool, kernel: KernelCache, clock: Clock, log: EventLog
    ) -> None:  # fmt: skip
        self._tree = tree
        self._ledger = ledger
        self._spool = spool
        self._kernel = kernel
        self._clock = clock
        self._log = log

    def begin(self, node: Node, base: Base, *, local: bool) -> OpenDraft:
        """A new draft file, known to the journal before its first byte; a file without a name has none there."""
        draft = OpenDraft(self._spool.create(), local=local, mtime=self._clock.now())
        if node.detached:
            self._spool.remove(Body(size=0, digest=None, draft=draft.draft.draft_id))
        else:
            self._ledger.begin_draft(draft.draft.draft_id, self._tree.path(node), base, local=local)
        return draft

    def stand(self, node: Node, draft: OpenDraft) -> None:
        """From now on the node is what the draft holds."""
        node.draft = draft
        node.kept = None
        self._tree.writing(node)

    async def start(self, node: Node, *, empty: bool) -> OpenDraft:
        """Begins the draft of an existing file: the whole base first, unless it is cut to nothing."""
        shown = node.shown
        if shown is None:
            raise FileError(errno.ESTALE, node.name)
        self._reclaim(node)
        path = self._tree.path(node)
        base = self._ledger.inherited(path)
        draft = self.begin(node, shown.base if base is None else base, local=shown.local)
        with self._undone(draft):
            if not empty:
                await self._fill(node, shown, draft.draft)
            self._reclaim(node)
        if node.detached:
            # It lost its name meanwhile: nothing of it is recovered.
            self._ledger.end_draft(draft.draft.draft_id)
        self._follow(node, path, draft)
        self.stand(node, draft)
        return draft

    async def replace_frozen(self, node: Node, old: OpenDraft, *, empty: bool) -> OpenDraft:
        """The draft's op is being sent: its bytes are copied, and the copy is written instead."""
        path = self._tree.path(node)
        inherited = self._ledger.inherited(path)
        base = inherited if inherited is not None else node.shown.base if node.shown is not None else ABSENT
        draft = self.begin(node, base, local=old.local)
        with self._undone(draft):
            if not empty:
                await copy(old.draft, draft.draft)
        draft.writers = old.writers
        self._follow(node, path, draft)
        self.stand(node, draft)
        self._ledger.end_draft((draft if node.detached else old).draft.draft_id)
        old.draft.close()
        return draft

    def _follow(self, node: Node, path: RemotePath, draft: OpenDraft) -> None:
        """The file may have got another name while its draft was filled."""
        now = self._tree.path(node)
        if now == path or node.detached:
            return
        inherited = self._ledger.inherited(now)
        base = inherited if inherited is not None else node.shown.base if node.shown is not None else ABSENT
        self._ledger.move_draft(draft.draft.draft_id, now, base)

    @contextmanager
    def _undone(self, draft: OpenDraft) -> Iterator[None]:
        """A draft that could not be filled is forgotten, whatever the reason."""
        try:
            yield
        except BaseException:
            self._ledger.end_draft(draft.draft.draft_id)
            draft.draft.close()
            raise

    def _reclaim(self, node: Node) -> None:
        """What is written to a file that the remote has replaced since it was opened still goes to its name, from the
        revision that was opened, and so meets the other version as a conflict. Raises FileError ESTALE where that
        version is being written here already.
        """
        if not node.overtaken or node.parent is None:
            return
        other = self._tree.inodes.known(node.parent, node.name)
        if node.parent.detached or (other is not None and (other.draft is not None or other.kind is not Kind.FILE)):
            raise self.changed_elsewhere(node)
        self._tree.inodes.adopt(node, node.parent, node.name)
        self._kernel.entry_changed(node.parent.ino, node.name)

    async def _fill(self, node: Node, shown: Shown, draft: Draft) -> None:
        if node.orphan is not None:
            await copy(node.orphan, draft)
        elif isinstance(shown.content, Unsent):
            await copy(await self.unsent(node, shown.content.body), draft)
        elif isinstance(shown.content, AtRemote):
            await self._tree.fetched(node, shown.content, lambda at: self._tree.contents.copy(at, draft))

    async def unsent(self, node: Node, body: Body) -> Source:
        """The body's bytes; looked for again where it was sealed or delivered since the node was last looked at."""
        if node.source is None:
            try:
                node.source = self._spool.open(body)
            except FileNotFoundError:
                await self._tree.refresh(node)
                content = node.shown.content if node.shown is not None else None
                if not isinstance(content, Unsent) or content.body == body:
                    raise FileError(
                        errno.ESTALE, f"{self._tree.path(node)}: delivered while it was opened; open it again"
                    ) from None
                node.source = self._spool.open(content.body)
        return node.source

    async def keep_for_readers(self, node: Node) -> None:
        """Before an open file is removed or replaced: its bytes are brought here, so that its handles read on."""
        shown = node.shown
        if not node.handles or node.draft is not None or node.orphan is not None or shown is None:
            return
        draft = self._spool.create()
        try:
            await self._fill(node, shown, draft)
            node.orphan = draft
        except Exception as error:  # noqa: BLE001 - the removal goes on; those handles will get ESTALE
            path = self._tree.path(node)
            self._log.note("file.unread", f"removed while open, and not readable any more: {error}", path=path)
        finally:
            if node.orphan is not draft:
                draft.close()
            self._spool.remove(Body(size=0, digest=None, draft=draft.draft_id))

    def changed_elsewhere(self, node: Node) -> FileError:
        """The error for an inode that stands for a version which is no longer the file's; its name has another now."""
        return FileError(errno.ESTALE, f"{self._tree.path(node)}: changed elsewhere while it is open here")
