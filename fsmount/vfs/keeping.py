"""What this mount goes on keeping of a name when what stood there goes or gets another name.

Invariant: no directory that a program sees vanishes because something in it was taken away here.
"""

from __future__ import annotations

from msgspec.structs import replace

from fsmount.model import Kind, LocalNode, RemotePath, is_below, parent_of
from fsmount.vfs.overlay import Ledger
from fsmount.vfs.shown import AtRemote, Shown


def keep_directory(ledger: Ledger, root: RemotePath, path: RemotePath) -> None:
    """A directory below ``root`` stays when the last thing in it goes, and so do those above it, although the remote
    forgets them: a program removes them when it wants to.
    """
    while is_below(path, root):
        node = ledger.node(path)
        if node is None or node.kind is None:
            ledger.keep(replace(node or LocalNode(path=path), kind=Kind.DIRECTORY))
        path = parent_of(path)


def keep_mtime(ledger: Ledger, path: RemotePath, shown: Shown | None) -> None:
    """A file that was renamed to ``path`` as the remote has it keeps the time that programs saw, after delivery too."""
    if shown is not None and isinstance(shown.content, AtRemote):
        kept = ledger.node(path) or LocalNode(path=path)
        ledger.keep(replace(kept, mtime=shown.mtime, mtime_revision=shown.content.revision))
