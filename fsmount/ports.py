"""Every abstraction between the parts, on one page.

Invariant: the filesystem, the uploader and the control tree know these protocols and no concrete class; ``app`` alone
joins them. A method that is ``async`` is a trio checkpoint; the others never block on the remote and are atomic between
two checkpoints.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from msgspec import Struct

from fsmount.errors import RemoteError
from fsmount.model import (
    Attempt,
    Base,
    Body,
    CacheUse,
    Capabilities,
    Change,
    Chunk,
    Claim,
    Connection,
    Counts,
    Digest,
    DraftId,
    Entry,
    LocalNode,
    MountIdentity,
    Op,
    OpId,
    Preconditions,
    Reason,
    Receipt,
    Record,
    RemotePath,
    Revision,
    SpoolUse,
    State,
    Theirs,
    Totals,
    Traffic,
    Transfer,
)  # fmt: skip


class Clock(Protocol):
    """Time. ``now`` is UTC epoch seconds; ``monotonic`` is what waiting is measured with."""

    def now(self) -> float: ...
    def monotonic(self) -> float: ...


class Source(Protocol):
    """Bytes on this disk: a sealed body or a draft. ``read`` is a pread and may return less only at the end."""

    @property
    def size(self) -> int: ...
    def read(self, offset: int, size: int) -> bytes: ...
    def close(self) -> None: ...


class Upload(Struct, frozen=True, kw_only=True):
    """One file to put: ``key`` makes a repeated request recognisable; it covers op, path, base, digest and redrive."""

    path: RemotePath
    base: Base
    source: Source
    digest: Digest
    content_type: str
    """Empty where the name tells nothing: then the bytes decide."""
    key: str


class Remote(Protocol):
    """The service that owns the files. Every method raises RemoteError's subclasses and nothing else of the network.

    No method retries, save once with a fresh credential after a 401.
    """

    @property
    def capabilities(self) -> Capabilities: ...

    async def probe(self) -> None:
        """One small read with the credential; returns when the remote answers it with 2xx. Learns the capabilities."""

    async def listing(self, directory: RemotePath) -> list[Entry]:
        """All direct children, however many pages; empty where there is no such directory."""

    async def read(self, path: RemotePath, revision: Revision | None, start: int, length: int) -> Chunk:
        """At least bytes ``start`` … ``start+length`` as far as they exist, at whatever revision the remote has now.

        A remote without ``ranges`` answers with the whole file. The caller compares the revision with what it wanted.
        """

    async def put(self, upload: Upload) -> Receipt:
        """Creates or replaces one file if it still stands at ``upload.base``."""

    async def put_many(self, uploads: Sequence[Upload]) -> list[Receipt | RemoteError]:
        """The same for several files in one request, each with its own verdict, in the order given.

        Raises only when the request as a whole failed, which is the verdict of no file.
        """

    async def delete(self, path: RemotePath, base: Base) -> Receipt:
        """Removes one file if it still stands at ``base``."""

    async def copy_metadata(self, upload: Upload, source: RemotePath, revision: Revision | None) -> Receipt:
        """As ``put``, carrying over what the remote keeps beside ``source``'s content (permissions, properties)."""

    async def remove_directory(self, path: RemotePath) -> None:
        """Removes an empty directory; raises Refusal 409 ``not_empty`` where anything lies in it."""

    def changes(self) -> AsyncIterator[Change | None]:
        """The change feed from now on; ``None`` says that changes may have been missed. Ends by raising RemoteError."""
        ...

    def credential_changed(self) -> bool:
        """Reads the credential again; whether it differs from the one that was refused last. Never raises."""
        ...

    async def aclose(self) -> None: ...


