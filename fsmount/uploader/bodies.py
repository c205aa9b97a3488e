"""The bytes that travel: sealing and checking our own, fetching the remote's.

Invariant: no byte is sent whose length and digest are not those that the journal recorded. The journal knows the digest
of a draft before the draft gets its name, on the disk too where fsync was asked for, so that a crash between the two
finds the body again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TypeVar

import trio

from fsmount.errors import InvalidAnswer, Refusal
from fsmount.model import Base, Body, Chunk, Claim, Digest, Op, RemotePath, Revision, Theirs
from fsmount.ports import Draft, Journal, Remote, Source, Spool, Upload
from fsmount.retry import GONE
from fsmount.uploader.parts import Claimed

T = TypeVar("T")
INLINE = 1024 * 1024
"""Bytes that are hashed or copied on the loop; more goes to a thread."""
IN_MEMORY = 256 * 1024
"""A body up to this long is read once: what was checked is what is sent."""
PIECE = 1024 * 1024
FETCH = 4 * 1024 * 1024
RESTARTS = 3


class CorruptBody(Exception):
    """The bytes on disk are not those that the journal recorded."""


class Memory:
    """A Source over bytes that are held already."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    @property
    def size(self) -> int:
        return len(self._content)

    def read(self, offset: int, size: int) -> bytes:
        return self._content[offset : offset + size]

    def close(self) -> None:
        pass


class Metered:
    """A Source that tells how far it was read."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.sent = 0

    @property
    def size(self) -> int:
        return self._source.size

    def read(self, offset: int, size: int) -> bytes:
        content = self._source.read(offset, size)
        self.sent = max(self.sent, offset + len(content))
        return content

    def close(self) -> None:
        self._source.close()


@dataclass(slots=True)
class Parcel:
    """A claim that is ready to be put; ``source`` is the upload's."""

    claim: Claim
    upload: Upload
    source: Metered


def parcel_of(claim: Claim, source: Source, digest: Digest, content_type: str | None) -> Parcel:
    """What puts ``source`` at the op's target."""
    op = claim.op
    metered = Metered(source)
    upload = Upload(
        path=op.target,
        base=op.target_base,
        source=metered,
        digest=digest,
        content_type=content_type or op.content_type or "",
        key=key_of(op, digest),
    )
    return Parcel(claim=claim, upload=upload, source=metered)


def key_of(op: Op, digest: Digest) -> str:
    """The same for every attempt of one intent, another once its path, base, bytes or redrive differ."""
    parts = (op.op_id, op.target, op.target_base.revision or "", digest, str(op.redrives))
    return f"{op.op_id}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:32]}"


async def recorded(batch: Iterable[Claimed], journal: Journal, spool: Spool) -> None:
    """Before any of these is sealed: what the journal knows of the drafts that fsync promised is on the disk.

    A checkpoint where there are such drafts.
    """
    bodies = [claimed.frozen or claimed.claim.op.body for claimed in batch]
    if any(body is not None and body.draft is not None and spool.lasting(body) for body in bodies):
        await trio.to_thread.run_sync(journal.durable)


async def sealed(claimed: Claimed, journal: Journal, spool: Spool) -> Claim:
    """The claim with its draft made a body, after ``recorded``; raises CorruptBody. A checkpoint where that is long."""
    claim = claimed.claim
    body = claim.op.body
    if body is None or body.draft is None:
        return claim
    draft, expected = body.draft, claimed.frozen or body
    try:
        digest = expected.digest or await _in_thread(expected.size, lambda: _digest(spool.open(expected)))
        if (expected.size, digest) != (body.size, body.digest):
            claim = journal.sealed(claim, Body(size=expected.size, digest=digest, draft=draft))
            if spool.lasting(expected):
                await trio.to_thread.run_sync(journal.durable)
        found = await _in_thread(expected.size, lambda: spool.seal(draft, digest, expected.size))
    except FileNotFoundError:
        found = await _already_sealed(spool, expected)
    if found.size != expected.size or (expected.digest is not None and found.digest != expected.digest):
        raise CorruptBody(f"its {found.size} bytes on this disk are not the {expected.size} that were written")
    return journal.sealed(claim, found)


async def parcel(claim: Claim, spool: Spool) -> Parcel:
    """The claimed op's sealed body, checked; raises CorruptBody. A checkpoint where the body is large."""
    body = claim.op.body
    if body is None or body.digest is None:
        raise CorruptBody("the journal knows no bytes for it")
    try:
        source = await _checked(spool, body, body.digest)
    except FileNotFoundError as error:
        raise CorruptBody("its bytes are no longer on this disk") from error
    return parcel_of(claim, source, body.digest, claim.op.content_type)


async def _already_sealed(spool: Spool, expected: Body) -> Body:
    """The body that a former run sealed before it could say so."""
    body = Body(size=expected.size, digest=expected.digest)
    if expected.digest is None or not await _in_thread(body.size, lambda: spool.verify(body)):
        raise CorruptBody("its bytes are no longer on this disk")
    return body


