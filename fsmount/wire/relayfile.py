"""JSON bodies of the relayfile HTTP API (v0.10), one struct a body.

Invariant: names and optionality are the protocol's, and nothing here decides anything, so that a
mistake of the client is not mirrored by the server.

Decoding is lenient: unknown members are ignored, a list or an object may be null or missing.
Encoding follows the reference server: a member at its default is left out, except those declared
with `shown`, which always appear (`"nextCursor": null`).
"""

from collections.abc import Callable
from typing import TypeVar

import msgspec

T = TypeVar("T")


def shown(default: Callable[[], T]) -> T:
    """A member that may be missing when read and is always written (msgspec omits no value of a factory)."""
    return msgspec.field(default_factory=default)


def _null() -> None:
    return None


def _empty() -> tuple[()]:
    # Not `tuple` itself: msgspec takes that factory for a default, and would leave [] out.
    return ()


class _Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The conventions that every body follows."""


class Health(_Wire, frozen=True, kw_only=True):
    """`GET /health`; `features` names the extensions that the server announces."""

    status: str = shown(str)
    features: tuple[str, ...] | None = None


class ErrorBody(_Wire, frozen=True, kw_only=True):
    """Any non-2xx body; the revision members come with a `revision_conflict`, `conflicts` with a `merge_conflict`.

    A few fork answers say `error` where the others say `code`.
    """

    code: str = shown(str)
    message: str = shown(str)
    correlation_id: str = shown(str)
    expected_revision: str | None = None
    current_revision: str | None = None
    current_content_preview: str | None = None
    reason: str | None = None
    conflicts: tuple["MergeConflict", ...] | None = None
    error: str | None = None


class TreeEntry(_Wire, frozen=True, kw_only=True):
    """One row of a listing; `type` is `file` or `dir`.

    `size` is the length in bytes of the *stored* string (base64 text for binary files) and is left
    out when 0. `byte_size` (decoded bytes) and `encoding` (`utf-8` or `base64`) come only from a
    server with the feature `byte-size`.
    """

    path: str
    type: str
    revision: str = ""
    content_hash: str | None = None
    provider: str | None = None
    provider_object_id: str | None = None
    size: int | None = None
    updated_at: str | None = None
    property_count: int | None = None
    relation_count: int | None = None
    permission_count: int | None = None
    comment_count: int | None = None
    byte_size: int | None = None
    encoding: str | None = None


class TreePage(_Wire, frozen=True, kw_only=True):
    """`GET /fs/tree`: at most 1,000 rows sorted by path; `next_cursor` is the last path, or null at the end."""

    path: str = shown(str)
    entries: tuple[TreeEntry, ...] | None = shown(_empty)
    next_cursor: str | None = shown(_null)
    total_files: int | None = None


class Semantics(_Wire, frozen=True, kw_only=True):
    """What is attached to a file beside its bytes. Property values are strings once stored."""

    properties: dict[str, object] | None = None
    relations: tuple[str, ...] | None = None
    permissions: tuple[str, ...] | None = None
    comments: tuple[str, ...] | None = None


class FileBody(_Wire, frozen=True, kw_only=True):
    """`GET /fs/file`: a whole file. `encoding` is `base64`, or absent for UTF-8 text.

    `byte_size` (decoded bytes) comes only from a server with the feature `byte-size`.
    """

    path: str
    revision: str
    content_type: str = shown(str)
    content: str = shown(str)
    content_hash: str | None = None
    encoding: str | None = None
    provider: str | None = None
    provider_object_id: str | None = None
    last_edited_at: str | None = None
    byte_size: int | None = None
    semantics: Semantics | None = shown(Semantics)


class PutRequest(_Wire, frozen=True, kw_only=True):
    """Body of `PUT /fs/file`; the path and the precondition travel in the query and in If-Match."""

    content: str | None = shown(str)
    content_type: str | None = None
    encoding: str | None = None
    semantics: Semantics | None = None


class Writeback(_Wire, frozen=True, kw_only=True):
    """How far the write came on its way to the provider behind the server."""

    provider: str | None = None
    state: str | None = None


class WriteResult(_Wire, frozen=True, kw_only=True):
    """202 of PUT and DELETE; `target_revision` is the file's revision (for DELETE, the deletion's)."""

    op_id: str = shown(str)
    status: str = shown(str)
    target_revision: str = shown(str)
    writeback: Writeback | None = None


class ContentIdentity(_Wire, frozen=True, kw_only=True):
    """The same kind and key within `ttl_seconds` (none: for ever) name the same write, whatever the rest says."""

    kind: str = shown(str)
    key: str = shown(str)
    ttl_seconds: int | None = None


class BulkFile(_Wire, frozen=True, kw_only=True):
    """One upsert of a bulk. `if_match`: empty or `*` overwrites, `0` creates only, else that revision."""

    path: str = shown(str)
    content_type: str | None = None
    content: str | None = shown(str)
    encoding: str | None = None
    content_identity: ContentIdentity | None = None
    writeback_intent: str | None = None
    if_match: str | None = None


class BulkRequest(_Wire, frozen=True, kw_only=True):
    """Body of `POST /fs/bulk`; files apply in order, each on its own."""

    files: tuple[BulkFile, ...] | None = shown(_empty)


class BulkResult(_Wire, frozen=True, kw_only=True):
    """A file of a bulk that was written, or whose content identity was known already."""

    path: str
    revision: str = shown(str)
    content_type: str | None = None
    op_id: str | None = None
    content_identity: ContentIdentity | None = None
    writeback: Writeback | None = None


class BulkError(_Wire, frozen=True, kw_only=True):
    """A file of a bulk that was refused.

    `status` and `body` (the answer that a single PUT would have got) come only from a server with
    the feature `bulk-status`; `body` is kept as JSON text, empty when there is none.
    """

    path: str = shown(str)
    code: str = shown(str)
    message: str = shown(str)
    expected_revision: str | None = None
    current_revision: str | None = None
    status: int | None = None
    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class BulkResponse(_Wire, frozen=True, kw_only=True):
    """202 of a bulk, even when every file failed. A legacy server may leave `results` out."""

    written: int = shown(int)
    error_count: int = shown(int)
    errors: tuple[BulkError, ...] | None = shown(_empty)
    results: tuple[BulkResult, ...] | None = shown(_empty)
    correlation_id: str = shown(str)


class Event(_Wire, frozen=True, kw_only=True):
    """One change. `type` is open-ended: a client ignores what it does not know, and moves on past it."""

    event_id: str
    type: str
    path: str = shown(str)
    revision: str = shown(str)
    content_hash: str | None = None
    origin: str = shown(str)
    provider: str | None = None
    correlation_id: str = shown(str)
    timestamp: str = shown(str)


class EventPage(_Wire, frozen=True, kw_only=True):
    """`GET /fs/events`: `next_cursor` is null once caught up, so the last `event_id` is the one to keep."""

    events: tuple[Event, ...] | None = shown(_empty)
    next_cursor: str | None = shown(_null)


class QueryItem(_Wire, frozen=True, kw_only=True):
    """A file that a query found; `size` is of the stored string, as in a listing, but is shown when 0."""

    path: str
    revision: str = shown(str)
    content_type: str = shown(str)
    provider: str | None = None
    provider_object_id: str | None = None
    last_edited_at: str | None = None
    size: int = shown(int)
    properties: dict[str, object] | None = None
    relations: tuple[str, ...] | None = None
    permissions: tuple[str, ...] | None = None
    comments: tuple[str, ...] | None = None
    byte_size: int | None = None
    encoding: str | None = None


class QueryPage(_Wire, frozen=True, kw_only=True):
    """`GET /fs/query`: files only, sorted by path; `next_cursor` is the last path, or null at the end."""

    items: tuple[QueryItem, ...] | None = shown(_empty)
    next_cursor: str | None = shown(_null)


class MergeRequest(_Wire, frozen=True, kw_only=True):
    """Body of `POST /fs/merge`; `content` is mine, `base_content` what stood at `base_revision`."""

    strategy: str = shown(str)
    content: str = shown(str)
    base_revision: str = shown(str)
    base_content: str = shown(str)
    content_type: str | None = None
    content_identity: ContentIdentity | None = None


class MergeResult(_Wire, frozen=True, kw_only=True):
    """200 of a merge; the merged text itself has to be fetched."""

    target_revision: str = shown(str)
    strategy: str = shown(str)
    base_revision: str = shown(str)
    merged_against_revision: str = shown(str)


class MergeConflict(_Wire, frozen=True, kw_only=True):
    """One place of a file that both sides changed; `unit` says which."""

    unit: str = shown(str)
    reason: str = shown(str)
    base: str | None = None
    mine: str | None = None
    theirs: str | None = None


class Operation(_Wire, frozen=True, kw_only=True):
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


class OperationPage(_Wire, frozen=True, kw_only=True):
    """`GET /ops`: newest first; `next_cursor` is the last op's id, or null at the end."""

    items: tuple[Operation, ...] | None = shown(_empty)
    next_cursor: str | None = shown(_null)


