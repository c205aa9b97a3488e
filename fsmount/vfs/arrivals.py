"""What the uploader and the change feed report: our own changes that arrived, and other people's.

Invariant: implements ports.Overlay; nothing here but ``run`` is a checkpoint. Our own change is recognised by its
revision and digest, however late its echo comes, and never moves a known revision back. What the kernel may have been
told is withdrawn (see ``promises``) in the same stretch in which the tree learns that it is true no longer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress

import trio

from fsmount.model import (
    ROOT,
    Body,
    Change,
    Digest,
    DraftId,
    Entry,
    Feed,
    Kind,
    Op,
    OpKind,
    Receipt,
    RemotePath,
    Revision,
    join,
)
from fsmount.ports import Clock, Details, EventLog, Source, Spool
from fsmount.render.escape import counted
from fsmount.vfs.files import Files
from fsmount.vfs.followed import Followed
from fsmount.vfs.inodes import Node
from fsmount.vfs.overlay import Ledger
from fsmount.vfs.promises import Promises
from fsmount.vfs.shown import AtRemote, altered
from fsmount.vfs.tree import Tree

OWN = 20_000
"""Paths whose last own revision is remembered, so that its echo in the feed is recognised."""
ADOPTING = 512
"""Bodies that wait to be stored in the cache, each with a descriptor; others are fetched when they are read."""


class Arrivals:
    """Brings the tree, the cache and the kernel up to what is reported."""

    def __init__(
        self, ledger: Ledger, spool: Spool, clock: Clock, log: EventLog, tree: Tree, files: Files, promises: Promises
    ) -> None:
        self._ledger = ledger
        self._spool = spool
        self._promises = promises
        self._clock = clock
        self._log = log
        self._tree = tree
        self._files = files
        self._followed = Followed(ledger, tree, clock)
        self._unexplained: dict[RemotePath, Change] = {}
        self._adopting: list[tuple[AtRemote, Body, Source]] = []
        self._adopted = trio.Event()
        self._own: OrderedDict[RemotePath, tuple[Revision | None, Digest | None]] = OrderedDict()

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
        if op.step and op.redrives:
            # Its new name was there long before: what stands there now is asked for.
            self._outdated(op.target, gone=False)
        elif op.kind is not OpKind.DELETE and receipt.revision is not None:
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
        """Does at leisure what the reports begin; does not return."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._promises.run)
            nursery.start_soon(self._store_adopted)

    async def _store_adopted(self) -> None:
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
        self._own[path] = (None, None) if entry is None else (entry.revision, entry.digest)
        self._own.move_to_end(path)
        if len(self._own) > OWN:
            self._own.popitem(last=False)
        self._explain(path, *((None, None) if entry is None else (entry.revision, entry.digest)))

    def changed(self, op: Op) -> None:
        self._tell_renamed(self._followed.came_back(op))
        for path in {op.path, op.target}:
            self._explain(path, None, None)
            self._outdated(path)

    # what the feed reports

    def feed_changed(self, before: Feed, now: Feed) -> None:
        """What was taken to be true until a change is told is so no longer when the feed is not what it was."""
        if now is Feed.NONE:
            self._tree.listings.renew()
        if before is Feed.LIVE:
            self._promises.withdraw_all()

    def remote_changed(self, change: Change) -> None:
        """The feed says that a file stands at a revision. Our own echo is nothing new; what a listing told before the
        feed did is new to the kernel only.
        """
        if self._is_echo(change):
            return
        if self._is_reused(change):
            self._doubt([self._tree.inodes.find(change.path)], change.path)
        self._own.pop(change.path, None)
        if change.revision is not None:
            self._tree.overlay.stands(change.path)
        if self._tell_renamed(self._followed.renamed(change)):
            self._note(change)
            return
        entry = self._tree.listings.entry(change.path)
        if entry is not None and _same(change, entry.revision, entry.digest):
            self._note(change)
            self._promises.withdraw(change.path, replaced=change.revision is not None)
            return
        record = self._ledger.shown(change.path)
        if record is not None and record.state == "sending":
            self._unexplained[change.path] = change
            return
        self._note(change)
        self._outdated(change.path, gone=change.revision is None)

    def _is_echo(self, change: Change) -> bool:
        own = self._own.get(change.path)
        return own is not None and _same(change, *own)

    def _tell_renamed(self, names: tuple[RemotePath, RemotePath] | None) -> bool:
        """The remote gave a file another name: the kernel looks both up anew."""
        if names is None:
            return False
        for path in names:
            self._own.pop(path, None)
            self._unexplained.pop(path, None)
            self._promises.withdraw(path, replaced=False)
        self._log.note("remote.changed", f"{names[0]} was renamed there", path=names[1], details=Details())
        return True

    def _explain(self, path: RemotePath, revision: Revision | None, digest: Digest | None) -> None:
        """An op on ``path`` is settled: what the feed said meanwhile was its echo, or somebody else's change."""
        change = self._unexplained.pop(path, None)
        if change is not None and not _same(change, revision, digest):
            self._own.pop(path, None)
            self._note(change)
            self._outdated(path)

    def _note(self, change: Change) -> None:
        event = "remote.deleted" if change.revision is None else "remote.changed"
        self._log.note(event, path=change.path, level="debug", details=Details(revision=change.revision))

    def missed(self, below: RemotePath = ROOT) -> None:
        """The feed may have lost changes: everything is looked at again that lies below that directory.

        Of the whole tree the remote may be another one, set up anew, that gives our revisions to other files.
        """
        if below == ROOT:
            self._own.clear()
        self._tree.listings.expire(below)
        self._promises.withdraw_all(below)

    def reset(self) -> None:
        """Of the remote's revisions none means what it did: what is unsent goes on from content, not from a revision.

        ``missed`` follows.
        """
        doubted = self._doubt(self._tree.inodes.all())
        self._log.note(
            "feed",
            "the remote was set up anew or restored: everything is looked at again, and"
            f" {counted(doubted, 'unsent change')} compared by content before anything is replaced",
            level="warning",
        )

    def _is_reused(self, change: Change) -> bool:
        """Whether its revision had other content when that was seen here: the remote was restored."""
        entry, inherited = self._tree.listings.entry(change.path), self._ledger.inherited(change.path)
        seen = [] if entry is None else [(entry.revision, entry.digest)]
        seen += [] if inherited is None else [(inherited.revision, inherited.digest)]
        return any(revision == change.revision and not _same(change, revision, digest) for revision, digest in seen)

    def _doubt(self, nodes: Sequence[Node | None], path: RemotePath | None = None) -> int:
        """What is unsent, of that file or of all, and what these nodes' handles may still write."""
        for node in nodes:
            if node is not None and node.shown is not None and (node.handles or node.draft is not None):
                node.shown = altered(node.shown, base=node.shown.base.doubted)
        return self._ledger.doubt_bases(path)

    def refresh(self, path: RemotePath) -> None:
        """A person wants to see what stands at ``path`` and below it now."""
        self.missed(path)
        if path != ROOT:
            self._outdated(path)

    def _outdated(self, path: RemotePath, *, gone: bool = True) -> None:
        """What stands at ``path`` is unknown, and whether the directories above it do that may come or go with it."""
        _, *above = self._tree.listings.outdated(path, gone=gone)
        self._promises.withdraw(path, replaced=not gone)
        for directory in above:
            self._promises.withdraw_attributes(directory)


def _same(change: Change, revision: Revision | None, digest: Digest | None) -> bool:
    """Whether the change is to that version: a remote that was set up anew counts its revisions from the beginning."""
    if change.revision != revision:
        return False
    return change.digest is None or digest is None or change.digest == digest
