"""What the parts tell each other and a person: the overlay, the kernel, the log, facts and commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from fsmount.model import (
    Body,
    CacheUse,
    Connection,
    DraftId,
    MountIdentity,
    Op,
    OpId,
    OpKind,
    Preconditions,
    Problem,
    ProviderResults,
    Reason,
    Receipt,
    RemotePath,
    Revision,
    SetApart,
    SpoolUse,
    Traffic,
    Transfer,
    Writes,
)
from fsmount.ports.journal import Journal


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


class KernelCache(Protocol):
    """Tells the kernel that something changed behind its back. Safe from the loop; never waits.

    The kernel's pages are no concern of it: whoever opens a file is told whether those are of the version that he
    gets.
    """

    def entry_changed(self, parent: int, name: str, ino: int | None = None) -> None:
        """Something else, or nothing, stands under that name in the directory; what the kernel makes of an answer that
        it got before concerns ``ino``."""
        ...

    def attributes_changed(self, ino: int) -> None: ...
    def entries_changed(self, directory: int, entries: Sequence[tuple[str | None, int]]) -> None:
        """As ``entry_changed`` for many names in one directory, and their inodes; where the name is None it is kept,
        and the attributes go."""
        ...


class Commands(Protocol):
    """What a person's gesture in ``.relay`` does. Each raises VerbRefused or returns after the journal has it."""

    def retry(self, op_id: OpId) -> None: ...
    def force(self, op_id: OpId) -> None: ...
    def discard(self, op_id: OpId) -> None: ...
    def purge(self, op_id: OpId) -> None: ...
    def retry_dead(self, provider: str | None) -> int:
        """Every dead letter (of a provider) that can be tried again, the newest of each path; how many."""
        ...

    def release_held(self) -> int: ...
    def discard_held(self) -> int: ...
    def refresh(self, path: RemotePath) -> None:
        """What is known of ``path`` and all below it is asked again."""

    def pause(self) -> None:
        """Nothing is sent until ``resume``, over restarts too."""

    def resume(self) -> None:
        """Sends again, also where uploads pause because too much was refused."""

    def flush(self) -> None:
        """Makes due what only settles."""


class Details(Struct, frozen=True, kw_only=True):
    """What a line of ``.relay/events`` has beside event, op and path."""

    kind: OpKind | None = None
    reason: Reason | None = None
    status: int | None = None
    attempt: int | None = None
    revision: Revision | None = None
    state: str | None = None


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
        details: Details | None = None,
    ) -> None:
        """A line of the log; one of ``.relay/events`` too if ``event`` is one of those and more than the message is
        given, whatever the level."""


class Facts(Protocol):
    """What a Snapshot is made of. Nothing here waits for the remote, a thread or another task."""

    @property
    def identity(self) -> MountIdentity: ...
    @property
    def journal(self) -> Journal: ...
    def now(self) -> float:
        """UTC epoch seconds."""
        ...

    def uptime(self) -> float | None:
        """Seconds that the daemon has run, however often the clock was set; None where there is none."""
        ...

    def connection(self) -> Connection: ...
    def preconditions(self) -> Preconditions: ...
    def provider_results(self) -> ProviderResults:
        """Whether this credential may ask what became of accepted writes."""
        ...

    def writes(self) -> Writes | None:
        """Where programs may write; None without a daemon."""
        ...

    def transfers(self) -> Sequence[Transfer]: ...
    def paused(self) -> bool:
        """Whether a person said ``pause``."""
        ...

    def refusing(self) -> bool:
        """Whether uploads all but stopped because the remote refused so many in a row."""
        ...

    def problems(self) -> Sequence[Problem]:
        """What is not shown as it is."""
        ...

    def apart(self) -> Sequence[SetApart]:
        """The files of changes that the end of the journal forgot."""
        ...

    def settings(self) -> dict[str, object]:
        """The effective configuration for ``config.json``, in JSON's types, without secrets."""
        ...

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


class Stream(Protocol):
    """Lines that only become more, as ``.relay/log`` and ``.relay/events`` show them."""

    @property
    def current(self) -> LogFile:
        """The generation that is written now; not to be closed."""
        ...

    def open(self) -> LogFile:
        """The current generation, held until it is closed."""
        ...

    def watch(self, grown: Callable[[], None]) -> None:
        """``grown`` is called after each line, on whatever thread wrote it; it must not block."""


class ReadableLog(EventLog, Stream, Protocol):
    """The log as ``.relay/log`` shows it."""

    @property
    def events(self) -> Stream:
        """The same for programs: ``.relay/events``."""
        ...
