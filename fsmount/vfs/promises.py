"""For how long the kernel may answer by itself, and how it is told when that ends before.

Invariant: what the kernel was promised for long is true until it is told otherwise, and it is told in the same
synchronous stretch in which this mount learns of a change.

An answer is promised for long (``LASTING``) while the change feed is live and the listing that it was made from is
current, for nothing if that is known to be outdated, and else for the ``ttl`` of the mount. That this cannot leave
something old in the kernel for long, though answers and changes cross each other on the way, rests on these rules:

1. An answer is made, and its promise looked up, in the synchronous stretch in which it is sent. So a change that was
   learned before is in the answer, or has outdated the listing, and nothing is promised; nor by an answer that had to
   wait after the name was looked up, for its exact size.
2. A change that is learned later is told to the kernel after the answer was sent. The program that asked may not have
   run yet, so that the kernel has still to make of the answer what it is told to drop:
   - a name is dropped under the lock of its directory, which the kernel holds from a lookup's request until name and
     inode are made; a name that is only confirmed anew (d_revalidate) was dropped from the tree meanwhile, whatever
     time it is given;
   - attributes of an inode that is there have a version, which the dropping raises: what was asked for before is
     ignored (fs/fuse/inode.c, ``attr_version``);
   - attributes of an inode that is still being made are there once the name could be dropped, so they are dropped once
     more after it.
3. Directories that may have gone are not dropped by name, because that takes the way back from those who work in them.
   Their attributes are: on the way through a directory the kernel asks for them, the answer for one that is gone is
   ESTALE, and on that it looks the name up anew. It does not where a program asked about what it has open; so whatever
   is found to have lost its name (``Inodes.overtake``) is dropped by name then.
4. Pages are not dropped at all. Each open says whether the kernel's pages are of the version that is opened
   (``Node.kept``); an open file whose version is no longer the name's keeps its inode, and the name gets another.
5. Names that are absent are remembered here, since no node stands for them.
6. When the feed is live no longer, or may have missed something, all that the kernel knows is withdrawn, a slice at a
   time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

import trio

from fsmount.connection import Connection
from fsmount.model import ROOT, Feed, Kind, RemotePath, is_below, join, name_of, parent_of
from fsmount.ports import KernelCache
from fsmount.vfs.inodes import Node
from fsmount.vfs.listing import Listing
from fsmount.vfs.tree import Tree, can_hold

LASTING = 3600.0
"""Seconds for which the kernel may answer while changes are told as they happen."""
ABSENT_NAMES = 20_000
"""Names of which the kernel may believe for long that nothing stands there."""
SLICE = 200
"""Nodes that are withdrawn at once; about a millisecond."""
PAUSE = 0.001
"""Seconds between two slices, in which others have the loop and the notifier's threads get on."""


