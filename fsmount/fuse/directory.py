"""What an open directory remembers.

Invariant: its names are those of the moment when it was last read from the start.
"""

from __future__ import annotations

from collections.abc import Sequence

from fsmount.errors import RemoteError
from fsmount.model import Attr, Ino
from fsmount.vfs.inodes import CONTROL, Node
from fsmount.vfs.listing import NOTHING
from fsmount.vfs.shown import Shown


class Directory:
    """An open directory: its names as they were when it was read from the start.

    ``failure`` ends them where the remote could not be asked: a list that is not whole is never passed off as one. What
    stands under them may have changed since, if the tree's ``stamp`` has.
    """

    __slots__ = ("control", "failure", "listing", "names", "node", "stamp")

    def __init__(self, node: Node | None, control: Ino | None) -> None:
        self.node = node
        self.control = control
        self.names: Sequence[tuple[str, Shown | Attr]] | Sequence[tuple[str, Attr]] = ()
        self.failure: RemoteError | None = None
        self.listing = NOTHING
        self.stamp = (0, 0)

    @property
    def ino(self) -> int:
        """Its inode's number."""
        return self.node.ino if self.node is not None else self.control or CONTROL
