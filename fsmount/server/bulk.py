"""`POST /fs/bulk`: many upserts, each with its own precondition and its own outcome.

Invariant: files apply in their order, one file's refusal touches no other, and what was written is
durable together, before the answer.
"""

import msgspec

from fsmount.server import payload
from fsmount.server.messages import Answer, Rejected, answer
from fsmount.server.paths import normal
from fsmount.server.records import Change
from fsmount.server.routes import Call, admit, decode, named, write_draft, writeback
from fsmount.server.rules import Manner, body_of
from fsmount.wire.relayfile import BulkError, BulkFile, BulkRequest, BulkResponse, BulkResult, ContentIdentity


class _Refused(Exception):
    """One file's error; `rejected` is the answer that a single PUT would have got."""

    def __init__(self, code: str, rejected: Rejected) -> None:
        super().__init__(code)
        self.code = code
        self.rejected = rejected


def parse(call: Call) -> tuple[BulkFile, ...]:
    """The files of a bulk. Raises Rejected."""
    files = decode(call.request, BulkRequest).files
    if not files:
        raise Rejected(400, "bad_request", "files must not be empty")
    return files


def write(call: Call, files: tuple[BulkFile, ...], refusals: dict[int, Manner]) -> Answer:
    """Apply `files`, but for the positions in `refusals`, which get that error instead."""
    errors: list[BulkError] = []
    results: list[BulkResult] = []
    written = 0
    with call.store.transaction():
        for position, file in enumerate(files):
            refusal = refusals.get(position)
            if refusal is not None:
                errors.append(_by_rule(call, file.path, refusal))
                continue
            try:
                change, is_new = _apply(call, file)
            except _Refused as error:
                errors.append(_error(call, file, error))
                continue
            written += is_new
            results.append(_result(change, file.content_identity))
    response = BulkResponse(
        written=written,
        error_count=len(errors),
        errors=tuple(errors),
        results=tuple(results),
        correlation_id=call.correlation_id,
    )
    return answer(202, response)


def _apply(call: Call, file: BulkFile) -> tuple[Change, bool]:
    """The file's change, and whether it is one of now. A known identity answers before the precondition."""
    path = normal(file.path)
    if path == "/":
        raise _Refused("invalid_path", Rejected(400, "bad_request", "missing path"))
    try:
        admit(call, path)
    except Rejected as rejected:
        raise _Refused("forbidden", rejected) from rejected
    try:
        draft = payload.draft(path, file.content, file.encoding, file.content_type)
    except payload.UnknownEncoding as error:
        raise _Refused("invalid_encoding", Rejected(400, "bad_request", str(error))) from error
    except payload.BadContent as error:
        raise _Refused("invalid_content", Rejected(400, "bad_request", str(error))) from error
    identity = named(file.content_identity)
    earlier = identity and call.store.earlier(call.workspace, identity)
    if earlier:
        return earlier, False
    try:
        # Its events have no correlation id (section 10).
        return write_draft(call, draft, file.if_match or "*", correlation_id="", identity=identity), True
    except Rejected as rejected:
        raise _Refused("conflict" if rejected.status in {404, 409} else rejected.code, rejected) from rejected


def _result(change: Change, identity: ContentIdentity | None) -> BulkResult:
    return BulkResult(
        path=change.path,
        revision=change.revision,
        content_type=change.content_type,
        op_id=change.op_id,
        content_identity=identity,
        writeback=writeback(change.path),
    )


def _error(call: Call, file: BulkFile, error: _Refused) -> BulkError:
    rejected = error.rejected
    body = msgspec.Raw(msgspec.json.encode(rejected.body(call.correlation_id)))
    return BulkError(
        path=file.path,
        code=error.code,
        message=rejected.message,
        expected_revision=file.if_match if error.code == "conflict" else None,
        current_revision=rejected.current,
        status=rejected.status if call.extensions else None,
        body=body if call.extensions else msgspec.UNSET,
    )


class _Named(msgspec.Struct, frozen=True):
    code: str = "refused"
    message: str = ""


def _by_rule(call: Call, path: str, manner: Manner) -> BulkError:
    """A rule's refusal; its code and message are those that its body names."""
    body = body_of(manner, call.correlation_id)
    try:
        named = msgspec.json.decode(body, type=_Named)
    except msgspec.ValidationError:
        named = _Named()
    return BulkError(
        path=path,
        code=named.code,
        message=named.message,
        status=manner.status if call.extensions else None,
        body=msgspec.Raw(body) if call.extensions else msgspec.UNSET,
    )
