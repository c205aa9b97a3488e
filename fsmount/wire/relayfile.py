"""JSON bodies of the relayfile HTTP API (v0.10) about files and their changes, one struct a body.

Invariant: names and optionality are the protocol's, and nothing here decides anything, so that a
mistake of the client is not mirrored by the server.
"""

import msgspec

from fsmount.wire.body import Body, empty, null, shown


class Health(Body, frozen=True, kw_only=True):
    """`GET /health`; `features` names the extensions that the server announces."""

    status: str = shown(str)
    features: tuple[str, ...] | None = None


class ErrorBody(Body, frozen=True, kw_only=True):
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


class TreeEntry(Body, frozen=True, kw_only=True):
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


class TreePage(Body, frozen=True, kw_only=True):
    """`GET /fs/tree`: at most 1,000 rows sorted by path; `next_cursor` is the last path, or null at the end."""

    path: str = shown(str)
    entries: tuple[TreeEntry, ...] | None = shown(empty)
    next_cursor: str | None = shown(null)
    total_files: int | None = None


class Semantics(Body, frozen=True, kw_only=True):
    """What is attached to a file beside its bytes. Property values are strings once stored."""

    properties: dict[str, object] | None = None
    relations: tuple[str, ...] | None = None
    permissions: tuple[str, ...] | None = None
    comments: tuple[str, ...] | None = None


class FileBody(Body, frozen=True, kw_only=True):
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


class PutRequest(Body, frozen=True, kw_only=True):
    """Body of `PUT /fs/file`; the path and the precondition travel in the query and in If-Match."""

    content: str | None = shown(str)
    content_type: str | None = None
    encoding: str | None = None
    semantics: Semantics | None = None


class Writeback(Body, frozen=True, kw_only=True):
    """How far the write came on its way to the provider behind the server."""

    provider: str | None = None
    state: str | None = None


class WriteResult(Body, frozen=True, kw_only=True):
    """202 of PUT and DELETE; `target_revision` is the file's revision (for DELETE, the deletion's)."""

    op_id: str = shown(str)
    status: str = shown(str)
    target_revision: str = shown(str)
    writeback: Writeback | None = None


class ContentIdentity(Body, frozen=True, kw_only=True):
    """The same kind and key within `ttl_seconds` (none: for ever) name the same write, whatever the rest says."""

    kind: str = shown(str)
    key: str = shown(str)
    ttl_seconds: int | None = None


class BulkFile(Body, frozen=True, kw_only=True):
    """One upsert of a bulk. `if_match`: empty or `*` overwrites, `0` creates only, else that revision."""

    path: str = shown(str)
    content_type: str | None = None
    content: str | None = shown(str)
    encoding: str | None = None
    content_identity: ContentIdentity | None = None
    writeback_intent: str | None = None
    if_match: str | None = None


class BulkRequest(Body, frozen=True, kw_only=True):
    """Body of `POST /fs/bulk`; files apply in order, each on its own."""

    files: tuple[BulkFile, ...] | None = shown(empty)


class BulkResult(Body, frozen=True, kw_only=True):
    """A file of a bulk that was written, or whose content identity was known already."""

    path: str
    revision: str = shown(str)
    content_type: str | None = None
    op_id: str | None = None
    content_identity: ContentIdentity | None = None
    writeback: Writeback | None = None


class BulkError(Body, frozen=True, kw_only=True):
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


class BulkResponse(Body, frozen=True, kw_only=True):
    """202 of a bulk, even when every file failed. A legacy server may leave `results` out."""

    written: int = shown(int)
    error_count: int = shown(int)
    errors: tuple[BulkError, ...] | None = shown(empty)
    results: tuple[BulkResult, ...] | None = shown(empty)
    correlation_id: str = shown(str)


class Event(Body, frozen=True, kw_only=True):
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


class EventPage(Body, frozen=True, kw_only=True):
    """`GET /fs/events`: `next_cursor` is null once caught up, so the last `event_id` is the one to keep."""

    events: tuple[Event, ...] | None = shown(empty)
    next_cursor: str | None = shown(null)


class QueryItem(Body, frozen=True, kw_only=True):
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


class QueryPage(Body, frozen=True, kw_only=True):
    """`GET /fs/query`: files only, sorted by path; `next_cursor` is the last path, or null at the end."""

    items: tuple[QueryItem, ...] | None = shown(empty)
    next_cursor: str | None = shown(null)


class MergeRequest(Body, frozen=True, kw_only=True):
    """Body of `POST /fs/merge`; `content` is mine, `base_content` what stood at `base_revision`."""

    strategy: str = shown(str)
    content: str = shown(str)
    base_revision: str = shown(str)
    base_content: str = shown(str)
    content_type: str | None = None
    content_identity: ContentIdentity | None = None


class MergeResult(Body, frozen=True, kw_only=True):
    """200 of a merge; the merged text itself has to be fetched."""

    target_revision: str = shown(str)
    strategy: str = shown(str)
    base_revision: str = shown(str)
    merged_against_revision: str = shown(str)


class MergeConflict(Body, frozen=True, kw_only=True):
    """One place of a file that both sides changed; `unit` says which."""

    unit: str = shown(str)
    reason: str = shown(str)
    base: str | None = None
    mine: str | None = None
    theirs: str | None = None


class FeedMessage(Body, frozen=True, kw_only=True):
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


class ClientMessage(Body, frozen=True, kw_only=True):
    """What a client says on `GET /fs/ws`: `ping` is all that there is."""

    type: str = shown(str)