async def _checked(spool: Spool, body: Body, digest: Digest) -> Source:
    if body.size <= IN_MEMORY:
        content = _whole(spool.open(body))
        intact = len(content) == body.size and hashlib.sha256(content).hexdigest() == digest
        source: Source = Memory(content)
    else:
        intact = await _in_thread(body.size, lambda: spool.verify(body))
        source = spool.open(body)
    if not intact:
        source.close()
        raise CorruptBody("its bytes on this disk were changed or cut since they were written")
    return source


@dataclass(slots=True)
class Fetched:
    """The remote's version of a file. ``draft`` holds its bytes; None where this disk had no room for them, or they
    were not needed.
    """

    revision: Revision
    digest: Digest
    size: int
    content_type: str | None
    draft: Draft | None
    spool: Spool

    @property
    def base(self) -> Base:
        """What a change made from this version has for its base."""
        return Base(self.revision, self.digest)

    async def keep(self) -> Theirs:
        """Makes its bytes a body that stays beside a conflict."""
        draft, self.draft = self.draft, None
        if draft is None:
            return Theirs(base=self.base)
        draft.close()
        return Theirs(
            base=self.base, body=await _in_thread(self.size, lambda: self.spool.seal(draft.draft_id, self.digest))
        )

    def drop(self) -> None:
        """Forgets its bytes, unless they were kept."""
        draft, self.draft = self.draft, None
        if draft is not None:
            draft.close()
            self.spool.remove(Body(size=self.size, digest=None, draft=draft.draft_id))


async def fetch(
    path: RemotePath, remote: Remote, spool: Spool, known: Collection[Digest | None] = ()
) -> Fetched | None:
    """The file at ``path`` as the remote has it now, at one revision; None if it has none. Raises RemoteError.

    Where the remote says at its beginning that a long file is one of those ``known``, the rest is not fetched.
    """
    for _ in range(RESTARTS):
        try:
            fetched = await _Fetch(path, remote, spool).whole(known)
        except Refusal as error:
            if error.status in GONE:
                return None
            raise
        if fetched is not None:
            return fetched
    raise InvalidAnswer(f"{path} changed on the remote each time while it was read")


class _Fetch:
    """One reading of a file from its first byte on."""

    def __init__(self, path: RemotePath, remote: Remote, spool: Spool) -> None:
        self._path = path
        self._remote = remote
        self._spool = spool
        self._hasher = hashlib.sha256()
        self._size = 0
        self._draft: Draft | None = None

    async def whole(self, known: Collection[Digest | None]) -> Fetched | None:
        """None where the revision changed on the way."""
        self._draft = _new_draft(self._spool)
        try:
            first = chunk = await self._next(None)
            if self._size < first.total and first.digest is not None and first.digest in known:
                self._drop()
                return self._fetched(first, first.digest, first.total)
            while self._size < first.total:
                chunk = await self._next(first.revision)
                if chunk.revision != first.revision:
                    self._drop()
                    return None
        except BaseException:
            self._drop()
            raise
        return self._fetched(first, Digest(self._hasher.hexdigest()), self._size)

    def _fetched(self, first: Chunk, digest: Digest, size: int) -> Fetched:
        return Fetched(
            revision=first.revision,
            digest=digest,
            size=size,
            content_type=first.content_type,
            draft=self._draft,
            spool=self._spool,
        )

    async def _next(self, revision: Revision | None) -> Chunk:
        chunk = await self._remote.read(self._path, revision, self._size, FETCH)
        fresh = chunk.data[self._size - chunk.start :] if chunk.start <= self._size else b""
        if not fresh and self._size < chunk.total:
            raise InvalidAnswer(f"{self._path}: the remote sent no bytes from {self._size} on")
        await _in_thread(len(fresh), lambda: self._take(fresh))
        return chunk

    def _take(self, content: bytes) -> None:
        self._hasher.update(content)
        if self._draft is not None:
            try:
                self._draft.write(self._size, content)
            except OSError:
                # A full disk must not keep a conflict from being found out: the digest alone decides it.
                self._drop()
        self._size += len(content)

    def _drop(self) -> None:
        draft, self._draft = self._draft, None
        if draft is not None:
            draft.close()
            self._spool.remove(Body(size=self._size, digest=None, draft=draft.draft_id))


def _new_draft(spool: Spool) -> Draft | None:
    try:
        return spool.create()
    except OSError:
        return None


def _whole(source: Source) -> bytes:
    try:
        return source.read(0, source.size)
    finally:
        source.close()


def _digest(source: Source) -> Digest:
    hasher, offset = hashlib.sha256(), 0
    try:
        while piece := source.read(offset, PIECE):
            hasher.update(piece)
            offset += len(piece)
    finally:
        source.close()
    return Digest(hasher.hexdigest())


async def _in_thread(size: int, work: Callable[[], T]) -> T:
    """Runs ``work`` where it does not hold up the loop for the time that ``size`` bytes take."""
    return work() if size <= INLINE else await trio.to_thread.run_sync(work)
