"""What the remote holds and what programs see of it.

Invariant: everything here is immutable and does no I/O. What there is one of for each of a hundred thousand files is
not tracked by the garbage collector (``gc=False``): it holds no cycle, and is smaller for it.
"""

from __future__ import annotations

import mimetypes
from enum import StrEnum

from msgspec import Struct

from fsmount.model.paths import Digest, Ino, RemotePath, Revision


def content_type_of(path: RemotePath) -> str:
    """What the name tells of the content (RFC 6838); empty where it tells nothing."""
    return mimetypes.guess_type(path, strict=False)[0] or ""


class Kind(StrEnum):
    """What a name stands for."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"


class Entry(Struct, frozen=True, kw_only=True, gc=False):
    """One name as the remote lists it. ``size`` is None where the listing cannot tell the exact number of bytes."""

    path: RemotePath
    kind: Kind
    size: int | None = None
    mtime: float = 0.0
    revision: Revision | None = None
    digest: Digest | None = None
    content_type: str | None = None


class Attr(Struct, frozen=True, kw_only=True):
    """What ``stat`` shows of one inode. ``mode`` holds the permission bits only."""

    ino: Ino
    kind: Kind
    size: int
    mode: int
    uid: int
    gid: int
    mtime: float
    ctime: float
    nlink: int = 1


class Capabilities(Struct, frozen=True, kw_only=True):
    """What a remote can do. The rest of the program asks for these, never for a protocol by name."""

    ranges: bool = False
    conditional: bool = True
    move: bool = False
    directories: bool = False
    batch_put: bool = False
    batch_read: bool = False
    feed: bool = False
    exact_sizes: bool = False
    max_batch_bytes: int = 900_000
    max_batch_files: int = 256
    size_limit: int | None = None
    trims_names: bool = False
    """White space at the end of a path is lost: no name can end with it."""


class Change(Struct, frozen=True, kw_only=True):
    """One entry of the remote's change feed: the file at ``path`` is now at ``revision`` (None: it was deleted)."""

    path: RemotePath
    revision: Revision | None
    digest: Digest | None = None
    at: float = 0.0
    system: bool = False
    """The remote did it by itself, as when it renames what was made here: nobody else edited anything."""


class ProviderFailed(Struct, frozen=True, kw_only=True):
    """One entry of the feed: what stood at ``revision`` was accepted, but the provider behind the remote failed."""

    path: RemotePath
    revision: Revision | None
    at: float = 0.0


class ProviderSucceeded(Struct, frozen=True, kw_only=True):
    """One entry of the feed: what stood at ``revision`` has reached the provider behind the remote."""

    path: RemotePath
    revision: Revision | None
    at: float = 0.0


Told = Change | ProviderFailed | ProviderSucceeded
"""Everything that the feed tells."""


class ProviderState(StrEnum):
    """How far a write that the remote accepted has come with the provider behind it. ``unknown``: a word that is new
    to us.
    """

    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"


class ProviderResult(Struct, frozen=True, kw_only=True):
    """The remote's own record of one accepted write: ``said`` is its status there, ``error`` what the provider said,
    ``body`` the record as text.
    """

    remote_op_id: str
    path: RemotePath | None
    revision: Revision | None
    state: ProviderState
    said: str = ""
    error: str = ""
    body: str = ""
    at: float = 0.0


class Chunk(Struct, frozen=True, kw_only=True):
    """Part of a remote file: ``data`` begins at byte ``start`` of a file of ``total`` bytes at ``revision``."""

    data: bytes
    start: int
    total: int
    revision: Revision
    digest: Digest | None = None
    content_type: str | None = None
