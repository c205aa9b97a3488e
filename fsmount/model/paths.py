"""Names: of ops, revisions, drafts and inodes, and paths with their parts.

Invariant: everything here is immutable and does no I/O.
"""

from __future__ import annotations

from typing import NewType

OpId = NewType("OpId", str)
"""``op_`` and a ULID in 26 lower-case base-32 characters; never reused, safe as a file name."""
RemotePath = NewType("RemotePath", str)
"""Absolute on the remote: a leading slash, no trailing one, ``/`` for the root."""
Revision = NewType("Revision", str)
"""The remote's version of one file; opaque, compared only for equality."""
Digest = NewType("Digest", str)
"""sha256 in lower-case hex."""
DraftId = NewType("DraftId", str)
"""Names one draft file of the spool."""
Ino = NewType("Ino", int)

ROOT = RemotePath("/")


def join(directory: RemotePath, name: str) -> RemotePath:
    """The path of ``name`` in ``directory``."""
    return RemotePath(f"/{name}" if directory == ROOT else f"{directory}/{name}")


def parent_of(path: RemotePath) -> RemotePath:
    """The directory that holds ``path``; the root's is the root."""
    return RemotePath(path.rpartition("/")[0] or "/")


def name_of(path: RemotePath) -> str:
    """The last segment; empty for the root."""
    return path.rpartition("/")[2]


def ancestors(path: RemotePath) -> list[RemotePath]:
    """Every directory above ``path``, nearest first, the root last; nothing for the root."""
    found: list[RemotePath] = []
    while path != ROOT:
        path = parent_of(path)
        found.append(path)
    return found


def is_below(path: RemotePath, directory: RemotePath) -> bool:
    """Whether ``path`` lies under ``directory`` (not: is it)."""
    return path != directory and (directory == ROOT or path.startswith(directory + "/"))


def provider_of(path: RemotePath) -> str:
    """The first segment of a remote path: ``/github/issues/7.json`` belongs to ``github``."""
    return path.lstrip("/").partition("/")[0]