class Promises:
    """See the module. ``ttl`` seconds without a live feed. ``run`` must be running for ``withdraw_all``."""

    def __init__(self, tree: Tree, connection: Connection, kernel: KernelCache, ttl: float) -> None:
        self._tree = tree
        self._connection = connection
        self._kernel = kernel
        self._ttl = ttl
        self._absent: OrderedDict[tuple[int, str], Node] = OrderedDict()
        self._to_withdraw: list[RemotePath] = []
        self._asked = trio.Event()
        tree.inodes.watch_overtaken(self._overtaken)

    # promising

    def in_directory(self, directory: Node) -> Callable[[str], float]:
        """Gives the seconds for which an answer about a name in it holds, if all of this is done and sent at once."""
        if not _stands(directory):
            return lambda _name: 0.0
        path = self._tree.path(directory)
        listing = self._tree.listings.current(path)
        if listing is not None:
            return lambda _name: self._longest
        held = self._tree.listings.held(path)
        if held is None:
            return lambda _name: self._ttl
        return lambda name: self._of_listed(path, held, name)

    @property
    def _longest(self) -> float:
        return LASTING if self._connection.feed is Feed.LIVE else self._ttl

    def _of_listed(self, directory: RemotePath, held: Listing, name: str) -> float:
        if held.is_outdated(name):
            return 0.0
        return self._ttl if self._tree.listings.fresh(directory, name) is None else self._longest

    def of(self, node: Node) -> float:
        """The same for name and attributes of a node; nothing for one that has lost its name."""
        if node.parent is None:
            return self._longest
        return 0.0 if node.detached else self.in_directory(node.parent)(node.name)

    def of_absence(self, directory: Node, name: str) -> float:
        """The same for a name under which nothing stands."""
        seconds = self.in_directory(directory)(name)
        if seconds > self._ttl:
            self._absent[directory.ino, name] = directory
            self._absent.move_to_end((directory.ino, name))
            if len(self._absent) > ABSENT_NAMES:
                (_, oldest), above = self._absent.popitem(last=False)
                self._withdraw_absence(above, oldest)
        return seconds

    # withdrawing

    def withdraw(self, path: RemotePath, *, replaced: bool = False) -> None:
        """Something else may stand at ``path`` now; ``replaced``: a file does, whatever stood there."""
        node = self._tree.inodes.find(path)
        if node is not None:
            self._withdraw(node, replaced=replaced)
            return
        while path not in {self._tree.root_path, ROOT}:
            parent = self._tree.inodes.find(parent_of(path))
            if parent is not None and not can_hold(parent, name_of(path)):
                return
            if parent is not None:
                self._absent.pop((parent.ino, name_of(path)), None)
                self._kernel.entry_changed(parent.ino, name_of(path))
                return
            path = parent_of(path)

    def withdraw_attributes(self, directory: RemotePath) -> None:
        """The directory may have gone."""
        node = self._tree.inodes.find(directory)
        if node is not None:
            self._kernel.attributes_changed(node.ino)

    def withdraw_all(self, below: RemotePath = ROOT) -> None:
        """Anything may have changed in the directory ``below`` or deeper; ``run`` withdraws what is known of it."""
        if below == ROOT:
            self._to_withdraw.clear()
        if below not in self._to_withdraw:
            self._to_withdraw.append(below)
        self._asked.set()

    async def run(self) -> None:
        """Withdraws what ``withdraw_all`` was asked for, without keeping anybody waiting; does not return."""
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            while self._to_withdraw:
                await self._sweep(self._to_withdraw.pop(0))

    async def _sweep(self, below: RemotePath) -> None:
        everything = below in {ROOT, self._tree.root_path}
        nodes = self._tree.inodes.all()
        for start in range(0, len(nodes), SLICE):
            self._withdraw_nodes(
                node for node in nodes[start : start + SLICE] if everything or is_below(self._tree.path(node), below)
            )
            await trio.sleep(PAUSE)
        absent = list(self._absent.items())
        for start in range(0, len(absent), SLICE):
            for key, directory in absent[start : start + SLICE]:
                if everything or is_below(join(self._tree.path(directory), key[1]), below):
                    self._absent.pop(key, None)
                    self._withdraw_absence(directory, key[1])
            await trio.sleep(PAUSE)

    def _withdraw_nodes(self, nodes: Iterable[Node]) -> None:
        by_directory: dict[int, list[tuple[str | None, int]]] = {}
        for node in nodes:
            if node.parent is None:
                self._kernel.attributes_changed(node.ino)
            elif not node.detached:
                dropped = None if node.kind is Kind.DIRECTORY else node.name
                by_directory.setdefault(node.parent.ino, []).append((dropped, node.ino))
        for directory, entries in by_directory.items():
            self._kernel.entries_changed(directory, entries)

    def _withdraw(self, node: Node, *, replaced: bool = False) -> None:
        self._kernel.attributes_changed(node.ino)
        if node.parent is not None and (replaced or node.kind is not Kind.DIRECTORY):
            self._kernel.entry_changed(node.parent.ino, node.name, node.ino)

    def _overtaken(self, parent: Node, node: Node) -> None:
        self._kernel.entry_changed(parent.ino, node.name, node.ino)

    def _withdraw_absence(self, directory: Node, name: str) -> None:
        """Not where something was made under the name since."""
        if self._tree.inodes.known(directory, name) is None:
            self._kernel.entry_changed(directory.ino, name)


def _stands(node: Node) -> bool:
    """Whether the node has a name, and every directory above it."""
    above: Node | None = node
    while above is not None and not above.detached:
        above = above.parent
    return above is None
