"""Open files of ``.relay``.

Invariant: what a handle reads, and what ``stat`` tells meanwhile, is what it opened: one rendering, or the bytes of one
body.
"""

from __future__ import annotations

from contextlib import closing
from typing import Protocol

from fsmount.model import Attr, Body
from fsmount.ports import Source, Spool
from fsmount.vfs.renderings import Rendering

_COPIED = 1 << 20
"""Bytes of a draft that are copied for whoever opens it, because a program may truncate it meanwhile."""


class Opened(Protocol):
    """An open file; ``attr`` is what ``stat`` shows of it."""

    @property
    def attr(self) -> Attr: ...
    def read(self, offset: int, size: int) -> bytes: ...
    def close(self) -> None: ...


class OpenRendering:
    """A rendering that stays the file's as long as somebody reads it."""

    def __init__(self, rendering: Rendering, attr: Attr) -> None:
        rendering.readers += 1
        self._rendering = rendering
        self.attr = attr

    def read(self, offset: int, size: int) -> bytes:
        return self._rendering.content[offset : offset + size]

    def close(self) -> None:
        self._rendering.readers -= 1


class OpenBytes:
    """The first ``attr.size`` bytes of a source."""

    def __init__(self, source: Source, attr: Attr) -> None:
        self._source = source
        self.attr = attr

    def read(self, offset: int, size: int) -> bytes:
        return self._source.read(offset, max(0, min(size, self.attr.size - offset)))

    def close(self) -> None:
        self._source.close()


class Memory:
    """Implements ports.Source on bytes that are at hand."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    @property
    def size(self) -> int:
        return len(self._content)

    def read(self, offset: int, size: int) -> bytes:
        return self._content[offset : offset + size]

    def close(self) -> None:
        """Holds nothing."""


def open_body(spool: Spool, body: Body) -> Source:
    """The bytes of an op as they are now; raises OSError."""
    source = spool.open(body)
    if body.draft is None or source.size > _COPIED:
        return source
    with closing(source):
        return Memory(source.read(0, min(body.size, source.size)))


def size_of(spool: Spool, body: Body) -> int:
    """How many bytes ``open_body`` would give: a draft may have been truncated since it was journalled."""
    if body.draft is None:
        return body.size
    try:
        with closing(spool.open(body)) as source:
            return min(body.size, source.size)
    except OSError:
        return body.size
