"""Inode numbers and names: which node stands where, and how often the kernel knows it.

Invariant: a node is in the table while the kernel or a handle knows it. An inode number is never given to another
file while that holds; a file that was removed or replaced is *detached*: it has a number and handles, but no name.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from hashlib import blake2b

import trio

from fsmount.errors import FileError
from fsmount.model import Ino, Kind, RemotePath, join
from fsmount.ports import Source
from fsmount.vfs.handles import OpenDraft
from fsmount.vfs.shown import Content, Shown

ROOT_INO = Ino(1)
CONTROL = 1 << 62
"""Numbers from here on belong to ``.relay``."""
LARGEST = (1 << 60) - 1
"""The largest of the others: one more bit, and Python would keep each in a third word."""

_NONE: dict[str, Node] = {}


class Node:
    """One file or directory that the kernel or a handle knows.

    ``shown`` is what it stands for: for a node with open handles that stays one version of the file. ``orphan`` holds
    the bytes of a removed file for the handles that still read it.
    """

    __slots__ = (
        "_busy",
        "detached",
        "draft",
        "handles",
        "ino",
        "kept",
        "kind",
        "lookups",
        "name",
        "orphan",
        "overtaken",
        "parent",
        "shown",
        "source",
    )

    def __init__(self, ino: Ino, parent: Node | None, name: str, kind: Kind) -> None:
        self.ino = ino
        self.parent = parent
        self.name = name
        self.kind = kind
        self.lookups = 0
        self.handles = 0
        self.detached = False
        self.overtaken = False
        """Detached because the remote has something else there now, not by anybody here."""
        self.shown: Shown | None = None
        self.draft: OpenDraft | None = None
        self.source: Source | None = None
        self.orphan: Source | None = None
        self._busy: trio.Lock | None = None
        self.kept: Content | None = None
        """The version of all the pages that the kernel has of the file; None where that is not known."""

    @property
    def busy(self) -> trio.Lock:
        """Held while a draft is begun or journalled; nobody holds two."""
        # Made when it is needed: the kernel knows a hundred thousand files of which one is written.
        if self._busy is None:
            self._busy = trio.Lock()
        return self._busy


class Inodes:
    """The table. ``root`` is the path on the remote that the mount's root shows."""

    def __init__(self, root: RemotePath) -> None:
        self._root_path = root
        self.root = Node(ROOT_INO, None, "", Kind.DIRECTORY)
        self._by_ino: dict[int, Node] = {ROOT_INO: self.root}
        self._children: dict[int, dict[str, Node]] = {}
        self._name_lost: Callable[[Node, Node], None] = lambda _parent, _node: None

    def watch_overtaken(self, name_lost: Callable[[Node, Node], None]) -> None:
        """``name_lost`` is called with directory and node when the node loses its name to what the remote has."""
        self._name_lost = name_lost

    def get(self, ino: int) -> Node:
        """Raises FileError ESTALE for a number that is not known."""
        node = self._by_ino.get(ino)
        if node is None:
            raise FileError(errno.ESTALE, f"inode {ino}")
        return node

    def path(self, node: Node) -> RemotePath:
        """Where the node stands; for a detached one where it stood."""
        names = []
        while node.parent is not None:
            names.append(node.name)
            node = node.parent
        path = self._root_path
        for name in reversed(names):
            path = join(path, name)
        return path

    def known(self, parent: Node, name: str) -> Node | None:
        """The node of that name if the table has one."""
        return self._children.get(parent.ino, _NONE).get(name)

    def _name(self, node: Node, parent: Node, name: str) -> None:
        node.parent, node.name = parent, name
        self._children.setdefault(parent.ino, {})[name] = node

    def _unname(self, node: Node) -> None:
        """The name is nobody's, if it was this node's."""
        if node.parent is None or self.known(node.parent, node.name) is not node:
            return
        siblings = self._children[node.parent.ino]
        del siblings[node.name]
        if not siblings:
            del self._children[node.parent.ino]

    def find(self, path: RemotePath) -> Node | None:
        """The node at ``path`` if every name on the way is known."""
        prefix = "" if self._root_path == "/" else self._root_path
        if path != self._root_path and not path.startswith(prefix + "/"):
            return None
        node: Node | None = self.root
        for name in path[len(prefix) :].split("/"):
            if name and node is not None:
                node = self.known(node, name)
        return node

    def node(self, parent: Node, name: str, kind: Kind) -> Node:
        """The node of that name and kind; a new one where there is none, or where the old one is of another kind."""
        node = self.known(parent, name)
        if node is not None and node.kind is kind:
            return node
        if node is not None:
            self.overtake(node)
        node = Node(self._number(join(self.path(parent), name)), parent, name, kind)
        self._by_ino[node.ino] = node
        self._name(node, parent, name)
        return node

    def _number(self, path: RemotePath) -> Ino:
        """Made from the path, so that it is the same after a remount; another one while an older file has it."""
        for generation in range(1 << 20):
            digest = blake2b(f"{generation}:{path}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
            number = int.from_bytes(digest) & LARGEST
            if number > ROOT_INO and number not in self._by_ino:
                return Ino(number)
        raise FileError(errno.ENFILE, f"no inode number left for {path}")

    def detach(self, node: Node) -> None:
        """The node loses its name; its handles go on."""
        self._unname(node)
        node.detached = True
        self.settle(node)

    def overtake(self, node: Node) -> None:
        """The remote has another file there, or none: the node's handles go on with what they have."""
        node.overtaken = True
        if not node.detached and node.parent is not None:
            self._name_lost(node.parent, node)
        self.detach(node)

    def move(self, node: Node, parent: Node, name: str) -> None:
        """Another name for the node; whatever had that name is detached."""
        replaced = self.known(parent, name)
        if replaced is not None and replaced is not node:
            self.detach(replaced)
        self._unname(node)
        self._name(node, parent, name)

    def adopt(self, node: Node, parent: Node, name: str) -> None:
        """A detached node stands under a name again."""
        replaced = self.known(parent, name)
        if replaced is not None and replaced is not node:
            self.detach(replaced)
        node.detached = node.overtaken = False
        self._by_ino[node.ino] = node
        self._name(node, parent, name)

    def lies_below(self, node: Node, directory: Node) -> bool:
        """Whether the node's name is somewhere under ``directory``."""
        above = node.parent
        while above is not None and above is not directory:
            above = above.parent
        return above is not None

    def all(self) -> list[Node]:
        """Every node that is known now."""
        return list(self._by_ino.values())

    def forget(self, ino: int, lookups: int) -> None:
        """The kernel dropped that many references."""
        node = self._by_ino.get(ino)
        if node is not None:
            node.lookups -= lookups
            self.settle(node)

    def settle(self, node: Node) -> None:
        """Drops the node from the table when nobody knows it any more."""
        if node.lookups > 0 or node.handles or node is self.root:
            return
        self._by_ino.pop(node.ino, None)
        self._unname(node)
        for source in (node.source, node.orphan):
            if source is not None:
                source.close()
        node.source = node.orphan = None

    def __len__(self) -> int:
        return len(self._by_ino)
