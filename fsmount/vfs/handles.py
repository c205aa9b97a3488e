"""Open files: handles, and the draft that all handles of a file share while it is being written.

Invariant: a file has at most one draft; its bytes are readable by every handle the moment ``write`` returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsmount.ports import Draft
from fsmount.vfs.shown import Content

if TYPE_CHECKING:
    from fsmount.vfs.inodes import Node


class OpenDraft:
    """A draft with its writers.

    ``dirty``: written since the last flush. ``frozen``: its op is being sent (or was given up), so the next write makes
    a copy first. ``journalled``: an op has it. ``local``: litter. ``attributes``: mode and owner that are recorded
    with it next. ``touched_at`` is when the journal last heard that the file is still being written.
    """

    __slots__ = ("attributes", "dirty", "draft", "frozen", "journalled", "local", "mtime", "touched_at", "writers")

    def __init__(self, draft: Draft, *, local: bool, mtime: float) -> None:
        self.draft = draft
        self.local = local
        self.mtime = mtime
        self.attributes: dict[str, int] = {}
        self.dirty = False
        self.frozen = False
        self.journalled = False
        self.writers = 0
        self.touched_at = 0.0


class Handle:
    """One open file. ``wrote`` says that it counts among the draft's writers; ``version`` is what was opened, None for
    what is being written.
    """

    __slots__ = ("node", "version", "writable", "wrote")

    def __init__(self, node: Node, *, writable: bool) -> None:
        self.node = node
        self.writable = writable
        self.wrote = False
        self.version: Content | None = None