class Draft(Source, Protocol):
    """A body that is still being written. Raises OSError (ENOSPC, EDQUOT) from ``write`` and ``truncate`` only."""

    @property
    def draft_id(self) -> DraftId: ...
    @property
    def body(self) -> Body:
        """Its present length and, if it was written front to back, its digest; costs what came since last time."""
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

    def seal(self, draft_id: DraftId, digest: Digest | None) -> Body:
        """Makes the draft a body and returns its true size and digest; blocks: call it in a thread when large.

        Given a digest that was reckoned while writing, the file is only renamed. Open handles of the draft read on.
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

    def remove(self, body: Body) -> None:
        """Forgets one body or draft; nothing happens if it is gone."""

    def sweep(self, digests: Iterable[Digest], drafts: Iterable[DraftId]) -> int:
        """Removes every file that is not named; how many. Only at the start, before anything writes."""
        ...

    @property
    def used(self) -> int:
        """Bytes held, drafts included."""
        ...

    @property
    def limit(self) -> int: ...


class Cache(Protocol):
    """Remote content, bounded; losing any of it loses nothing. ``version`` tells one content of a path from another."""

    def read(self, path: RemotePath, version: str, offset: int, size: int) -> bytes | None:
        """``size`` bytes (fewer at the end of the file), or None where not all of them are held intact."""
        ...

    def store(self, path: RemotePath, version: str, chunk: Chunk) -> None: ...
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


class Journal(Protocol):
    """The ops, durable before any call returns. All of it is synchronous; each call is one transaction."""

    def transaction(self) -> AbstractContextManager[None]:
        """Joins the calls made within to one transaction: all of them or, if it is left by an exception, none.

        No checkpoint may come within. Watchers are called once, at its end.
        """
        ...

    # what a program did
    def begin_draft(self, draft_id: DraftId, path: RemotePath, base: Base, *, local: bool = False) -> None:
        """Records a draft before its first byte. ``local``: litter, which is never sent."""

    def move_draft(self, draft_id: DraftId, path: RemotePath, base: Base) -> None: ...
    def adopt_draft(self, draft_id: DraftId, path: RemotePath, base: Base) -> None:
        """A litter file's draft takes a name that is sent."""

    def put(
        self,
        draft_id: DraftId | None,
        path: RemotePath,
        shown: Base,
        body: Body,
        *,
        content_type: str,
        mtime: float,
        still_open: bool,
    ) -> OpId:
        """Journals what a flush or close promises.

        Coalesces with the newest op of ``path`` where that was never attempted; inherits its base; else made from
        ``shown``. ``still_open``: a handle that wrote it is still open.
        """
        ...

    def touch_draft(self, draft_id: DraftId) -> None:
        """The draft of a journalled op was written again: it is not due for ``open_settle``."""

    def end_draft(self, draft_id: DraftId) -> None:
        """The last handle that wrote it has closed."""

    def delete(self, path: RemotePath, shown: Base, *, settle: float | None = None) -> None: ...
    def rename(self, old: RemotePath, new: RemotePath, shown_old: Base, shown_new: Base) -> None: ...
    def rmdir(self, path: RemotePath) -> None: ...
    def cancel_rmdir(self, path: RemotePath) -> bool:
        """Takes back an rmdir that was never attempted; whether there was one."""
        ...

    def durable(self) -> None:
        """Makes everything journalled so far survive power loss; blocks for one disk flush."""

    # what the mount shows
    def shown(self, path: RemotePath) -> Record | None:
        """The newest unsettled op that decides what stands at ``path`` (as its path or a move's new name)."""
        ...

    def origin(self, move: Op) -> tuple[RemotePath, Base]:
        """Where the remote holds the bytes of an unsettled move that brings none."""
        ...

    def shown_below(self, directory: RemotePath) -> dict[str, Record | None]:
        """The same for every name in ``directory``; None where an op puts something deeper: a directory is there."""
        ...

    def implies_directory(self, path: RemotePath) -> bool:
        """Whether an unsettled op puts something below ``path``."""
        ...

    def inherited(self, path: RemotePath) -> Base | None:
        """The base that the next op on ``path`` inherits, if any op is unsettled there."""
        ...

    # sending
    def claim(self, limit: int) -> list[Claim]: ...
    def next_due(self) -> float | None:
        """Monotonic time of the next op that may be sent; None if there is none."""
        ...

    def sealed(self, claim: Claim, body: Body) -> Claim:
        """Records what sealing the claimed op's draft gave; with ``body.draft`` still set, what it is about to give."""
        ...

    def acknowledge(self, claim: Claim, receipt: Receipt, attempt: Attempt) -> list[OpId]:
        """The op is done: its base is passed on to later ops of the path, older dead letters are superseded (returned).

        An ``attempt`` with an error (a refusal that turned out to be a lost answer) counts among the failed ones.
        """
        ...

    def step(self, claim: Claim, receipt: Receipt, attempt: Attempt) -> Claim:
        """A move's new name was acknowledged; the old one is to be deleted."""
        ...

    def postpone(self, claim: Claim, until: float, attempt: Attempt | None, *, charged: bool) -> None:
        """Back to pending, due at monotonic ``until``."""

    def rebase(self, claim: Claim, base: Base, attempt: Attempt) -> None:
        """Back to pending, due now, at another base; uncharged."""

    def bury(
        self,
        claim: Claim,
        reason: Reason,
        message: str,
        attempt: Attempt | None,
        *,
        charged: bool,
        theirs: Theirs | None = None,
    ) -> None:
        """A dead letter; ``theirs`` is the remote's version that a conflict is with."""

    def sent_digests(self, path: RemotePath) -> frozenset[Digest]:
        """The digests of all bodies of unsettled or discarded ops of ``path`` that were ever sent."""
        ...

    def expedite(self) -> None:
        """Makes due what only settles: closed ops that were never attempted."""

    def released(self) -> list[Body]:
        """Bodies that no row refers to any more, since the last call; the caller removes them from the spool."""
        ...

    # what a person decides
    def retry(self, op_id: OpId) -> None:
        """Raises VerbRefused: ENOENT gone, EBUSY being sent, damaged or with a newer op on its path; else EPERM."""

    def discard(self, op_id: OpId) -> None: ...

    # facts
    def record(self, op_id: OpId) -> Record | None: ...
    def records(self, state: State | None = None, *, limit: int | None = None) -> list[Record]: ...
    def op_ids(self, state: State, *, with_body: bool = False) -> list[OpId]:
        """The ids alone, oldest first: cheap for a hundred thousand. ``with_body``: only of ops that bring bytes."""
        ...

    def dead_by_reason(self) -> dict[str, int]:
        """How many dead letters there are of each reason."""
        ...

    def counts(self) -> Counts: ...
    def totals(self) -> Totals: ...
    def last_errors(self) -> dict[str, tuple[Record, Attempt]]:
        """The most recent failed attempt of an unresolved op, per provider."""
        ...

    def version(self) -> int:
        """Grows with every change of what ``records`` and ``counts`` tell."""
        ...

    def watch(self, changed: Callable[[], None]) -> None:
        """``changed`` is called after every transaction, on the loop's thread; it must not block."""

    def close(self) -> None: ...


