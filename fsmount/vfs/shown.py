"""What stands at a path: its attributes and where its bytes are.

Invariant: everything here is immutable, and without cycles (``gc=False``: there is one for each file known). Most files
of a large tree are ``Listed``: what else is said of them is made when it is asked for, and costs no memory.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct
from msgspec.structs import replace

from fsmount.model import ABSENT, Base, Body, Digest, Entry, Kind, OpId, RemotePath, Revision


class Unsent(Struct, frozen=True):
    """Bytes on this disk: the body of an op, or a litter file."""

    body: Body


class AtRemote(Struct, frozen=True, gc=False):
    """Bytes at the remote (or in the cache): one revision of the file at ``path`` there.

    ``digest`` where a listing told it: a remote that was set up anew counts its revisions from the beginning.
    """

    path: RemotePath
    revision: Revision
    digest: Digest | None = None


Content = Unsent | AtRemote


class Merged(Struct, frozen=True, kw_only=True, gc=False):
    """One name as a program sees it. ``size`` is None while it is not known exactly; ``content`` is None for
    directories and symbolic links, whose ``target`` is what they say.

    ``base`` is what the remote is known to hold there; ``op_id`` the unsettled op that decides, ``local`` whether the
    file lives on this mount only.
    """

    kind: Kind
    size: int | None
    mode: int
    uid: int
    gid: int
    mtime: float
    content: Content | None = None
    base: Base = ABSENT
    op_id: OpId | None = None
    local: bool = False
    target: bytes | None = None


class Usual(Struct, frozen=True, gc=False):
    """Whose a file is that has no attributes of its own; one for all of them."""

    mode: int
    uid: int
    gid: int


class Listed(Struct, frozen=True, gc=False):
    """A file that is what the remote lists, and nothing else: it reads as the ``Merged`` of that would.

    ``entry`` has a revision.
    """

    entry: Entry
    usual: Usual
    kind: ClassVar[Kind] = Kind.FILE
    op_id: ClassVar[OpId | None] = None
    local: ClassVar[bool] = False
    target: ClassVar[bytes | None] = None

    @property
    def size(self) -> int | None:
        return self.entry.size

    @property
    def mode(self) -> int:
        return self.usual.mode

    @property
    def uid(self) -> int:
        return self.usual.uid

    @property
    def gid(self) -> int:
        return self.usual.gid

    @property
    def mtime(self) -> float:
        return self.entry.mtime

    @property
    def content(self) -> Content | None:
        return AtRemote(self.entry.path, self.entry.revision or Revision(""), self.entry.digest)

    @property
    def base(self) -> Base:
        return Base(self.entry.revision, self.entry.digest)


Shown = Listed | Merged
"""One name as a program sees it."""


def altered(shown: Shown, **members: object) -> Merged:
    """The same but for these members of ``Merged``."""
    if isinstance(shown, Listed):
        shown = Merged(**{name: getattr(shown, name) for name in Merged.__struct_fields__})
    return replace(shown, **members)


def measured(shown: Shown, size: int | None) -> Shown:
    """The same with that size."""
    if isinstance(shown, Listed):
        return Listed(replace(shown.entry, size=size), shown.usual)
    return replace(shown, size=size)
