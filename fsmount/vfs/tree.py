"""Names to nodes: looks a name up in the overlay and binds what it finds to an inode.

Invariant: a node with open handles stands for one version of its file. When the remote's version changes meanwhile the
name gets a new node; a file that is being written keeps its node, and its draft is what everybody sees.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

import trio

from fsmount.config import Config
from fsmount.errors import FileError, RemoteError
from fsmount.model import Attr, Base, Entry, Kind, OpId, RemotePath, parent_of
from fsmount.ports import Clock, Spool
from fsmount.vfs.contents import Contents
from fsmount.vfs.inodes import Inodes, Node
from fsmount.vfs.listing import NOTHING, Listing
from fsmount.vfs.listings import Listings, is_text
from fsmount.vfs.overlay import Ledger, Overlay
from fsmount.vfs.shown import AtRemote, Shown, Unsent, altered, measured

T = TypeVar("T")
NAME_MAX = 255
FEW = 4
"""Files of unknown size that are fetched one by one: all that lies below their directory would cost more."""


class Tree:
    """The tree as programs see it."""

    def __init__(
        self, config: Config, ledger: Ledger, listings: Listings, contents: Contents, spool: Spool, clock: Clock
    ) -> None:  # fmt: skip
        self.root_path = config.remote.root
        self.inodes = Inodes(self.root_path)
        self.listings = listings
        self.contents = contents
        self.overlay = Overlay(config, ledger, listings, clock.now())
        self._ledger = ledger
        self._spool = spool
        self._clock = clock
        self._writing: set[Node] = set()
        self._transactions = 0
        ledger.watch(self._count)

    def _count(self) -> None:
        self._transactions += 1

    @property
    def stamp(self) -> tuple[int, int]:
        """Another one after every change of what programs see here."""
        return self._transactions, self.listings.changes

    def path(self, node: Node) -> RemotePath:
        """Where the node stands on the remote."""
        return self.inodes.path(node)

    @staticmethod
    def is_local(node: Node) -> bool:
        """Whether the file lives on this mount only."""
        return node.draft.local if node.draft is not None else node.shown is not None and node.shown.local

    # one name

    async def find(self, parent: Node, name: str) -> Node | None:
        """The node of that name, None where nothing stands. A checkpoint where the remote must be asked.

        Raises FileError (ENAMETOOLONG, ENOTDIR), RemoteError where neither the journal nor the remote can tell.
        """
        check_length(name)
        if parent.kind is not Kind.DIRECTORY:
            raise FileError(errno.ENOTDIR, name)
        if not is_text(name):
            return None
        known = self.inodes.known(parent, name)
        if known is not None and known.draft is not None:
            return known
        if parent.detached:
            return None
        try:
            listing, failure = await self._looked_into(self.path(parent), name), None
        except RemoteError as error:
            listing, failure = NOTHING, error
        shown = self.overlay.look(self.path(parent), name, listing)
        if shown is None and failure is not None:
            raise failure
        return self.bind(parent, name, shown)

    async def _looked_into(self, directory: RemotePath, name: str | None = None) -> Listing:
        """The listing, with what must be known of the directories in it (or of the one of that name) to show them."""
        began = self._clock.monotonic()
        listing = await self.listings.directory(directory, name)
        names = list(listing.entries) if name is None else [name]
        if not any((entry := listing.entries.get(each)) and entry.kind is Kind.DIRECTORY for each in names):
            return listing
        await self._learn_emptied(directory, listing, names)
        if listing.confirmed_at >= began and self.listings.fresh(directory, name) is None:
            # Changes of ours arrived meanwhile, and with them directories may have gone: asked once more.
            listing = await self.listings.directory(directory, name)
        return listing

    async def _learn_emptied(self, directory: RemotePath, listing: Listing, names: Iterable[str]) -> None:
        """Lists those directories that ops of ours take something from: where nothing is left, they are not shown."""
        entries = [entry for name in names if (entry := listing.entries.get(name)) and entry.kind is Kind.DIRECTORY]
        if not entries or not self._ledger.takes_from(directory):
            return
        for entry in entries:
            if self._ledger.takes_from(entry.path) and not self._kept(entry.path):
                with contextlib.suppress(RemoteError):
                    below = await self.listings.directory(entry.path)
                    await self._learn_emptied(entry.path, below, list(below.entries))

    def _kept(self, directory: RemotePath) -> bool:
        """Whether this mount keeps the directory, whatever the remote has."""
        node = self._ledger.node(directory)
        return node is not None and node.kind is Kind.DIRECTORY

    async def vacant(self, parent: Node, name: str) -> Node | None:
        """As ``find``, for a name that is to be given to something; also raises FileError EILSEQ where no remote can
        store it.
        """
        found = await self.find(parent, name)
        if not self.listings.storable(name):
            raise FileError(errno.EILSEQ, f"the remote cannot store the name {name!r}")
        return found

    async def existing(self, parent: Node, name: str) -> Node:
        """As ``find``; raises FileError ENOENT for nothing."""
        node = await self.find(parent, name)
        if node is None:
            raise FileError(errno.ENOENT, name)
        return node

    def bind(self, parent: Node, name: str, shown: Shown | None) -> Node | None:
        """The node that stands for ``shown`` under that name from now on; None for nothing."""
        known = self.inodes.known(parent, name)
        if known is not None and known.draft is not None:
            return known
        if shown is None:
            if known is not None:
                self.inodes.overtake(known)
            return None
        if known is not None and known.handles and _another_version(known.shown, shown):
            self.inodes.overtake(known)
        node = self.inodes.node(parent, name, shown.kind)
        self.show(node, shown)
        return node

    def outdated(self, node: Node) -> bool:
        """Whether the name has another version now than the node's open handles have."""
        if not node.handles or node.parent is None or node.draft is not None:
            return False
        listing = self.listings.held(self.path(node.parent))
        shown = None if listing is None else self.overlay.look(self.path(node.parent), node.name, listing)
        return shown is not None and _another_version(node.shown, shown)

    def show(self, node: Node, shown: Shown) -> None:
        """The node stands for ``shown`` from now on."""
        if node.source is not None and node.shown is not None and node.shown.content != shown.content:
            node.source.close()
            node.source = None
        if shown.size is None and isinstance(content := shown.content, AtRemote):
            if node.shown is not None and node.shown.content == content:
                shown = measured(shown, node.shown.size)
            if shown.size is None:
                shown = measured(shown, self.contents.known_size(content))
        node.shown = shown

    # a whole directory

    async def children(self, directory: Node) -> list[tuple[str, Shown]]:
        """Everything in a directory, in the order of the names; files that are being created included.

        A checkpoint; raises RemoteError where the remote must be asked and cannot be.
        """
        found, failure = await self.known_children(directory)
        if failure is not None:
            raise failure
        return found

    async def known_children(self, directory: Node) -> tuple[list[tuple[str, Shown]], RemoteError | None]:
        """The same as far as it is known, and why that is not everything; None where it is. A checkpoint."""
        try:
            listing, failure = await self._looked_into(self.path(directory)), None
        except RemoteError as error:
            listing, failure = NOTHING, error
        found = dict(self.overlay.names(self.path(directory), listing))
        for node in self._writing:
            if node.parent is directory and not node.detached and node.shown is not None:
                found[node.name] = node.shown
        return sorted(found.items()), failure

    def held(self, directory: Node) -> Listing:
        """What is known of a directory at the remote, current or not."""
        return self.listings.held(self.path(directory)) or NOTHING

    def look(self, directory: Node, name: str, listing: Listing = NOTHING) -> Shown | None:
        """What stands there now, without asking; ``listing`` serves where nothing newer is held."""
        path = self.path(directory)
        return self.overlay.look(path, name, self.listings.held(path) or listing)

    async def measure(self, directory: Node, children: list[tuple[str, Shown]]) -> None:
        """Fetches the sizes that no listing tells, so that ``quick_attr`` knows them; what fails stays unknown.

        One request brings all of a small subtree, with its content; else each file costs one, 8 at once.
        """
        unknown = self._unmeasured(children)
        if len(unknown) > FEW and self.contents.reads_below:
            with contextlib.suppress(RemoteError):
                await self.contents.learn_below(self.path(directory), {each.path: each for each in unknown})
            unknown = self._unmeasured(children)
        limit = trio.CapacityLimiter(8)

        async def one(content: AtRemote) -> None:
            async with limit:
                with contextlib.suppress(RemoteError, FileError):
                    await self.contents.size(content)

        async with trio.open_nursery() as nursery:
            for content in unknown:
                nursery.start_soon(one, content)

    def _unmeasured(self, children: list[tuple[str, Shown]]) -> list[AtRemote]:
        contents = (shown.content for _, shown in children if shown.size is None)
        known = self.contents.known_size
        return [content for content in contents if isinstance(content, AtRemote) and known(content) is None]

    def look_again(self, node: Node) -> None:
        """The node's path has another name or another op now; what is open goes on with the bytes that it has."""
        draft = node.draft
        if node.parent is None or (draft is not None and not draft.journalled):
            return
        shown = self.look(node.parent, node.name)
        other = shown is None or shown.kind is not node.kind or (node.handles and _another_version(node.shown, shown))
        if draft is None and other:
            self.inodes.overtake(node)
        if shown is None or other:
            return
        size = node.shown.size if node.shown is not None else None
        self.show(node, shown if shown.size is not None else measured(shown, size))

    # attributes

    async def refresh(self, node: Node) -> None:
        """Looks at the node's name again. A checkpoint where the remote must be asked; an unreachable remote changes
        nothing.

        Raises FileError ESTALE where nothing of the kind stands there any more, on which the kernel looks the name up
        anew.
        """
        if node.parent is None or not _stands_for_the_remote(node):
            return
        parent = node.parent
        try:
            listing = await self.listings.directory(self.path(parent), node.name)
        except RemoteError:
            if node.shown is None:
                raise
            return
        if node.parent is not parent or not _stands_for_the_remote(node):
            return
        shown = self.overlay.look(self.path(parent), node.name, listing)
        if shown is not None and shown.kind is node.kind:
            if not (node.handles and _another_version(node.shown, shown)):
                self.show(node, shown)
        elif not node.handles:
            self.inodes.overtake(node)
            raise FileError(errno.ESTALE, f"{self.path(node)} was removed elsewhere")

    async def attr(self, node: Node) -> Attr:
        """What ``stat`` shows. A checkpoint where an exact size must be fetched; raises RemoteError."""
        shown = self._shown(node)
        if shown.size is None:
            shown = await self._measured(node, shown)
        return self._attr(node, shown)

    def quick_attr(self, node: Node) -> Attr | None:
        """The same without a checkpoint; None where the size is not known exactly."""
        shown = self._shown(node)
        return None if shown.size is None else self._attr(node, shown)

    def _shown(self, node: Node) -> Shown:
        if node.parent is None:
            return self.overlay.root()
        if node.shown is None:
            raise FileError(errno.ESTALE, node.name)
        return node.shown

    async def fetched(self, node: Node, content: AtRemote, fetch: Callable[[AtRemote], Awaitable[T]]) -> T:
        """What ``fetch`` gives for the node's content; asked once more where a rename of ours took it elsewhere at the
        remote meanwhile. A checkpoint; raises what ``fetch`` does.
        """
        try:
            return await fetch(content)
        except FileError as error:
            if error.errno != errno.ESTALE:
                raise
            moved = self._moved(node, content)
            if moved is None:
                # What told of that version is not so any more, whatever the feed said or did not say.
                self.listings.outdated(content.path, gone=False)
                raise
            return await fetch(moved)

    def _moved(self, node: Node, content: AtRemote) -> AtRemote | None:
        """Where else the same version stands by now."""
        shown = None if node.parent is None or node.detached else self.look(node.parent, node.name)
        if shown is None or shown.content == content or _another_version(node.shown, shown):
            return None
        self.show(node, shown)
        return shown.content if isinstance(shown.content, AtRemote) else None

    async def _measured(self, node: Node, shown: Shown) -> Shown:
        if not isinstance(shown.content, AtRemote):
            raise FileError(errno.EIO, f"{self.path(node)}: its content is at an unknown revision")
        size = await self.fetched(node, shown.content, self.contents.size)
        if node.shown is not None and not _another_version(node.shown, shown):
            node.shown = measured(node.shown, size)
        return measured(shown, size)

    def _attr(self, node: Node, shown: Shown) -> Attr:
        draft = node.draft
        size = shown.size or 0
        mtime = shown.mtime
        if draft is not None:
            size, mtime = draft.draft.size, draft.mtime
        elif node.orphan is not None:
            size = node.orphan.size
        return Attr(
            ino=node.ino, kind=node.kind, size=size, mode=shown.mode, uid=shown.uid, gid=shown.gid, mtime=mtime,
            ctime=mtime,
            nlink=0 if node.detached else 2 if node.kind is Kind.DIRECTORY else 1,
        )  # fmt: skip

    # what is being written

    def writing(self, node: Node) -> None:
        """The node has a draft."""
        self._writing.add(node)

    def closed(self, node: Node) -> None:
        """The node has its draft no longer."""
        self._writing.discard(node)

    def being_written(self) -> dict[RemotePath, dict[str, Shown]]:
        """What has a draft and a name, by directory."""
        found: dict[RemotePath, dict[str, Shown]] = {}
        for node in self._writing:
            if node.parent is not None and not node.detached and node.shown is not None:
                found.setdefault(self.path(node.parent), {})[node.name] = node.shown
        return found

    def drafts(self) -> Iterator[Node]:
        """Every node that has a draft."""
        return iter(tuple(self._writing))

    # what the uploader reports

    def delivered(self, path: RemotePath, entry: Entry | None, op_id: OpId) -> None:
        """The remote holds ``entry`` at ``path`` now, by our own op; a node that showed what the op brings shows that
        revision.
        """
        self.listings.learn(path, entry)
        node = self.inodes.find(path)
        if node is None or entry is None or node.shown is None or entry.revision is None:
            return
        content, base = node.shown.content, Base(entry.revision, entry.digest)
        brought = node.shown.op_id == op_id or (isinstance(content, Unsent) and content.body.digest == entry.digest)
        if brought:
            shown = self.overlay.look(parent_of(path), node.name, Listing({node.name: entry}, 0.0, 0.0))
            if shown is not None and shown.kind is node.kind:
                if content is not None and node.kept == content:
                    node.kept = shown.content
                self.show(node, shown)
        elif node.draft is not None or isinstance(content, Unsent):
            node.shown = altered(node.shown, base=base)


