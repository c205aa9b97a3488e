"""What is told of a mount as a whole: which it is, its way to the remote, its traffic and stores.

Invariant: everything here is immutable and does no I/O.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from fsmount.model.paths import OpId, RemotePath


class ConnectionState(StrEnum):
    """How the remote stands to us. ``limited``: it answers, but asked us to wait. ``unknown``: not asked yet."""

    UNKNOWN = "unknown"
    ONLINE = "online"
    LIMITED = "limited"
    OFFLINE = "offline"
    AUTH = "auth"


class Feed(StrEnum):
    """How changes made elsewhere are learned."""

    LIVE = "live"
    POLLING = "polling"
    NONE = "none"


class Preconditions(StrEnum):
    """Whether the remote refuses a write at an old base, or we can only look before we write."""

    ENFORCED = "enforced"
    CHECKED = "checked"
    UNKNOWN = "unknown"


class ProviderResults(StrEnum):
    """Whether this credential learns what became of accepted writes at the providers behind the remote."""

    KNOWN = "known"
    UNKNOWN = "unknown"


class WriteAccess(StrEnum):
    """How much of the tree programs may write."""

    ANYWHERE = "anywhere"
    PART = "part"
    NOWHERE = "nowhere"


class Refuser(StrEnum):
    """Who does not allow the rest."""

    CREDENTIAL = "credential"
    READ_ONLY = "read-only"


class Writes(Struct, frozen=True, kw_only=True):
    """Where programs may write; ``places`` are paths and patterns of paths, where it is a part of the tree."""

    allowed: WriteAccess = WriteAccess.ANYWHERE
    places: tuple[str, ...] = ()
    because: Refuser | None = None


class Connection(Struct, frozen=True, kw_only=True, rename="camel"):
    """The way to the remote, now. Times are UTC epoch seconds."""

    state: ConnectionState = ConnectionState.UNKNOWN
    feed: Feed = Feed.NONE
    last_contact_at: float | None = None
    offline_since: float | None = None
    next_probe_at: float | None = None


class Transfer(Struct, frozen=True, kw_only=True, rename="camel"):
    """One body that is being sent; bytes."""

    op_id: OpId
    path: RemotePath
    bytes_sent: int
    size: int


class Traffic(Struct, frozen=True, kw_only=True):
    """What this daemon has exchanged with the remote since it started."""

    requests: int = 0
    bytes_down: int = 0
    invalidations: int = 0
    last_event_at: float | None = None


class CacheUse(Struct, frozen=True, kw_only=True):
    """How full the cache is, in bytes, and what it answered since the start; None where nobody has looked."""

    bytes: int | None = None
    limit: int | None = None
    hits: int = 0
    misses: int = 0


class SpoolUse(Struct, frozen=True, kw_only=True):
    """How full the spool is; bytes, None where nobody has looked."""

    bytes: int | None = None
    limit: int | None = None


class Problem(Struct, frozen=True, kw_only=True, rename="camel"):
    """What is not shown as it is, at the remote or beneath the mount point; ``shown_as`` None: not at all."""

    path: str
    shown_as: str | None = None
    why: str


class SetApart(Struct, frozen=True, kw_only=True):
    """One file with bytes of a change that the end of the journal forgot; ``at`` is when it was last written."""

    path: str
    size: int
    at: float


FILE_AND_DIRECTORY = "a file and a directory have this name: the file is shown, what lies in the directory is not"
"""Why of a Problem."""


class MountIdentity(Struct, frozen=True, kw_only=True):
    """Which mount this is. ``pid`` and ``started_at`` are None when no daemon runs."""

    name: str
    remote: str
    workspace: str
    root: RemotePath
    mountpoint: str | None
    version: str
    pid: int | None = None
    started_at: float | None = None
