"""Ops: what they want, where they stand, and what became of their attempts.

Invariant: everything here is immutable and does no I/O.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from fsmount.model.files import Kind
from fsmount.model.paths import Digest, DraftId, OpId, RemotePath, Revision

DOUBTED = Revision("rev_before_reset")
"""No remote's revision."""


class Base(Struct, frozen=True, gc=False):
    """What local changes were made from: a remote revision (with its digest where known), or nothing."""

    revision: Revision | None = None
    digest: Digest | None = None

    @property
    def absent(self) -> bool:
        """Whether the file did not exist."""
        return self.revision is None

    @property
    def doubted(self) -> Base:
        """The same content at a revision that the remote has for nothing: what is sent from it meets a conflict, and
        then the content decides.
        """
        return self if self.absent else Base(DOUBTED, self.digest)

    def like(self, other: Base) -> bool:
        """Whether both are there and are one revision, or hold the same bytes."""
        if self.absent or other.absent:
            return False
        return self.revision == other.revision or (self.digest is not None and self.digest == other.digest)


ABSENT = Base()


class Body(Struct, frozen=True, kw_only=True):
    """The bytes of an op: a sealed spool file, or a draft that is sealed when the op is claimed.

    ``digest`` is None only while a draft was not written front to back; sealing computes it.
    """

    size: int
    digest: Digest | None
    draft: DraftId | None = None


class OpKind(StrEnum):
    """What an op does to the remote."""

    PUT = "put"
    DELETE = "delete"
    MOVE = "move"
    RMDIR = "rmdir"


class State(StrEnum):
    """Where an op stands. An acknowledged op leaves the journal."""

    PENDING = "pending"
    SENDING = "sending"
    HELD = "held"
    DEAD = "dead-letter"
    DISCARDED = "discarded"


class Reason(StrEnum):
    """Why an op is a dead letter."""

    REJECTED = "rejected"
    EXHAUSTED = "exhausted"
    CONFLICT = "conflict"
    REMOTE_DELETED = "remote-deleted"
    FORBIDDEN = "forbidden"
    TOO_LARGE = "too-large"
    PARENT_MISSING = "parent-missing"
    NOT_EMPTY = "not-empty"
    PROVIDER_FAILED = "provider-failed"
    INTERRUPTED = "interrupted"
    CORRUPT_SPOOL = "corrupt-spool"


NOT_OVERLAID = (Reason.INTERRUPTED, Reason.CORRUPT_SPOOL, Reason.PROVIDER_FAILED)
"""Dead letters whose bytes do not stand at their path: the remote's version does."""


class Op(Struct, frozen=True, kw_only=True):
    """One durable intent to change the remote; from the first attempt on it never changes.

    ``path``/``base`` are what is put, deleted or moved away; ``to_path``/``to_base`` are a move's new name.
    ``body`` is what a put, or a move whose content is unsent, brings. ``step`` is 1 once a move's new name was
    acknowledged.
    """

    op_id: OpId
    seq: int
    kind: OpKind
    path: RemotePath
    base: Base
    to_path: RemotePath | None = None
    to_base: Base | None = None
    body: Body | None = None
    content_type: str | None = None
    step: int = 0
    redrives: int = 0
    group: str | None = None
    """Shared by the moves of one directory rename."""
    created_at: float

    @property
    def target(self) -> RemotePath:
        """The name that the op writes: a move's new one, else its path."""
        return self.to_path or self.path

    @property
    def target_base(self) -> Base:
        """The base of ``target``."""
        return self.base if self.to_base is None else self.to_base

    def base_of(self, path: RemotePath) -> Base:
        """The base that this op has for ``path``, one of its names."""
        return self.target_base if path == self.target else self.base


class Attempt(Struct, frozen=True, kw_only=True):
    """One request made for an op. ``status`` is 0 when no HTTP answer came; ``error`` is None after a 2xx."""

    at: float
    status: int
    error: str | None
    duration: float
    correlation_id: str | None = None
    body: str = ""


