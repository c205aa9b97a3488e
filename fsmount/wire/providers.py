"""JSON bodies of the relayfile HTTP API about the providers behind the server: ops, writeback queue, sync (16-18).

Invariant: as in `relayfile`.
"""

import msgspec

from fsmount.wire.body import Body, empty, null, shown
from fsmount.wire.relayfile import ContentIdentity


class Operation(Body, frozen=True, kw_only=True):
    """A write on its way to the provider behind the server; `action` is `file_upsert` or `file_delete`."""

    op_id: str
    path: str | None = None
    revision: str | None = None
    action: str | None = None
    provider: str | None = None
    status: str = shown(str)
    attempt_count: int = shown(int)
    next_attempt_at: str | None = None
    last_error: str | None = None
    provider_result: dict[str, object] | None = None
    content_identity: ContentIdentity | None = None
    correlation_id: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    completed_at: str | None = None


class OperationPage(Body, frozen=True, kw_only=True):
    """`GET /ops`: newest first; `next_cursor` is the last op's id, or null at the end."""

    items: tuple[Operation, ...] | None = shown(empty)
    next_cursor: str | None = shown(null)


class Queued(Body, frozen=True, kw_only=True):
    """202 of what the server will do later: a replay, a refresh."""

    status: str = shown(str)
    id: str = shown(str)
    correlation_id: str = shown(str)


class PendingWriteback(Body, frozen=True, kw_only=True):
    """One of the bare array of `GET /writeback/pending`; `id` is the op's."""

    id: str
    workspace_id: str = shown(str)
    path: str = shown(str)
    revision: str = shown(str)
    correlation_id: str = shown(str)
    content_identity: ContentIdentity | None = None


class WritebackAck(Body, frozen=True, kw_only=True):
    """Body of `POST /writeback/{opId}/ack`: what became of the write at the provider."""

    success: bool
    error: str | None = None
    external_id: str | None = None
    canonical_path: str | None = None
    provider_result: dict[str, object] | None = None


class DraftDisposition(Body, frozen=True, kw_only=True):
    """What an ack did to the file that the op wrote; `action` is `renamed`, `removed` or `none`."""

    action: str = shown(str)
    from_: str | None = msgspec.field(default=None, name="from")
    to: str | None = None


class AckResult(Body, frozen=True, kw_only=True):
    """200 of an ack."""

    status: str = shown(str)
    id: str = shown(str)
    correlation_id: str = shown(str)
    success: bool = shown(bool)
    draft: DraftDisposition | None = None


class SweepRequest(Body, frozen=True, kw_only=True):
    """Body of `POST /writeback/sweep-drafts`: `patterns` are globs of a name; without `apply` nothing goes."""

    path_prefix: str | None = None
    patterns: tuple[str, ...] | None = None
    apply: bool = False


class SweptDraft(Body, frozen=True, kw_only=True):
    """A draft, and why it goes (`space-uuid-draft`, `pattern`) or stays (`pending-writeback`, `provider-linked`)."""

    path: str = shown(str)
    reason: str = shown(str)


class SweepResult(Body, frozen=True, kw_only=True):
    """200 of a sweep; of a dry run, `removed` are those that would be."""

    dry_run: bool = shown(bool)
    scanned: int = shown(int)
    removed: tuple[SweptDraft, ...] | None = shown(empty)
    skipped: tuple[SweptDraft, ...] | None = shown(empty)


class SyncProvider(Body, frozen=True, kw_only=True):
    """How one provider's side is; `status` is `healthy`, `lagging` or `error`."""

    provider: str
    status: str = shown(str)
    cursor: str | None = None
    watermark_ts: str | None = None
    lag_seconds: int | None = None
    last_error: str | None = None
    failure_codes: dict[str, int] | None = None
    dead_lettered_envelopes: int = shown(int)
    dead_lettered_ops: int = shown(int)


class SyncStatus(Body, frozen=True, kw_only=True):
    """`GET /sync/status`."""

    workspace_id: str = shown(str)
    providers: tuple[SyncProvider, ...] | None = shown(empty)


class ProviderIngress(Body, frozen=True, kw_only=True):
    """What one provider sent in."""

    accepted_total: int = shown(int)
    dropped_total: int = shown(int)
    deduped_total: int = shown(int)
    coalesced_total: int = shown(int)
    pending_total: int = shown(int)
    oldest_pending_age_seconds: int = shown(int)
    suppressed_total: int = shown(int)
    stale_total: int = shown(int)
    dedupe_rate: float = shown(float)
    coalesce_rate: float = shown(float)


class SyncIngress(ProviderIngress, frozen=True, kw_only=True):
    """`GET /sync/ingress`: what all providers sent in, and what waits of it."""

    workspace_id: str = shown(str)
    queue_depth: int = shown(int)
    queue_capacity: int = shown(int)
    queue_utilization: float = shown(float)
    dead_letter_total: int = shown(int)
    dead_letter_by_provider: dict[str, int] | None = shown(dict[str, int])
    ingress_by_provider: dict[str, ProviderIngress] | None = shown(dict[str, ProviderIngress])


class RefreshRequest(Body, frozen=True, kw_only=True):
    """Body of `POST /sync/refresh`; both are needed."""

    provider: str = shown(str)
    reason: str = shown(str)


class DeadLetter(Body, frozen=True, kw_only=True):
    """What a provider sent in and the server could not apply; a failed write is an op instead."""

    envelope_id: str
    workspace_id: str = shown(str)
    provider: str = shown(str)
    delivery_id: str = shown(str)
    correlation_id: str | None = None
    failed_at: str = shown(str)
    attempt_count: int = shown(int)
    last_error: str = shown(str)


class DeadLetterPage(Body, frozen=True, kw_only=True):
    """`GET /sync/dead-letter`."""

    items: tuple[DeadLetter, ...] | None = shown(empty)
    next_cursor: str | None = shown(null)
