"""A file that the remote renamed by itself, as relayfile does when a provider gives a new record its own name
(relayfile-api, section 18): a ``system`` delete and a ``system`` create of one digest.

Invariant: the file keeps its inode, its handles and its draft under the new name; what is unsent of it, and what only
this mount keeps of it, goes along. Where the version that was deleted is not known here, where the new name is taken
here, or where several files of that digest come or go at once and nothing tells which is which, the events are what
they say, deletions and new files. Nothing here is a checkpoint.
"""

from __future__ import annotations

from typing import TypeVar

from msgspec import Struct

from fsmount.errors import FileError
from fsmount.model import Base, Change, Digest, Entry, Kind, Op, Reason, RemotePath, is_below, name_of, parent_of
from fsmount.ports import Clock
from fsmount.vfs.inodes import Node
from fsmount.vfs.listing import Listing
from fsmount.vfs.overlay import Ledger
from fsmount.vfs.shown import AtRemote, altered
from fsmount.vfs.tree import Tree

WINDOW = 5.0
"""Seconds between the two events of one rename."""
SENDING = 120.0
"""Seconds for which an op that was being sent to the old name meanwhile may still come back."""


class Gone(Struct, frozen=True):
    """A ``system`` deletion: what stood there, and when (monotonic) it was told."""

    path: RemotePath
    version: Base
    told_at: float


class Made(Struct, frozen=True):
    """A ``system`` creation, and when (monotonic) it was told."""

    change: Change
    told_at: float


T = TypeVar("T", Gone, Made)


class Renamed(Struct, frozen=True):
    """Both: ``gone`` has the old name, ``made`` the new one."""

    gone: Gone
    made: Made

    @property
    def names(self) -> tuple[RemotePath, RemotePath]:
        """The old one and the new one."""
        return self.gone.path, self.made.change.path

    @property
    def now(self) -> Base:
        """What stands under the new name."""
        return Base(self.made.change.revision, self.made.change.digest)


