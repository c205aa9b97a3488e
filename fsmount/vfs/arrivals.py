"""What the uploader and the change feed report: our own changes that arrived, and other people's.

Invariant: implements ports.Overlay; nothing here is a checkpoint. Our own change is recognised by its revision, however
late its echo comes, and never moves a known revision back.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress

import trio

from fsmount.config import Config
from fsmount.model import (
    ROOT,
    Body,
    Change,
    DraftId,
    Entry,
    Kind,
    Op,
    OpKind,
    Receipt,
    RemotePath,
    Revision,
    is_below,
    join,
    name_of,
    parent_of,
)
from fsmount.ports import Clock, Details, EventLog, KernelCache, Source, Spool
from fsmount.vfs.files import Files
from fsmount.vfs.followed import Followed
from fsmount.vfs.overlay import Ledger
from fsmount.vfs.shown import AtRemote
from fsmount.vfs.tree import Tree, can_hold

OWN = 20_000
"""Paths whose last own revision is remembered, so that its echo in the feed is recognised."""
ADOPTING = 512
"""Bodies that wait to be stored in the cache, each with a descriptor; others are fetched when they are read."""


class Arrivals:
    """Brings the tree, the cache and the kernel up to what is reported."""

    def __init__(
        self, config: Config, ledger: Ledger, spool: Spool, kernel: KernelCache, clock: Clock, log: EventLog,
        tree: Tree, files: Files,
    ) -> None:  # fmt: skip
        self._config = config
        self._ledger = ledger
        self._spool = spool
        self._kernel = kernel
        self._clock = clock
        self._log = log
        self._tree = tree
        self._files = files
        self._followed = Followed(ledger, tree, clock)
        self._unexplained: dict[RemotePath, Change] = {}
        self._adopting: list[tuple[AtRemote, Body, Source]] = []
        self._adopted = trio.Event()
        self._own: OrderedDict[RemotePath, Revision | None] = OrderedDict()

    # what the uploader reports

    def freeze(self, draft_id: DraftId) -> Body | None:
        return self._files.freeze(draft_id)

    def acknowledged(self, op: Op, receipt: Receipt) -> None:
        if op.kind is OpKind.RMDIR:
            self._tree.listings.outdated(join(op.path, "x"))
            self._tree.listings.outdated(op.path)
            return
        if op.kind is not OpKind.PUT:
            self._delivered(op, op.path, None)
        if op.kind is not OpKind.DELETE and receipt.revision is not None:
            self._arrived(op, receipt)

    def _arrived(self, op: Op, receipt: Receipt) -> None:
        path, node = op.target, self._ledger.node(op.target)
        size = op.body.size if op.body is not None else None
        if size is None and op.base.revision is not None:
            size = self._tree.contents.known_size(AtRemote(op.path, op.base.revision, op.base.digest))
        entry = Entry(
            path=path, kind=Kind.FILE, size=size,
            mtime=node.mtime if node is not None and node.mtime is not None else self._clock.now(),
            revision=receipt.revision, digest=receipt.digest, content_type=op.content_type,
        )  # fmt: skip
        if op.body is not None and receipt.revision is not None:
            self._adopt(AtRemote(path, receipt.revision, receipt.digest), op.body)
        self._delivered(op, path, entry)

    def _adopt(self, at: AtRemote, body: Body) -> None:
        """What was just acknowledged is opened now, before its body goes, and stored by ``run``."""
        if len(self._adopting) < ADOPTING:
            with suppress(OSError):
                self._adopting.append((at, body, self._spool.open(body)))
                self._adopted.set()

    async def run(self) -> None:
        """Stores in the cache what was acknowledged; in a thread, because making files takes long."""
        while True:
            await self._adopted.wait()
            self._adopted = trio.Event()
            adopting, self._adopting = self._adopting, []
            await trio.to_thread.run_sync(self._store, adopting)

    def _store(self, adopting: list[tuple[AtRemote, Body, Source]]) -> None:
        for at, body, source in adopting:
            self._tree.contents.adopt(at, body, source)
            source.close()

    def _delivered(self, op: Op, path: RemotePath, entry: Entry | None) -> None:
        self._tree.delivered(path, entry, op.op_id)
        self._own[path] = None if entry is None else entry.revision
        self._own.move_to_end(path)
        if len(self._own) > OWN:
            self._own.popitem(last=False)
        self._explain(path, None if entry is None else entry.revision)

    def changed(self, op: Op) -> None:
        self._tell_renamed(self._followed.came_back(op))
        for path in {op.path, op.target}:
            self._explain(path, None)
            self._outdated(path)

    # what the feed reports

    def remote_changed(self, change: Change) -> None:
        """The feed says that a file stands at a revision. Our own echo is nothing new; what a listing
        told before the feed did is only noted.
        """
        if change.path in self._own and self._own[change.path] == change.revision:
            return
        if change.revision is not None:
            self._tree.overlay.stands(change.path)
        if self._tell_renamed(self._followed.renamed(change)):
            self._note(change)
            return
        entry = self._tree.listings.entry(change.path)
        if entry is not None and entry.revision == change.revision:
            self._note(change)
            return
        record = self._ledger.shown(change.path)
        if record is not None and record.state == "sending":
            self._unexplained[change.path] = change
            return
        self._note(change)
        self._outdated(change.path, gone=change.revision is None)

    def _tell_renamed(self, names: tuple[RemotePath, RemotePath] | None) -> bool:
        """The remote gave a file another name: the kernel looks both up anew."""
        if names is None:
            return False
        for path in names:
            self._own.pop(path, None)
            self._unexplained.pop(path, None)
            self._tell_kernel(path)
        self._log.note("remote.changed", f"{names[0]} was renamed there", path=names[1], details=Details())
        return True

    def _explain(self, path: RemotePath, revision: str | None) -> None:
        """An op on ``path`` is settled: what the feed said meanwhile was its echo, or somebody else's change."""
        change = self._unexplained.pop(path, None)
        if change is not None and change.revision != revision:
            self._note(change)
            self._outdated(path)

    def _note(self, change: Change) -> None:
        event = "remote.deleted" if change.revision is None else "remote.changed"
        self._log.note(event, path=change.path, level="debug", details=Details(revision=change.revision))

    def missed(self, below: RemotePath = ROOT) -> None:
        """The feed may have lost changes: everything is looked at again that lies below that directory."""
        self._tree.listings.expire(below)
        for node in self._tree.inodes.all():
            if below != ROOT and not is_below(self._tree.path(node), below):
                continue
            self._kernel.attributes_changed(node.ino)
            if node.parent is not None and not node.detached:
                self._kernel.entry_changed(node.parent.ino, node.name)

    def refresh(self, path: RemotePath) -> None:
        """A person wants to see what stands at ``path`` and below it now."""
        self.missed(path)
        if path != ROOT:
            self._outdated(path)

    def _outdated(self, path: RemotePath, *, gone: bool = True) -> None:
        """What stands at ``path`` is unknown. A directory that may have gone keeps its name in the kernel, for the sake
        of
        those who work in it: their next look at its attributes tells."""
        _, *above = self._tree.listings.outdated(path, gone=gone)
        self._tell_kernel(path)
        for directory in above:
            node = self._tree.inodes.find(directory)
            if node is not None:
                self._kernel.attributes_changed(node.ino)

    def _tell_kernel(self, path: RemotePath) -> None:
        """Drops what the kernel knows of the path, and of the nearest directory above it that it knows."""
        node = self._tree.inodes.find(path)
        if node is not None and node.parent is not None:
            if node.handles or node.draft is not None:
                self._kernel.attributes_changed(node.ino)
            else:
                self._kernel.content_changed(node.ino)
            self._kernel.entry_changed(node.parent.ino, node.name)
            return
        while path not in {self._config.remote.root, ROOT}:
            parent = self._tree.inodes.find(parent_of(path))
            if parent is not None and not can_hold(parent, name_of(path)):
                return
            if parent is not None:
                self._kernel.entry_changed(parent.ino, name_of(path))
                return
            path = parent_of(path)
