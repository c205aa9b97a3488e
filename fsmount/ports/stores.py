"""Bytes on this disk: the spool of unsent bodies, the cache of remote content."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from fsmount.model import Body, Chunk, Digest, DraftId, Entry, RemotePath


class Source(Protocol):
    """Bytes on this disk: a sealed body or a draft. ``read`` is a pread and may return less only at the end."""

    @property
    def size(self) -> int: ...
    def read(self, offset: int, size: int) -> bytes: ...
    def close(self) -> None: ...


class Draft(Source, Protocol):
    """A body that is still being written. Raises OSError (ENOSPC, EDQUOT) from ``write`` and ``truncate`` only."""

    @property
    def draft_id(self) -> DraftId: ...
    @property
    def body(self) -> Body:
        """Its present length and, if it was written front to back, its digest; costs what came since last time."""
        ...

    def hashed(self) -> Body:
        """``body``, after reading all of it where it was not written front to back: with its digest, unless it is
        being written. Blocks: call it in a thread.
        """
        ...

    def write(self, offset: int, content: bytes) -> int: ...
    def truncate(self, size: int) -> None: ...
    def sync(self) -> None:
        """fsync of the file and its directory; blocks: call it in a thread."""


class Spool(Protocol):
    """The local bodies of the ops. A sealed body never changes and is named by its digest."""

    def create(self) -> Draft: ...
    def open_draft(self, draft_id: DraftId) -> Draft:
        """A draft file that is on disk already (after a crash); raises FileNotFoundError."""
        ...

    def seal(self, draft_id: DraftId, digest: Digest | None, size: int | None = None) -> Body:
        """Makes the draft a body and returns its true size and digest; blocks: call it in a thread when large.

        Given a digest that was reckoned while writing, the file is only renamed. Open handles of the draft read on.
        What is longer than ``size`` is cut to it: the rest was left by a write that was refused.
        """
        ...

    def open(self, body: Body) -> Source:
        """The body's bytes, sealed or still a draft; raises FileNotFoundError."""
        ...

    def verify(self, body: Body) -> bool:
        """Whether the sealed file has the recorded length and digest; blocks: call it in a thread when large."""
        ...

    def sync(self, body: Body) -> None:
        """Makes a body, sealed or still a draft, survive power loss; nothing happens if it is gone. Blocks."""

    def lasting(self, body: Body) -> bool:
        """Whether the body, sealed or still a draft, was put on the disk: by ``sync``, or by a former run for all that
        is known.
        """
        ...

    def remove(self, body: Body) -> None:
        """Forgets one body or draft; nothing happens if it is gone."""

    def unnamed(self, digests: Iterable[Digest], drafts: Iterable[DraftId]) -> list[Body]:
        """Every body and draft that is not named. Only at the start, before anything writes."""
        ...

    @property
    def used(self) -> int:
        """Bytes held, drafts included."""
        ...

    @property
    def limit(self) -> int: ...


class KnownListings(Protocol):
    """What the remote's directories held when they were last listed, over restarts. Never raises; losing it loses
    nothing.
    """

    def has(self, directory: RemotePath) -> bool:
        """Whether ``recall`` is likely to give something; never blocks."""
        ...

    def recall(self, directory: RemotePath) -> tuple[list[Entry], float] | None:
        """The entries and when they were true (UTC epoch seconds); blocks: call it in a thread."""
        ...

    def keep(self, listings: Mapping[RemotePath, Sequence[Entry]], at: float) -> None:
        """Replaces what is known of these directories; blocks: call it in a thread."""


class Cache(Protocol):
    """Remote content, bounded; losing any of it loses nothing. ``version`` tells one content of a path from another."""

    def read(self, path: RemotePath, version: str, offset: int, size: int) -> bytes | None:
        """``size`` bytes (fewer at the end of the file), or None where not all of them are held intact."""
        ...

    def store(self, path: RemotePath, version: str, chunk: Chunk) -> bool:
        """Keeps the whole blocks that ``chunk`` covers; whether it did."""
        ...

    def total(self, path: RemotePath, version: str) -> int | None:
        """The exact size of that version if it was ever stored."""
        ...

    def adopt(self, path: RemotePath, version: str, body: Body, source: Source) -> None:
        """Keeps what was just acknowledged, so that it is not fetched again."""

    def close(self) -> None: ...

    @property
    def used(self) -> int: ...
    @property
    def limit(self) -> int: ...
    @property
    def hits(self) -> int: ...
    @property
    def misses(self) -> int: ...