def _stands_for_the_remote(node: Node) -> bool:
    """Whether the node has a name, and what is looked up under it is what the node shows."""
    return not node.detached and node.draft is None


def _another_version(now: Shown | None, then: Shown) -> bool:
    """Whether an open file must keep what it has: the remote has another revision with other content."""
    if now is None or now.content == then.content:
        return False
    if not isinstance(now.content, AtRemote) or not isinstance(then.content, AtRemote):
        return (
            isinstance(now.content, Unsent)
            and isinstance(then.content, AtRemote)
            and now.content.body.digest != then.content.digest
        )
    if now.content.digest is not None and then.content.digest is not None:
        return now.content.digest != then.content.digest
    return now.content.revision != then.content.revision


def can_hold(node: Node, name: str) -> bool:
    """Whether the kernel can know that name there: a remote may have names that no local directory can hold."""
    fits = is_text(name) and len(name.encode()) <= NAME_MAX and "\0" not in name
    return node.kind is Kind.DIRECTORY and fits and name not in {"", ".", ".."}


def check_length(name: str) -> None:
    """Raises FileError ENAMETOOLONG; the kernel lets up to 1,024 bytes through."""
    if len(name.encode("utf-8", "surrogateescape")) > NAME_MAX:
        raise FileError(errno.ENAMETOOLONG, name[:40] + "…")
