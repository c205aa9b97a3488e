"""One plain function a route: a call in, an answer out, over the store.

Invariant: a function here sees only calls whose token, workspace and correlation id were checked; it
raises Rejected for every answer that is an error. None is a trio checkpoint.
"""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from fsmount.server import payload
from fsmount.server.acl import LONGEST_MARKER, Sight
from fsmount.server.bearers import require
from fsmount.server.bodies import Incoming
from fsmount.server.messages import Answer, Rejected, Request, answer
from fsmount.server.paths import provider
from fsmount.server.principal import Principal
from fsmount.server.records import (
    Change,
    Draft,
    MarkerTooLong,
    RevisionMismatch,
    Row,
    StoredEvent,
    StoredFile,
    UnknownCursor,
)
from fsmount.server.store import Store
from fsmount.wire.relayfile import (
    ContentIdentity,
    Event,
    EventPage,
    FileBody,
    PutRequest,
    Semantics,
    TreeEntry,
    TreePage,
    Writeback,
    WriteResult,
)

TREE_PAGE = 1000
LARGEST_FILE = 32 * 1024 * 1024
"""Bytes of a file that `/fs/file` still gives whole, in JSON."""
PREVIEW = 4000
_NO_SEMANTICS = Semantics()


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A request that may be carried out. `path` is normalised; `name` is the id in the route, if it has one.

    `extensions` turns our own members on.
    """

    request: Request
    workspace: str
    principal: Principal
    path: str
    name: str
    correlation_id: str
    store: Store
    extensions: bool

    def sight(self) -> Sight | None:
        """What the caller sees below `path`; None is everything."""
        return self.store.guards.sight(self.workspace, self.path, self.principal)


Route = Callable[[Call], Answer]
Body = TypeVar("Body")


def tree(call: Call) -> Answer:
    """`GET /fs/tree`: one page below a path; a base that is no directory has no entries."""
    depth = number(call.request.query.get("depth", ""), default=10, most=100)
    after = call.request.query.get("cursor") or None
    sight, listings = call.sight(), call.store.listings
    try:
        rows = listings.tree(call.workspace, call.path, depth=depth, after=after, limit=TREE_PAGE + 1, sight=sight)
    except UnknownCursor as error:
        raise bad_cursor() from error
    page = rows[:TREE_PAGE]
    entries = tuple(_entry(row, call.extensions) for row in page)
    more = page[-1].path if len(rows) > TREE_PAGE else None
    total = listings.total(call.workspace, call.path, sight) or None
    return answer(200, TreePage(path=call.path, entries=entries, next_cursor=more, total_files=total))


def get_file(call: Call) -> Answer:
    """`GET /fs/file`: the whole file; the ETag is its revision without quotes."""
    need_path(call)
    stored = call.store.file(call.workspace, call.path)
    if stored is None:
        raise absent(call.path)
    return answer(200, file_body(call, stored), ("ETag", stored.revision))


def file_body(call: Call, stored: StoredFile) -> FileBody:
    """A whole file as the API gives it. Raises Rejected for one that no JSON body should carry."""
    content = content_of(call, stored)
    return FileBody(
        path=stored.path,
        revision=stored.revision,
        content_type=stored.content_type,
        content=content,
        content_hash=stored.digest,
        encoding="base64" if stored.encoding == "base64" else None,
        provider=provider(stored.path) or None,
        provider_object_id=stored.object_id,
        last_edited_at=stored.updated_at,
        byte_size=stored.byte_size if call.extensions else None,
        semantics=semantics_of(stored.semantics),
    )


def content_of(call: Call, stored: StoredFile) -> str:
    """The stored text. Raises Rejected for a file that no JSON body should carry."""
    if stored.content is not None:
        return stored.content
    if stored.byte_size > LARGEST_FILE:
        message = f"the file has {stored.byte_size} bytes, and this route carries at most {LARGEST_FILE}: use /fs/raw"
        raise Rejected(413, "payload_too_large", message)
    part = call.store.bodies.part(stored.revision, 0, stored.byte_size)
    try:
        return payload.encoded(b"".join(part.pieces()))
    finally:
        part.close()


def put_file(call: Call) -> Answer:
    """`PUT /fs/file`: write under the precondition in If-Match; visible before the 202 is sent."""
    need_path(call)
    expected = precondition(call.request)
    body = decode(call.request, PutRequest)
    try:
        draft = payload.draft(call.path, body.content, body.encoding, body.content_type, body.semantics)
    except (payload.UnknownEncoding, payload.BadContent) as error:
        raise Rejected(400, "bad_request", str(error)) from error
    with call.store.transaction():
        change = write_draft(call, draft, expected, correlation_id=call.correlation_id)
    return answer(202, written(change))


def write_draft(
    call: Call,
    draft: Draft,
    expected: str,
    *,
    correlation_id: str,
    identity: ContentIdentity | None = None,
    body: Incoming | None = None,
) -> Change:
    """Write a draft, in a transaction. Raises Rejected, as a single PUT of it is answered, with nothing written."""
    try:
        return call.store.put(
            call.workspace, draft, expected=expected, correlation_id=correlation_id, identity=identity, body=body
        )
    except RevisionMismatch as mismatch:
        raise refused(call, draft.path, expected, mismatch.current) from mismatch
    except MarkerTooLong as error:
        message = f"{draft.path} has {draft.byte_size} bytes, and permission rules may have {LONGEST_MARKER}"
        raise Rejected(413, "payload_too_large", message) from error


def delete_file(call: Call) -> Answer:
    """`DELETE /fs/file`: remove under the precondition in If-Match; the deletion has its own revision."""
    need_path(call)
    expected = precondition(call.request)
    with call.store.transaction():
        try:
            change = call.store.delete(call.workspace, call.path, expected=expected, correlation_id=call.correlation_id)
        except RevisionMismatch as mismatch:
            raise refused(call, call.path, expected, mismatch.current) from mismatch
    return answer(202, written(change))


def events(call: Call) -> Answer:
    """`GET /fs/events`: one page past a cursor. An unknown cursor starts again (asc) or ends (desc)."""
    query = call.request.query
    direction = query.get("direction") or "asc"
    if direction not in {"asc", "desc"}:
        raise Rejected(400, "bad_request", f"direction is asc or desc, not {direction!r}")
    limit = number(query.get("limit", ""), default=200, most=1000)
    after = event_number(call.store, call.workspace, query.get("cursor") or "")
    if after is None and query.get("cursor") and direction == "desc":
        return answer(200, EventPage())
    found = call.store.events(
        call.workspace,
        after=after,
        newest_first=direction == "desc",
        provider=query.get("provider") or None,
        limit=limit + 1,
    )
    page = tuple(_event(event) for event in found[:limit])
    return answer(200, EventPage(events=page, next_cursor=page[-1].event_id if len(found) > limit else None))


def decode(request: Request, kind: type[Body]) -> Body:
    """The request's JSON body. Raises Rejected (413, 400)."""
    if request.oversized:
        raise Rejected(413, "payload_too_large", "request body exceeds the limit of this server")
    if not request.body.strip():
        raise Rejected(400, "bad_request", "a JSON body is needed")
    try:
        return msgspec.json.decode(request.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected(400, "bad_request", f"invalid JSON body: {error}") from error


def refused(call: Call, path: str, expected: str, current: str | None) -> Rejected:
    """What a single write gets when its precondition does not hold: 409, or 404 for an absent file."""
    if current is None:
        return absent(path)
    stored = call.store.file(call.workspace, path)
    content = stored.content if stored else None
    preview = content.encode()[:PREVIEW].decode(errors="replace") if content else None
    return Rejected(
        409,
        "revision_conflict",
        "file revision mismatch",
        current=current,
        expected_revision=expected,
        current_content_preview=preview or None,
    )


def admit(call: Call, path: str) -> None:
    """Raise Rejected (403) unless the caller may write at `path`, which the route itself did not name."""
    require(call.principal, "fs:write", [path])
    gate(call, path)


def gate(call: Call, path: str) -> None:
    """Raise Rejected (403) where the permission rules keep the caller off."""
    if call.store.guards.forbids(call.workspace, path, call.principal):
        raise Rejected(403, "forbidden", f"a permission rule keeps {call.principal.subject!r} off {path}")


def named(identity: ContentIdentity | None) -> ContentIdentity | None:
    """The identity, if it names anything."""
    return identity if identity is not None and identity.kind and identity.key else None


def bad_cursor() -> Rejected:
    """What a listing gets whose cursor is none of its rows, or no longer."""
    return Rejected(400, "bad_request", "invalid cursor: no such entry; list again from the start")


def need_path(call: Call) -> None:
    """Raise Rejected (400) where the query names no file."""
    if not call.request.query.get("path"):
        raise Rejected(400, "bad_request", "missing path")
    if call.path == "/" and call.request.method not in {"GET", "HEAD"}:
        raise Rejected(400, "bad_request", "the root is no file")


def precondition(request: Request) -> str:
    """If-Match in its bare, quoted or weak form, as a bare value."""
    value = request.headers.get("if-match", "").strip()
    bare = value.removeprefix("W/").strip('"').strip()
    if not bare:
        raise Rejected(412, "precondition_failed", "missing If-Match header")
    return bare


def absent(path: str) -> Rejected:
    """The answer for a path where no file is."""
    return Rejected(404, "not_found", f"file not found: {path}")


def written(change: Change) -> WriteResult:
    """The answer to a write."""
    return WriteResult(
        op_id=change.op_id, status="queued", target_revision=change.revision, writeback=writeback(change.path)
    )


def writeback(path: str) -> Writeback:
    """What is said of the provider's part of a write; nothing waits behind this server."""
    return Writeback(provider=provider(path), state="pending")


def _entry(row: Row, extensions: bool) -> TreeEntry:
    if row.revision is None:
        return TreeEntry(path=row.path, type="dir", revision="dir")
    semantics = semantics_of(row.semantics)
    return TreeEntry(
        path=row.path,
        type="file",
        revision=row.revision,
        content_hash=row.digest,
        provider=provider(row.path) or None,
        provider_object_id=row.object_id,
        size=row.size or None,
        updated_at=row.updated_at,
        property_count=len(semantics.properties or ()) or None,
        relation_count=len(semantics.relations or ()) or None,
        permission_count=len(semantics.permissions or ()) or None,
        comment_count=len(semantics.comments or ()) or None,
        byte_size=row.byte_size if extensions else None,
        encoding=row.encoding if extensions else None,
    )


def semantics_of(stored: str | None) -> Semantics:
    """What is attached to a file, from the store's JSON."""
    return _NO_SEMANTICS if stored is None else msgspec.json.decode(stored, type=Semantics)


def _event(event: StoredEvent) -> Event:
    return Event(
        event_id=f"evt_{event.number}",
        type=event.type,
        path=event.path,
        revision=event.revision,
        content_hash=event.digest,
        origin=event.origin,
        provider=event.provider or None,
        correlation_id=event.correlation_id,
        timestamp=event.at,
    )


def event_number(store: Store, workspace: str, cursor: str) -> int | None:
    """The number of the event that a cursor names; None where the workspace has none such."""
    digits = cursor.removeprefix("evt_")
    if digits == cursor or not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
        return None
    number = int(digits)
    return number if store.has_event(workspace, number) else None


def number(text: str, *, default: int, most: int) -> int:
    """A count from a query: what is no number or below 1 is the default, what is too much the most."""
    try:
        number = int(text)
    except ValueError:
        return default
    return min(number, most) if number >= 1 else default
