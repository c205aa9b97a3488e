"""Bulk uploads: the request that carries several files, and which part of the answer is whose.

Invariant: a file gets a receipt only by a result for it; a file without any verdict is left to be looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from fsmount.errors import Refusal, RemoteError
from fsmount.model import Receipt, RemotePath, Revision
from fsmount.ports import Upload
from fsmount.remote import content
from fsmount.remote.decoding import UNREADABLE, decoded
from fsmount.wire.relayfile import BulkError, BulkFile, BulkResponse, BulkResult, ContentIdentity, ErrorBody

KIND = "fsmount"
Verdicts = list[Receipt | RemoteError | None]
STATUS = {
    "forbidden": 403,
    "conflict": 409,
    "precondition_failed": 412,
    "schema_validation_failed": 422,
    "validation_error": 422,
    "invalid_path": 400,
    "invalid_encoding": 400,
    "invalid_content": 400,
    "internal_error": 500,
    "payload_too_large": 413,
    "rate_limited": 429,
    "unavailable": 503,
}
"""Of a failed entry whose server tells no status, by its code; 400 for any other."""


def encoded(upload: Upload) -> msgspec.Raw:
    """The upload as one entry of the request's ``files``. Raises Refusal where it cannot be sent at all."""
    text, encoding = content.encode(content.whole(upload.source))
    file = BulkFile(
        path=upload.path,
        content_type=upload.content_type or content.type_of(encoding),
        content=text,
        encoding=encoding,
        content_identity=ContentIdentity(kind=KIND, key=upload.key),
        if_match=upload.base.revision or "0",
    )
    try:
        return msgspec.Raw(msgspec.json.encode(file))
    except UnicodeEncodeError as error:
        raise Refusal(400, code="invalid_path", message="the name is not valid UTF-8") from error


def request(files: Sequence[msgspec.Raw]) -> bytes:
    """The body of the request."""
    return b'{"files":[' + b",".join(bytes(file) for file in files) + b"]}"


def verdicts(
    uploads: Sequence[Upload], answer: BulkResponse, correlation_id: str, hidden: Callable[[str], str]
) -> Verdicts:
    """One verdict an upload, in order; None where the answer has none. ``hidden`` makes a text fit to be shown."""
    found: Verdicts = [None] * len(uploads)
    for error in answer.errors or ():
        place = _place(uploads, found, error.path)
        if place is not None:
            found[place] = refusal(error, uploads[place], correlation_id, hidden)
    for result in answer.results or ():
        place = _place(uploads, found, result.path)
        if place is not None and result.revision and _is_of(result, uploads[place]):
            found[place] = _receipt(result, uploads[place], correlation_id)
    return found


def refusal(error: BulkError, upload: Upload, correlation_id: str, hidden: Callable[[str], str]) -> Refusal:
    """The failed entry as the answer that a single PUT would have got."""
    told = _told(error)
    current = error.current_revision or told.current_revision
    status, code = error.status or STATUS.get(error.code, 400), told.code or error.code
    if error.status is None and error.code == "conflict" and not current and not upload.base.absent:
        status, code = 404, "not_found"
    body = bytes(error.body) if isinstance(error.body, msgspec.Raw) else msgspec.json.encode(error)
    return Refusal(
        status,
        code=hidden(code),
        message=hidden(told.message or error.message),
        body=hidden(body.decode(errors="replace")),
        current_revision=current or None,
        correlation_id=correlation_id,
    )


def _told(error: BulkError) -> ErrorBody:
    if not isinstance(error.body, msgspec.Raw):
        return ErrorBody()
    try:
        return decoded(bytes(error.body), ErrorBody)
    except UNREADABLE:
        return ErrorBody()


def _place(uploads: Sequence[Upload], found: Verdicts, path: str) -> int | None:
    """The first upload of ``path`` that has no verdict yet."""
    places = (place for place, upload in enumerate(uploads) if upload.path == path and found[place] is None)
    return next(places, None)


def _is_of(result: BulkResult, upload: Upload) -> bool:
    """Whether the result's identity, where it names one, is the upload's."""
    identity = result.content_identity
    return identity is None or not identity.key or identity.key == upload.key


def _receipt(result: BulkResult, upload: Upload, correlation_id: str) -> Receipt:
    return Receipt(
        path=RemotePath(upload.path),
        revision=Revision(result.revision),
        digest=upload.digest,
        remote_op_id=result.op_id or None,
        correlation_id=correlation_id,
    )