class Queued(_Wire, frozen=True, kw_only=True):
    """202 of what the server will do later: a replay, a refresh."""

    status: str = shown(str)
    id: str = shown(str)
    correlation_id: str = shown(str)


class PendingWriteback(_Wire, frozen=True, kw_only=True):
    """One of the bare array of `GET /writeback/pending`; `id` is the op's."""

    id: str
    workspace_id: str = shown(str)
    path: str = shown(str)
    revision: str = shown(str)
    correlation_id: str = shown(str)
    content_identity: ContentIdentity | None = None


class WritebackAck(_Wire, frozen=True, kw_only=True):
    """Body of `POST /writeback/{opId}/ack`: what became of the write at the provider."""

    success: bool
    error: str | None = None
    external_id: str | None = None
    canonical_path: str | None = None
    provider_result: dict[str, object] | None = None


class DraftDisposition(_Wire, frozen=True, kw_only=True):
    """What an ack did to the file that the op wrote; `action` is `renamed`, `removed` or `none`."""

    action: str = shown(str)
    from_: str | None = msgspec.field(default=None, name="from")
    to: str | None = None


class AckResult(_Wire, frozen=True, kw_only=True):
    """200 of an ack."""

    status: str = shown(str)
    id: str = shown(str)
    correlation_id: str = shown(str)
    success: bool = shown(bool)
    draft: DraftDisposition | None = None


