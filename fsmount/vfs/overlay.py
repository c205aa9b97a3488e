"""Remote tree + unsent ops + what only this mount keeps = what a program sees.

Invariant: nothing is remembered here: every answer is made from the journal, the local nodes and the listing, so that
there is no copy which could disagree with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Protocol

from fsmount.config import Config
from fsmount.model import (
    ABSENT,
    FILE_AND_DIRECTORY,
    Base,
    Entry,
    Kind,
    LocalNode,
    OpId,
    OpKind,
    Problem,
    Record,
    RemotePath,
    Revision,
    ancestors,
    join,
    name_of,
)  # fmt: skip
from fsmount.ports import Attributes, Journal
from fsmount.vfs.listing import Listing
from fsmount.vfs.listings import Listings
from fsmount.vfs.shown import AtRemote, Content, Listed, Merged, Shown, Unsent, Usual

RELAY = ".relay"
"""The name of the control tree, in the mount's root."""
MOST_HIDDEN = 1000
"""Directories behind files that are told of at most."""
_RESERVED = "the mount's own control tree has this name"


class Ledger(Journal, Attributes, Protocol):
    """The journal with its attributes: one database, because a rename changes both."""


class Overlay:
    """What stands at a path, given the listing of its directory."""

    def __init__(self, config: Config, ledger: Ledger, listings: Listings, started_at: float) -> None:
        self._config = config
        self._started_at = started_at
        self._ledger = ledger
        self._listings = listings
        self._relay = join(config.remote.root, RELAY)
        self._modes = {full: full & ~config.umask for full in (0o666, 0o777)}
        self._usual = Usual(self._modes[0o666], config.uid, config.gid)
        self._hidden: set[RemotePath] = set()
        """Files behind which something of the remote lies, as far as anything told of it."""
        self._clashes: set[RemotePath] = set()
        """Where something of this mount and something of the remote had one name when somebody looked."""

    def root(self) -> Shown:
        """The mount's root directory."""
        return self._directory(self._ledger.node(self._config.remote.root), None)

    def look(self, directory: RemotePath, name: str, listing: Listing) -> Shown | None:
        """What a program sees under that name; None for nothing."""
        path = join(directory, name)
        if path == self._relay:
            return None
        return self._merge(path, self._ledger.shown(path), self._ledger.node(path), listing.entries.get(name))

    def names(self, directory: RemotePath, listing: Listing) -> Iterator[tuple[str, Shown]]:
        """Everything in a directory."""
        ops = self._ledger.shown_below(directory)
        nodes = {name_of(node.path): node for node in self._ledger.nodes_in(directory)}
        present = dict.fromkeys(listing.entries)
        present.update(dict.fromkeys(ops))
        present.update(dict.fromkeys(name for name, node in nodes.items() if node.kind is not None))
        if directory == self._config.remote.root:
            present.pop(RELAY, None)
        for name in present:
            shown = self._merge(
                join(directory, name), ops.get(name), nodes.get(name), listing.entries.get(name), implied=name in ops
            )
            if shown is not None:
                yield name, shown

    def is_litter(self, path: RemotePath, listing: Listing) -> bool:
        """Whether a file of that name lives on this mount only: an editor's temporary that the remote does not have."""
        name = name_of(path)
        if not any(fnmatchcase(name, pattern) for pattern in self._config.litter):
            return False
        entry = listing.entries.get(name)
        return entry is None or (entry.kind is Kind.DIRECTORY and self.emptied(path))

    def _merge(
        self, path: RemotePath, record: Record | None, node: LocalNode | None, entry: Entry | None, *,
        implied: bool | None = None,
    ) -> Shown | None:  # fmt: skip
        if node is not None and record is None and _clash(node, entry) is not None:
            entry = self._clashing(path, node, entry)
        if node is not None and node.kind is Kind.DIRECTORY:
            return self._directory(node, entry)
        if node is not None and node.kind is Kind.FILE and node.body is not None:
            return self._file(node, size=node.body.size, mtime=node.mtime or 0.0, content=Unsent(node.body), local=True)
        if node is not None and node.kind is Kind.SYMLINK and not _given(path, record, entry):
            return self._link(node)
        if record is not None:
            return self._by_op(path, record, node)
        if entry is not None and entry.kind is Kind.DIRECTORY:
            return None if self.emptied(path) else self._directory(node, entry)
        if entry is not None and entry.revision is not None:
            return self._listed(node, entry, entry.revision)
        if self._ledger.implies_directory(path) if implied is None else implied:
            return self._directory(node, None)
        return None

    def _clashing(self, path: RemotePath, node: LocalNode, entry: Entry | None) -> Entry | None:
        """What of the remote is in the way of ``node``: no directory that was emptied here."""
        directory = entry is not None and entry.kind is Kind.DIRECTORY
        if directory and node.kind is not Kind.DIRECTORY and self.emptied(path):
            return None
        self._clashes.add(path)
        return entry

    def emptied(self, directory: RemotePath) -> bool:
        """Whether everything that the remote still has in a directory was moved or taken away here."""
        listing = self._listings.held(directory)
        if listing is None or not self._ledger.takes_from(directory):
            return False
        if self._ledger.implies_directory(directory):
            return False
        return all(self.look(directory, name, listing) is None for name in listing.entries)

    def stands(self, path: RemotePath) -> None:
        """The remote has a file at ``path``: where something above it is a file too, that one hides it."""
        for above in ancestors(path):
            entry = self._listings.entry(above)
            if entry is not None and entry.kind is Kind.FILE and len(self._hidden) < MOST_HIDDEN:
                self._hidden.add(above)

    def clashes(self) -> list[Problem]:
        """Where something of this mount and something of the remote have one name now, as far as anybody looked."""
        found = []
        if self._listings.entry(self._relay) is not None:
            found.append(Problem(path=self._relay, why=_RESERVED))
        for path in sorted(self._hidden):
            entry = self._listings.entry(path)
            if entry is not None and entry.kind is Kind.FILE:
                found.append(Problem(path=path, shown_as=path, why=FILE_AND_DIRECTORY))
            else:
                self._hidden.discard(path)
        for path in sorted(self._clashes):
            why = _clash(self._ledger.node(path), self._listings.entry(path))
            if why is None or self._ledger.shown(path) is not None or self.emptied(path):
                self._clashes.discard(path)
            else:
                found.append(Problem(path=path, shown_as=path, why=why))
        return found

    def _link(self, node: LocalNode) -> Shown:
        _, uid, gid = self._owner(node, 0o777)
        target = node.target or b""
        return Merged(
            kind=Kind.SYMLINK, size=len(target), mode=0o777, uid=uid, gid=gid, mtime=node.mtime or 0.0, local=True,
            target=target,
        )  # fmt: skip

    def _by_op(self, path: RemotePath, record: Record, node: LocalNode | None) -> Shown | None:
        op = record.op
        if op.kind in (OpKind.DELETE, OpKind.RMDIR) or op.target != path:
            return self._directory(node, None) if self._ledger.implies_directory(path) else None
        mtime = node.mtime if node is not None and node.mtime is not None else op.created_at
        if op.body is not None:
            return self._file(
                node, size=op.body.size, mtime=mtime, content=Unsent(op.body), base=op.target_base, op_id=op.op_id
            )
        moved, base = self._ledger.origin(op)
        source = self._listings.entry(moved)
        known = source if source is not None and source.revision == base.revision else None
        return self._file(
            node, size=None if known is None else known.size, mtime=mtime if known is None else _mtime(node, known),
            content=None if base.revision is None else AtRemote(moved, base.revision, base.digest), base=op.target_base,
            op_id=op.op_id,
        )  # fmt: skip

    def _listed(self, node: LocalNode | None, entry: Entry, revision: Revision) -> Shown:
        if node is None:
            return Listed(entry, self._usual)
        return self._file(
            node, size=entry.size, mtime=_mtime(node, entry), content=AtRemote(entry.path, revision, entry.digest),
            base=Base(revision, entry.digest),
        )  # fmt: skip

    def _file(
        self, node: LocalNode | None, *, size: int | None, mtime: float, content: Content | None, base: Base = ABSENT,
        op_id: OpId | None = None, local: bool = False,
    ) -> Shown:  # fmt: skip
        mode, uid, gid = self._owner(node, 0o666)
        return Merged(
            kind=Kind.FILE,
            size=size,
            mode=mode,
            uid=uid,
            gid=gid,
            mtime=mtime,
            content=content,
            base=base,
            op_id=op_id,
            local=local,
        )

    def _directory(self, node: LocalNode | None, entry: Entry | None) -> Shown:
        mode, uid, gid = self._owner(node, 0o777)
        mtime = node.mtime if node is not None and node.mtime is not None else entry.mtime if entry is not None else 0.0
        return Merged(kind=Kind.DIRECTORY, size=0, mode=mode, uid=uid, gid=gid, mtime=mtime or self._started_at)

    def _owner(self, node: LocalNode | None, full: int) -> tuple[int, int, int]:
        mode = self._modes[full] if node is None or node.mode is None else node.mode
        uid = self._config.uid if node is None or node.uid is None else node.uid
        gid = self._config.gid if node is None or node.gid is None else node.gid
        return mode, uid, gid


def _given(path: RemotePath, record: Record | None, entry: Entry | None) -> bool:
    """Whether a file or directory that is no symbolic link has the name: no link stands in its way."""
    if record is None:
        return entry is not None
    return record.op.target == path and record.op.kind in (OpKind.PUT, OpKind.MOVE)


def _clash(node: LocalNode | None, entry: Entry | None) -> str | None:
    """What of the two is not shown, if both have the name."""
    if node is None or entry is None:
        return None
    if node.kind is Kind.SYMLINK:
        return f"the remote has a {entry.kind} of this name: it is shown, the symbolic link that was made here is not"
    if node.kind is Kind.FILE and node.body is not None:
        return f"a temporary file of this mount has the name: the remote's {entry.kind} is not shown"
    if node.kind is Kind.DIRECTORY and entry.kind is Kind.FILE:
        return "a directory that was made here has the name: the remote's file is not shown"
    return None


def _mtime(node: LocalNode | None, entry: Entry) -> float:
    """Our own time of what we delivered, until the remote has another revision."""
    if node is not None and node.mtime is not None and node.mtime_revision == entry.revision:
        return node.mtime
    return entry.mtime
