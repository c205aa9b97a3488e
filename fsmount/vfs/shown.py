"""What stands at a path: its attributes and where its bytes are.

Invariant: everything here is immutable, and without cycles (``gc=False``: there is one for each file known).
"""

from __future__ import annotations

from msgspec import Struct

from fsmount.model import ABSENT, Base, Body, Digest, Kind, OpId, RemotePath, Revision


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


class Shown(Struct, frozen=True, kw_only=True, gc=False):
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