class Theirs(Struct, frozen=True, kw_only=True):
    """The remote's version that a conflict is with; ``body`` holds its bytes where they could be fetched."""

    base: Base
    body: Body | None = None


class Record(Struct, frozen=True, kw_only=True):
    """An op with everything the journal knows of it; what ``.relay`` shows.

    ``not_before`` is on the monotonic clock of the running daemon. ``attempted`` says whether any request was ever
    begun for it. ``open`` says whether a handle that has written it is still open.
    """

    op: Op
    state: State
    attempts: int = 0
    attempted: bool = False
    open: bool = False
    not_before: float = 0.0
    reason: Reason | None = None
    message: str = ""
    dead_at: float | None = None
    superseded_by: OpId | None = None
    remote_op_id: str | None = None
    blocked_by: OpId | None = None
    history: tuple[Attempt, ...] = ()
    theirs: Theirs | None = None
    forced: bool = False
    """A person said that this version wins over ``theirs``."""
    malformed: str | None = None
    accepted: bool = False
    """The remote took it, and only the provider behind it failed: it has no body, and decides nothing of its path."""


class Claim(Struct, frozen=True, kw_only=True):
    """The proof that its holder may settle ``op``; ``lease`` differs for every claim."""

    op: Op
    lease: int
    attempts: int
    budget_start: int
    """Attempts that were counted when the op got its present budget."""
    forced: bool = False
    theirs: Theirs | None = None
    """What a forced op replaces."""
    replays: str | None = None
    """The remote's own op that is to be tried again there: nothing else is sent."""


class Receipt(Struct, frozen=True, kw_only=True):
    """The remote's acknowledgement of one request. ``revision`` is None after a delete, which the remote may count as
    a revision of its own: ``tombstone``.
    """

    path: RemotePath
    revision: Revision | None
    digest: Digest | None = None
    remote_op_id: str | None = None
    correlation_id: str | None = None
    tombstone: Revision | None = None


class Delivered(Struct, frozen=True, kw_only=True):
    """An op that the remote took last at ``path``, as ``remote_op_id``; the provider behind it may still fail.

    ``revision`` is what the remote counted the put or the delete as.
    """

    op_id: OpId
    path: RemotePath
    kind: OpKind
    revision: Revision | None
    remote_op_id: str | None


class LocalNode(Struct, frozen=True, kw_only=True):
    """What the mount keeps of a path because the remote cannot: see ``Attributes`` in ports.

    ``kind`` is None where the node only carries attributes of a file that lives elsewhere. ``mtime`` counts for the
    remote's ``mtime_revision`` and for unsent ops. ``body`` is a litter file's content, ``target`` what a symbolic
    link says. ``made_at`` is when a file that this mount created was first delivered.
    """

    path: RemotePath
    kind: Kind | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime: float | None = None
    mtime_revision: Revision | None = None
    body: Body | None = None
    target: bytes | None = None
    made_at: float | None = None


class Counts(Struct, frozen=True, kw_only=True):
    """How many ops there are by state, now; ``bytes`` are those of unsent bodies (pending, sending).

    ``blocked`` ones are pending too. ``local`` counts what only this mount keeps: directories, links, litter and
    attributes.
    """

    pending: int = 0
    sending: int = 0
    blocked: int = 0
    held: int = 0
    local: int = 0
    dead: int = 0
    discarded: int = 0
    bytes: int = 0
    oldest_at: float | None = None


class Totals(Struct, frozen=True, kw_only=True):
    """Counters that are persisted and only ever grow: history, never health."""

    failed_attempts: int = 0
    failed_writebacks: int = 0
    acknowledged: int = 0
    superseded: int = 0
    discarded: int = 0
    bytes_up: int = 0


class Timing(Struct, frozen=True, kw_only=True):
    """How long an op settles before it is due; seconds. ``max_settle`` counts from the first close of a burst."""

    settle: float
    max_settle: float
    delete_settle: float
    open_settle: float