class Followed:
    """Finds the pairs and does what follows."""

    def __init__(self, ledger: Ledger, tree: Tree, clock: Clock) -> None:
        self._ledger = ledger
        self._tree = tree
        self._clock = clock
        self._gone: dict[Digest, dict[RemotePath, Gone]] = {}
        self._made: dict[Digest, dict[RemotePath, Made]] = {}
        self._recent: dict[RemotePath, Renamed] = {}

    def renamed(self, change: Change) -> tuple[RemotePath, RemotePath] | None:
        """The old and the new name, if this event completes a rename that was followed."""
        if not change.system:
            return None
        self._forget_old()
        found = self._deleted(change.path) if change.revision is None else self._created(change)
        if found is None or not self._follow(found):
            return None
        self._recent[found.gone.path] = found
        return found.names

    def came_back(self, op: Op) -> tuple[RemotePath, RemotePath] | None:
        """An op died that was on its way to an old name meanwhile: the names, if it goes to the new one now."""
        self._forget_old()
        found = self._recent.get(op.target) or self._recent.get(op.path)
        record = None if found is None else self._ledger.record(op.op_id)
        if found is None or record is None or record.reason is not Reason.REMOTE_DELETED:
            return None
        return found.names if self._readdressed(found) else None

    # pairs

    def _deleted(self, path: RemotePath) -> Renamed | None:
        version = self._version(path)
        if version is None or version.digest is None:
            return None
        self._gone.setdefault(version.digest, {})[path] = Gone(path, version, self._clock.monotonic())
        return self._pair(version.digest)

    def _created(self, change: Change) -> Renamed | None:
        if change.digest is None:
            return None
        self._made.setdefault(change.digest, {})[change.path] = Made(change, self._clock.monotonic())
        return self._pair(change.digest)

    def _pair(self, digest: Digest) -> Renamed | None:
        """The one deletion and the one creation of these bytes; of more, any two may be strangers to each other."""
        gone, made = self._gone.get(digest, {}), self._made.get(digest, {})
        if len(gone) != 1 or len(made) != 1:
            return None
        del self._gone[digest], self._made[digest]
        return Renamed(gone.popitem()[1], made.popitem()[1])

    def _version(self, path: RemotePath) -> Base | None:
        """What the remote last had there, as far as it is known with its digest: a deletion tells none."""
        entry, node = self._tree.listings.entry(path), self._tree.inodes.find(path)
        known = [
            None if entry is None or entry.kind is not Kind.FILE else Base(entry.revision, entry.digest),
            None if node is None or node.shown is None else node.shown.base,
            self._ledger.inherited(path),
        ]
        return next((base for base in known if base is not None and not base.absent and base.digest is not None), None)

    def _forget_old(self) -> None:
        now = self._clock.monotonic()
        self._gone = _since(now - WINDOW, self._gone)
        self._made = _since(now - WINDOW, self._made)
        self._recent = {old: found for old, found in self._recent.items() if now - found.made.told_at < SENDING}

    # following

    def _follow(self, found: Renamed) -> bool:
        old, new = found.names
        if not is_below(new, self._tree.root_path) or self._taken(new) or not self._readdressed(found):
            return False
        entry = self._tree.listings.entry(old)
        self._move(old, new, found.gone.version, found.now)
        self._tree.listings.learn(old, None)
        self._tree.listings.learn(new, _entry(found.made.change, entry))
        return True

    def _readdressed(self, found: Renamed) -> bool:
        """On a full disk it is a deletion and a new file, and what is unsent meets that."""
        try:
            self._ledger.renamed_there(*found.names, found.gone.version, found.now)
        except FileError:
            return False
        return True

    def _taken(self, path: RemotePath) -> bool:
        """Whether something of this mount has the name already."""
        node = self._tree.inodes.find(path)
        return self._ledger.shown(path) is not None or (node is not None and node.draft is not None)

    def _move(self, old: RemotePath, new: RemotePath, before: Base, now: Base) -> None:
        node = self._tree.inodes.find(old) or self._overtaken(old)
        if node is None or node.kind is not Kind.FILE or node.shown is None:
            return
        directory = self._directory(parent_of(new))
        if node.detached:
            self._tree.inodes.adopt(node, directory, name_of(new))
        else:
            self._tree.inodes.move(node, directory, name_of(new))
        shown = node.shown
        if isinstance(shown.content, AtRemote) and Base(shown.content.revision, shown.content.digest).like(before):
            shown = altered(shown, content=AtRemote(new, now.revision or shown.content.revision, now.digest))
        if shown.base.like(before):
            shown = altered(shown, base=now)
        self._tree.show(node, shown)

    def _overtaken(self, path: RemotePath) -> Node | None:
        """The file whose handles go on with what was there, where its name was looked up between the two events."""
        for node in self._tree.inodes.all():
            if node.overtaken and node.handles and self._tree.path(node) == path:
                return node
        return None

    def _directory(self, path: RemotePath) -> Node:
        """The directory's node, made where nobody has looked at it yet."""
        if path == self._tree.root_path:
            return self._tree.inodes.root
        parent = self._directory(parent_of(path))
        name = name_of(path)
        known = self._tree.inodes.known(parent, name)
        if known is not None and known.kind is Kind.DIRECTORY:
            return known
        node = self._tree.inodes.node(parent, name, Kind.DIRECTORY)
        there = Listing({name: Entry(path=path, kind=Kind.DIRECTORY)}, 0.0, 0.0)
        node.shown = self._tree.overlay.look(parent_of(path), name, there) or self._tree.overlay.root()
        return node


def _since(time: float, told: dict[Digest, dict[RemotePath, T]]) -> dict[Digest, dict[RemotePath, T]]:
    """Those that were told after ``time`` (monotonic)."""
    recent = {digest: {path: one for path, one in all_.items() if one.told_at > time} for digest, all_ in told.items()}
    return {digest: all_ for digest, all_ in recent.items() if all_}


def _entry(change: Change, before: Entry | None) -> Entry:
    return Entry(
        path=change.path,
        kind=Kind.FILE,
        size=None if before is None else before.size,
        mtime=change.at,
        revision=change.revision,
        digest=change.digest,
        content_type=None if before is None else before.content_type,
    )
