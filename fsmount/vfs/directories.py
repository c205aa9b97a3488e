"""Another name for a directory with everything below it.

Invariant: the whole subtree is known before anything changes, and then journal, nodes and listings change in one
synchronous stretch and one transaction: each file has one op of its own, and all of them share a group.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Iterable

import trio
from msgspec import Struct

from fsmount.errors import FileError, RemoteError
from fsmount.model import ABSENT, Base, Kind, RemotePath, is_below, join, name_of, parent_of
from fsmount.vfs.inodes import Node
from fsmount.vfs.keeping import keep_directory, keep_mtime
from fsmount.vfs.listing import NOTHING, Listing
from fsmount.vfs.overlay import Ledger
from fsmount.vfs.shown import Shown, altered
from fsmount.vfs.tree import Tree

AT_ONCE = 8
"""Listings that are asked for at once."""


class Below(Struct, frozen=True):
    """One name below the directory, under the path that it had."""

    path: RemotePath
    shown: Shown


class Directories:
    """Renames of directories, once ``Filesystem`` has looked up the nodes."""

    def __init__(self, ledger: Ledger, tree: Tree) -> None:
        self._ledger = ledger
        self._tree = tree

    async def rename(self, node: Node, target: Node | None, parent: Node, name: str) -> None:
        """A checkpoint where the remote must be asked what lies below; raises RemoteError where that fails.

        Raises FileError as rename(2) does: EINVAL below itself, ENOTDIR, ENOTEMPTY, ENOENT where it went meanwhile.
        """
        old, new = self._tree.path(node), join(self._tree.path(parent), name)
        if is_below(new, old):
            raise FileError(errno.EINVAL, f"{new} lies below {old}")
        if target is not None:
            if target.kind is not Kind.DIRECTORY:
                raise FileError(errno.ENOTDIR, name)
            await self._emptied(target)
        below = await self._below(node)
        if node.detached or parent.detached or (target is not None and target.detached):
            raise FileError(errno.ENOENT, f"{new}: changed elsewhere while it was renamed")
        if target is not None and self._present(new, self._tree.held(target)):
            raise FileError(errno.ENOTEMPTY, name)
        drafts = self._drafts(node, old, new)
        with self._ledger.transaction():
            self._readdress(old, new, below)
            self._carry_drafts(drafts)
            self._keep_directories(old, new, below)
        self._tree.inodes.move(node, parent, name)
        for found in below:
            self._tree.listings.touched(found.path)
            self._tree.listings.touched(_moved(found.path, old, new))
        self._look_again(node)

    # what lies below

    async def _emptied(self, target: Node) -> None:
        if await self._tree.children(target):
            raise FileError(errno.ENOTEMPTY, target.name)

    async def _below(self, node: Node) -> list[Below]:
        """Everything below, as it is when this returns: no checkpoint comes after the last look."""
        asked: dict[RemotePath, Listing] = {}
        while not node.detached:
            found, missing = self._walk(self._tree.path(node), asked)
            if not missing:
                return found
            await self._ask(missing, asked)
        raise FileError(errno.ENOENT, node.name)

    def _walk(self, top: RemotePath, asked: dict[RemotePath, Listing]) -> tuple[list[Below], list[RemotePath]]:
        """What is known below, directories before what lies in them, and the directories that are yet to be listed."""
        found: list[Below] = []
        missing: list[RemotePath] = []
        writing = self._tree.being_written()
        waiting = [top]
        while waiting:
            directory = waiting.pop()
            if directory not in asked:
                missing.append(directory)
                continue
            present = self._present(directory, self._tree.listings.held(directory) or asked[directory])
            for name, shown in {**present, **writing.get(directory, {})}.items():
                path = join(directory, name)
                found.append(Below(path, shown))
                if shown.kind is Kind.DIRECTORY:
                    waiting.append(path)
        return found, missing

    def _present(self, directory: RemotePath, listing: Listing) -> dict[str, Shown]:
        return dict(self._tree.overlay.names(directory, listing))

    async def _ask(self, directories: Iterable[RemotePath], asked: dict[RemotePath, Listing]) -> None:
        limit = trio.CapacityLimiter(AT_ONCE)
        failures: list[RemoteError] = []

        async def one(directory: RemotePath) -> None:
            async with limit:
                try:
                    asked[directory] = await self._tree.listings.directory(directory)
                except RemoteError as error:
                    failures.append(error)
                    nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for directory in directories:
                nursery.start_soon(one, directory)
        if failures:
            raise failures[0]

    # the journal

    def _readdress(self, old: RemotePath, new: RemotePath, below: Iterable[Below]) -> None:
        """First what only this mount keeps, of files too; then an op for each file that the remote has or will have."""
        group = f"grp_{secrets.token_hex(13)}"
        keep_directory(self._ledger, self._tree.root_path, parent_of(old))
        self._ledger.rename_nodes(old, new)
        self._ledger.cancel_rmdir(new)
        for found in below:
            path = _moved(found.path, old, new)
            if found.shown.kind is Kind.DIRECTORY:
                self._ledger.cancel_rmdir(path)
            elif not found.shown.local:
                self._ledger.rename(found.path, path, found.shown.base, ABSENT, group=group)
                keep_mtime(self._ledger, path, found.shown)

    def _drafts(self, top: Node, old: RemotePath, new: RemotePath) -> list[tuple[Node, RemotePath, Base]]:
        """The open drafts below that no op has, each with its new path and the base that it gets there."""
        found = []
        for node in self._tree.drafts():
            draft = node.draft
            if draft is None or draft.journalled or node.detached or not self._tree.inodes.lies_below(node, top):
                continue
            path = _moved(self._tree.path(node), old, new)
            inherited = None if draft.local else self._ledger.inherited(path)
            found.append((node, path, inherited or ABSENT))
        return found

    def _carry_drafts(self, drafts: Iterable[tuple[Node, RemotePath, Base]]) -> None:
        for node, path, base in drafts:
            if node.draft is not None:
                self._ledger.move_draft(node.draft.draft.draft_id, path, base)
                if node.shown is not None and not node.draft.local:
                    node.shown = altered(node.shown, base=base)

    def _keep_directories(self, old: RemotePath, new: RemotePath, below: Iterable[Below]) -> None:
        """Those of which nobody else knows under their new name: nothing that is sent lies in them."""
        inner = (_moved(found.path, old, new) for found in below if found.shown.kind is Kind.DIRECTORY)
        for path in (new, *inner):
            held = self._tree.listings.held(parent_of(path)) or NOTHING
            if self._tree.overlay.look(parent_of(path), name_of(path), held) is None:
                keep_directory(self._ledger, self._tree.root_path, path)

    # the nodes

    def _look_again(self, top: Node) -> None:
        """What is known below stands for the same bytes under its new name."""
        for node in self._tree.inodes.all():
            if not node.detached and node.parent is not None and self._tree.inodes.lies_below(node, top):
                self._tree.look_again(node)


def _moved(path: RemotePath, old: RemotePath, new: RemotePath) -> RemotePath:
    return RemotePath(new + path[len(old) :])
