"""The one builder of the state that a mount shows of itself.

Invariant: ``.relay/status``, ``status.json``, ``state.json`` and the command line render a ``Snapshot`` and reckon
nothing of their own, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from fsmount.model import (  # fmt: skip
    CacheUse,
    Connection,
    ConnectionState,
    Counts,
    MountIdentity,
    OpId,
    Preconditions,
    Problem,
    ProviderResults,
    Reason,
    Record,
    RemotePath,
    SetApart,
    SpoolUse,
    State,
    Totals,
    Traffic,
    Transfer,
    Writes,
)
from fsmount.ports import Clock, Facts, Journal

NEWEST_DEAD_LETTERS = 100


class Health(StrEnum):
    """The worst that holds now; the order is that of urgency. What happened once is no part of it."""

    STOPPED = "stopped"
    AUTH = "auth"
    OFFLINE = "offline"
    PAUSED = "paused"
    FAILING = "failing"
    BUSY = "busy"
    OK = "ok"


class Queue(Struct, frozen=True, kw_only=True, rename="camel"):
    """How many ops there are, by state; ``blocked`` ones count as ``pending`` too. ``bytes`` are still to be sent."""

    pending: int
    sending: int
    blocked: int
    held: int
    dead_letter: int
    discarded: int
    bytes: int
    oldest_at: float | None


class DeadLetter(Struct, frozen=True, kw_only=True, rename="camel"):
    """One op that gave up; ``reason`` is None only for a damaged record."""

    op_id: OpId
    path: RemotePath
    reason: Reason | None
    attempts: int
    last_status: int
    ts: float


class LastError(Struct, frozen=True, kw_only=True, rename="camel"):
    """The newest failed attempt of an op that is still unresolved."""

    op_id: OpId
    path: RemotePath
    status: int
    message: str
    at: float


class Counters(Struct, frozen=True, kw_only=True, rename="camel"):
    """Only ever grow; ``requests``, ``bytes_down`` and ``invalidations`` begin anew with each daemon."""

    requests: int
    bytes_up: int
    bytes_down: int
    acknowledged: int
    superseded: int
    discarded: int
    invalidations: int


class Beside(Struct, frozen=True, kw_only=True):
    """What other renderings need and ``status.json`` has no member for; ``at`` is the moment of the Snapshot."""

    at: float
    workspace: str
    dead_by_reason: dict[str, int]
    paused: bool
    """A person paused uploads."""
    refusing: bool
    """Uploads all but stopped, because so much was refused."""
    local: int
    """What only this mount has: directories, links, litter and attributes."""
    problems: tuple[Problem, ...]
    apart: tuple[SetApart, ...]
    """What the end of the journal forgot."""
    settings: dict[str, object]
    last_event_at: float | None
    kept: dict[OpId, RemotePath] = {}
    """Of the listed dead letters that have bytes: where these belong."""


class Snapshot(Struct, frozen=True, kw_only=True, rename="camel"):
    """One mount at one moment: the members of ``status.json`` in their order, then ``beside``, which it leaves out."""

    schema: str = "fsmount.status/1"
    name: str
    remote: str
    remote_path: RemotePath
    mountpoint: str | None
    pid: int | None
    version: str
    started_at: float | None
    uptime_seconds: int | None
    health: Health
    damage: str | None
    """Why the mount can only read, where its journal is damaged or gone: its numbers tell nothing then."""
    connection: Connection
    preconditions: Preconditions
    provider_results: ProviderResults
    writes: Writes | None
    queue: Queue
    transfers: tuple[Transfer, ...]
    failed_attempts: int
    failed_writebacks: int
    dead_letters: tuple[DeadLetter, ...]
    last_error_by_provider: dict[str, LastError]
    cache: CacheUse
    spool: SpoolUse
    counters: Counters
    beside: Beside


class AtRest:
    """The Facts of a mount without a daemon, from its journal alone."""

    def __init__(
        self,
        identity: MountIdentity,
        journal: Journal,
        clock: Clock,
        spool: SpoolUse | None = None,
        apart: Sequence[SetApart] = (),
    ) -> None:
        self.identity = identity
        self.journal: Journal = journal
        self._clock = clock
        self._spool = spool or SpoolUse()
        self._apart = apart

    def now(self) -> float:
        return self._clock.now()

    def uptime(self) -> float | None:
        return None

    def connection(self) -> Connection:
        return Connection()

    def preconditions(self) -> Preconditions:
        return Preconditions.UNKNOWN

    def provider_results(self) -> ProviderResults:
        return ProviderResults.UNKNOWN

    def writes(self) -> Writes | None:
        return None

    def transfers(self) -> tuple[Transfer, ...]:
        return ()

    def paused(self) -> bool:
        return self.journal.setting("paused") is not None

    def refusing(self) -> bool:
        return False

    def problems(self) -> tuple[Problem, ...]:
        return ()

    def apart(self) -> Sequence[SetApart]:
        return self._apart

    def settings(self) -> dict[str, object]:
        return {}

    def traffic(self) -> Traffic:
        return Traffic()

    def cache(self) -> CacheUse:
        return CacheUse()

    def spool(self) -> SpoolUse:
        return self._spool


def snapshot(facts: Facts) -> Snapshot:
    """The state of a mount at this moment; synchronous and in one stretch, so that its parts agree."""
    identity, now, totals = facts.identity, facts.now(), facts.journal.totals()
    counts = facts.journal.counts()
    uptime, connection, queue, dead = facts.uptime(), facts.connection(), _queue(counts), _dead_letters(facts.journal)
    beside = _beside(facts, now, counts, dead)
    return Snapshot(
        name=identity.name,
        remote=identity.remote,
        remote_path=identity.root,
        mountpoint=identity.mountpoint,
        pid=identity.pid,
        version=identity.version,
        started_at=identity.started_at,
        uptime_seconds=None if uptime is None else int(uptime),
        health=_health(identity, connection.state, queue, beside, damaged=bool(facts.journal.damage)),
        damage=facts.journal.damage or None,
        connection=connection,
        preconditions=facts.preconditions(),
        provider_results=facts.provider_results(),
        writes=facts.writes(),
        queue=queue,
        transfers=tuple(facts.transfers()),
        failed_attempts=totals.failed_attempts,
        failed_writebacks=totals.failed_writebacks,
        dead_letters=tuple(_dead_letter(record) for record in dead),
        last_error_by_provider=_last_errors(facts.journal),
        cache=facts.cache(),
        spool=facts.spool(),
        counters=_counters(totals, facts.traffic()),
        beside=beside,
    )


def _health(identity: MountIdentity, state: ConnectionState, queue: Queue, beside: Beside, *, damaged: bool) -> Health:
    """The first that holds, in the order of ``Health``. What is held fails too: it waits for a person."""
    if identity.pid is None:
        return Health.STOPPED
    if state is ConnectionState.AUTH:
        return Health.AUTH
    if state is ConnectionState.OFFLINE:
        return Health.OFFLINE
    if beside.paused:
        return Health.PAUSED
    if queue.dead_letter or queue.blocked or queue.held or beside.refusing or damaged or beside.apart:
        return Health.FAILING
    return Health.BUSY if queue.pending or queue.sending else Health.OK


def _queue(counts: Counts) -> Queue:
    return Queue(
        pending=counts.pending,
        sending=counts.sending,
        blocked=counts.blocked,
        held=counts.held,
        dead_letter=counts.dead,
        discarded=counts.discarded,
        bytes=counts.bytes,
        oldest_at=counts.oldest_at,
    )


def _counters(totals: Totals, traffic: Traffic) -> Counters:
    return Counters(
        requests=traffic.requests,
        bytes_up=totals.bytes_up,
        bytes_down=traffic.bytes_down,
        acknowledged=totals.acknowledged,
        superseded=totals.superseded,
        discarded=totals.discarded,
        invalidations=traffic.invalidations,
    )


def _beside(facts: Facts, now: float, counts: Counts, dead: Sequence[Record]) -> Beside:
    return Beside(
        at=now,
        workspace=facts.identity.workspace,
        dead_by_reason=facts.journal.dead_by_reason(),
        paused=facts.paused(),
        refusing=facts.refusing(),
        local=counts.local,
        problems=tuple(facts.problems()),
        apart=tuple(facts.apart()),
        settings=facts.settings(),
        last_event_at=facts.traffic().last_event_at,
        kept={record.op.op_id: record.op.target for record in dead if record.op.body},
    )


def _dead_letters(journal: Journal) -> tuple[Record, ...]:
    """The newest, each looked up once more: a list of records comes without their attempts."""
    ids = [record.op.op_id for record in journal.records(State.DEAD, limit=NEWEST_DEAD_LETTERS)]
    return tuple(record for op_id in ids if (record := journal.record(op_id)) is not None)


def _dead_letter(record: Record) -> DeadLetter:
    return DeadLetter(
        op_id=record.op.op_id,
        path=record.op.path,
        reason=record.reason,
        attempts=record.attempts,
        last_status=record.history[-1].status if record.history else 0,
        ts=record.op.created_at if record.dead_at is None else record.dead_at,
    )


def _last_errors(journal: Journal) -> dict[str, LastError]:
    return {
        provider: LastError(
            op_id=record.op.op_id,
            path=record.op.path,
            status=attempt.status,
            message=attempt.error or record.message,
            at=attempt.at,
        )
        for provider, (record, attempt) in sorted(journal.last_errors().items())
    }
