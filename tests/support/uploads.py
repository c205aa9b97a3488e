"""Uploads made of bytes in memory."""

from __future__ import annotations

import hashlib

from fsmount.model import ABSENT, Base, Digest, RemotePath
from fsmount.ports import Upload


def digest_of(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).hexdigest())


class Bytes:
    """A ``Source`` over bytes in memory."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.closed = False

    @property
    def size(self) -> int:
        return len(self.content)

    def read(self, offset: int, size: int) -> bytes:
        return self.content[offset : offset + size]

    def close(self) -> None:
        self.closed = True


def upload_of(
    path: str, content: bytes, base: Base = ABSENT, *, key: str = "", content_type: str = "text/plain"
) -> Upload:
    """An upload whose key differs for every path, base and content unless one is given."""
    return Upload(
        path=RemotePath(path),
        base=base,
        source=Bytes(content),
        digest=digest_of(content),
        content_type=content_type,
        key=key or f"{path}:{base.revision}:{digest_of(content)}",
    )