class Overlay(Protocol):
    """What the uploader tells the filesystem, each in the same synchronous stretch as the journal's change."""

    def freeze(self, draft_id: DraftId) -> Body | None:
        """The draft is about to be sealed: from now on a write copies it first. Its present length and digest, if a
        handle still has it open."""
        ...

    def acknowledged(self, op: Op, receipt: Receipt) -> None:
        """``op`` is gone from the journal: the remote stands as ``receipt`` says."""

    def changed(self, op: Op) -> None:
        """What stands at the op's names may differ now: it died, was discarded or redriven."""


class Attributes(Protocol):
    """What the remote cannot hold: modes, owners, times, empty directories, litter. Durable, follows renames."""

    def node(self, path: RemotePath) -> LocalNode | None: ...
    def nodes_in(self, directory: RemotePath) -> list[LocalNode]: ...
    def keep(self, node: LocalNode) -> None:
        """Writes the whole row of ``node.path``."""

    def forget(self, path: RemotePath) -> None: ...


class KernelCache(Protocol):
    """Tells the kernel that something changed behind its back. Safe from the loop; never waits."""

    def entry_changed(self, parent: int, name: str) -> None: ...
    def content_changed(self, ino: int) -> None: ...
    def attributes_changed(self, ino: int) -> None: ...


class Commands(Protocol):
    """What a person's gesture in ``.relay`` does. Each raises VerbRefused or returns after the journal has it."""

    def retry(self, op_id: OpId) -> None: ...
    def discard(self, op_id: OpId) -> None: ...


class EventLog(Protocol):
    """What happened, a line each. Never blocks, never raises: a full disk costs the line, not the caller."""

    def note(
        self,
        event: str,
        message: str = "",
        *,
        op: OpId | None = None,
        path: RemotePath | None = None,
        level: str = "info",
    ) -> None: ...


class Facts(Protocol):
    """What a Snapshot is made of. Nothing here waits for the remote, a thread or another task."""

    @property
    def identity(self) -> MountIdentity: ...
    @property
    def journal(self) -> Journal: ...
    def now(self) -> float:
        """UTC epoch seconds."""
        ...

    def connection(self) -> Connection: ...
    def preconditions(self) -> Preconditions: ...
    def transfers(self) -> Sequence[Transfer]: ...
    def traffic(self) -> Traffic: ...
    def cache(self) -> CacheUse: ...
    def spool(self) -> SpoolUse: ...


class LogFile(Protocol):
    """One generation of the log as a reader holds it; its bytes never move, they only become more."""

    @property
    def generation(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def mtime(self) -> float:
        """When its last line was written, epoch seconds."""
        ...

    def read(self, offset: int, size: int) -> bytes: ...
    def close(self) -> None:
        """The reader is done; a generation that is no longer written goes with its last reader."""


class ReadableLog(EventLog, Protocol):
    """The log as ``.relay/log`` shows it."""

    @property
    def current(self) -> LogFile:
        """The generation that is written now; not to be closed."""
        ...

    def open(self) -> LogFile:
        """The current generation, held until it is closed."""
        ...
