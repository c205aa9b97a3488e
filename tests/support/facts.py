"""A mount's facts that a test sets, over a real journal and spool, with the gestures that bring an op into a state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from fsmount.journal import SqliteJournal, open_journal
from fsmount.model import (  # fmt: skip
    ABSENT,
    Attempt,
    Base,
    CacheUse,
    Claim,
    Connection,
    ConnectionState,
    Feed,
    MountIdentity,
    OpId,
    Preconditions,
    Problem,
    ProviderResults,
    Reason,
    Record,
    RemotePath,
    Revision,
    SetApart,
    SpoolUse,
    State,
    Timing,
    Traffic,
    Transfer,
    Writes,
    provider_of,
)
from fsmount.spool import FileSpool
from tests.support.clock import ManualClock

TIMING = Timing(settle=0.0, max_settle=0.0, delete_settle=0.0, open_settle=0.0)


class Mounted:
    """Implements ports.Facts and ports.Commands; every fact is an attribute."""

    def __init__(self, directory: Path, *, root: str = "/", pid: int | None = 4711) -> None:
        self.clock = ManualClock()
        self._began = self.clock.monotonic()
        self.journal: SqliteJournal = open_journal(directory / "journal.db", self.clock, TIMING)
        self.spooled = FileSpool(directory / "spool")
        self.identity = MountIdentity(
            name="notes",
            remote="relayfile+http://127.0.0.1:8080/ws",
            workspace="ws",
            root=RemotePath(root),
            mountpoint="/mnt/notes",
            version="0.1.0",
            pid=pid,
            started_at=None if pid is None else self.clock.now(),
        )
        self.way = Connection(state=ConnectionState.ONLINE, feed=Feed.POLLING, last_contact_at=self.clock.now())
        self.writing = Writes()
        self.sending: tuple[Transfer, ...] = ()
        self.told: list[str] = []
        """The commands that concern the whole mount."""
        self.told_of_providers = ProviderResults.KNOWN
        self.pausing = False
        self.breaking = False
        self.odd: tuple[Problem, ...] = ()
        self.forgotten: tuple[SetApart, ...] = ()
        self.configured: dict[str, object] = {"settle": 0.3}

    def now(self) -> float:
        return self.clock.now()

    def uptime(self) -> float | None:
        return None if self.identity.pid is None else self.clock.monotonic() - self._began

    def connection(self) -> Connection:
        return self.way

    def preconditions(self) -> Preconditions:
        return Preconditions.ENFORCED

    def provider_results(self) -> ProviderResults:
        return self.told_of_providers

    def writes(self) -> Writes | None:
        return self.writing

    def transfers(self) -> Sequence[Transfer]:
        return self.sending

    def paused(self) -> bool:
        return self.pausing

    def refusing(self) -> bool:
        return self.breaking

    def problems(self) -> Sequence[Problem]:
        return self.odd

    def apart(self) -> Sequence[SetApart]:
        return self.forgotten

    def settings(self) -> dict[str, object]:
        return self.configured

    def traffic(self) -> Traffic:
        return Traffic(requests=3, bytes_down=10)

    def cache(self) -> CacheUse:
        return CacheUse(bytes=1536, limit=10 << 30, hits=5, misses=2)

    def spool(self) -> SpoolUse:
        return SpoolUse(bytes=0, limit=1 << 30)

    def retry(self, op_id: OpId) -> None:
        self.journal.retry(op_id)

    def discard(self, op_id: OpId) -> None:
        self.journal.discard(op_id)

    def force(self, op_id: OpId) -> None:
        self.journal.force(op_id)

    def purge(self, op_id: OpId) -> None:
        self.journal.purge(op_id)

    def retry_dead(self, provider: str | None) -> int:
        dead = [record for record in self.journal.records(State.DEAD) if record.malformed is None]
        chosen = [record for record in dead if provider in (None, provider_of(record.op.path))]
        return self._each(self.journal.retry, chosen)

    def release_held(self) -> int:
        return self._each(self.journal.retry, self.journal.records(State.HELD))

    def discard_held(self) -> int:
        return self._each(self.journal.discard, self.journal.records(State.HELD))

    def refresh(self, path: RemotePath) -> None:
        self.told.append(f"refresh {path}")

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    def flush(self) -> None:
        self.told.append("flush")

    def _each(self, decide: Callable[[OpId], None], records: list[Record]) -> int:
        for record in records:
            decide(record.op.op_id)
        return len(records)

    # gestures

    def save(self, path: str, content: bytes = b"hello") -> OpId:
        """A new file of ``content`` was closed at ``path``."""
        with_draft = self.spooled.create()
        self.journal.begin_draft(with_draft.draft_id, RemotePath(path), ABSENT)
        with_draft.write(0, content)
        body = self.spooled.seal(with_draft.draft_id, with_draft.body.digest)
        with_draft.close()
        self.journal.end_draft(with_draft.draft_id)
        return self.journal.put(
            None, RemotePath(path), ABSENT, body, content_type="text/plain", mtime=self.now(), still_open=False
        )

    def hold(self, path: str) -> OpId:
        """A delete that the brake holds."""
        self.journal.delete(RemotePath(path), Base(Revision("r1")), brake=0)
        return self.journal.op_ids(State.HELD)[-1]

    def claim(self, op_id: OpId) -> Claim:
        """The uploader began to send it."""
        return next(claim for claim in self.journal.claim(100) if claim.op.op_id == op_id)

    def refuse(self, op_id: OpId, status: int = 422, reason: Reason = Reason.REJECTED, body: str = "") -> None:
        """The remote refused it for good."""
        error = f"{status} schema_violation: title is required"
        attempt = Attempt(at=self.now(), status=status, error=error, duration=0.012, correlation_id="c1", body=body)
        self.journal.bury(self.claim(op_id), reason, f"the remote refused it: {error}", attempt, charged=True)

    def answered(self, status: int = 200) -> Attempt:
        """The attempt that the remote took."""
        return Attempt(at=self.now(), status=status, error=None, duration=0.005)

    def dead(self, path: str, content: bytes = b"hello", reason: Reason = Reason.REJECTED, body: str = "") -> OpId:
        """A saved file that the remote refused."""
        op_id = self.save(path, content)
        self.refuse(op_id, reason=reason, body=body)
        return op_id