class SweepRequest(_Wire, frozen=True, kw_only=True):
    """Body of `POST /writeback/sweep-drafts`: `patterns` are globs of a name; without `apply` nothing goes."""

    path_prefix: str | None = None
    patterns: tuple[str, ...] | None = None
    apply: bool = False


class SweptDraft(_Wire, frozen=True, kw_only=True):
    """A draft, and why it goes (`space-uuid-draft`, `pattern`) or stays (`pending-writeback`, `provider-linked`)."""

    path: str = shown(str)
    reason: str = shown(str)


class SweepResult(_Wire, frozen=True, kw_only=True):
    """200 of a sweep; of a dry run, `removed` are those that would be."""

    dry_run: bool = shown(bool)
    scanned: int = shown(int)
    removed: tuple[SweptDraft, ...] | None = shown(_empty)
    skipped: tuple[SweptDraft, ...] | None = shown(_empty)


class SyncProvider(_Wire, frozen=True, kw_only=True):
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


class SyncStatus(_Wire, frozen=True, kw_only=True):
    """`GET /sync/status`."""

    workspace_id: str = shown(str)
    providers: tuple[SyncProvider, ...] | None = shown(_empty)


class ProviderIngress(_Wire, frozen=True, kw_only=True):
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


class RefreshRequest(_Wire, frozen=True, kw_only=True):
    """Body of `POST /sync/refresh`; both are needed."""

    provider: str = shown(str)
    reason: str = shown(str)


class DeadLetter(_Wire, frozen=True, kw_only=True):
    """What a provider sent in and the server could not apply; a failed write is an op instead."""

    envelope_id: str
    workspace_id: str = shown(str)
    provider: str = shown(str)
    delivery_id: str = shown(str)
    correlation_id: str | None = None
    failed_at: str = shown(str)
    attempt_count: int = shown(int)
    last_error: str = shown(str)


class DeadLetterPage(_Wire, frozen=True, kw_only=True):
    """`GET /sync/dead-letter`."""

    items: tuple[DeadLetter, ...] | None = shown(_empty)
    next_cursor: str | None = shown(_null)


class FeedMessage(_Wire, frozen=True, kw_only=True):
    """One text frame of `GET /fs/ws`: an event, or the answer to a ping (type `pong`, no path).

    With `inline_content` the frame carries the file as `GET /fs/file` would: `content` is left out where it is empty,
    `encoding` where it is UTF-8 text.
    """

    event_id: str | None = None
    type: str = shown(str)
    path: str | None = None
    revision: str | None = None
    content_hash: str | None = None
    content_type: str | None = None
    content: str | None = None
    encoding: str | None = None
    inline_content: bool | None = None
    origin: str | None = None
    provider: str | None = None
    correlation_id: str | None = None
    timestamp: str | None = None


class ClientMessage(_Wire, frozen=True, kw_only=True):
    """What a client says on `GET /fs/ws`: `ping` is all that there is."""

    type: str = shown(str)
