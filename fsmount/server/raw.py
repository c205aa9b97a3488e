"""`/fs/raw`: one file's bytes as they are, streamed both ways, whatever their size (an extension of ours).

Invariant: a write under this route is the same change as one under `/fs/file`: precondition, op, event, revision. No
body is ever whole in memory unless it is small enough to lie in the store's row.
"""

import json
import re

import msgspec

from fsmount.server import payload
from fsmount.server.bodies import Incoming
from fsmount.server.messages import Answer, Rejected, answer
from fsmount.server.records import RevisionMismatch, StoredFile
from fsmount.server.routes import Call, absent, need_path, precondition, refused, write_draft, written
from fsmount.wire.relayfile import Semantics

DEFAULT_CONTENT_TYPE = "application/octet-stream"
SEMANTICS = "X-Relayfile-Semantics"
LONGEST_SEMANTICS = 32 * 1024
"""Bytes of that header: clients and proxies take no headers without end."""
TOO_LONG = "too-long"
"""Stands in the header for semantics that do not fit: `/fs/file` has them."""
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def get(call: Call) -> Answer:
    """`GET` and `HEAD /fs/raw`: the bytes, or one range of them; the ETag is the revision in quotes."""
    need_path(call)
    stored = call.store.file(call.workspace, call.path)
    if stored is None:
        raise absent(call.path)
    given, tag = call.request.headers, f'"{stored.revision}"'
    headers = _headers(stored, tag)
    if "if-match" in given and not _names(given["if-match"], tag):
        raise Rejected(412, "precondition_failed", "the file has another revision", current=stored.revision)
    if "if-none-match" in given and _names(given["if-none-match"], tag):
        return Answer(status=304, headers=headers)
    ranged = given.get("range", "") if given.get("if-range", tag) == tag else ""
    return _ranged(call, stored, ranged, headers)


def receive(call: Call) -> Incoming:
    """Where the body of a `PUT /fs/raw` goes. Raises Rejected for one that would be refused whatever comes."""
    need_path(call)
    expected = _expected(call)
    try:
        call.store.check(call.workspace, call.path, expected)
    except RevisionMismatch as mismatch:
        raise refused(call, call.path, expected, mismatch.current) from mismatch
    _semantics(call)
    return call.store.bodies.incoming()


def put(call: Call, body: Incoming) -> Answer:
    """`PUT /fs/raw`, its body received: written if the precondition still holds and the digest is the one announced."""
    if body.failure is not None:
        raise Rejected(507, "insufficient_storage", f"the server's disk: {body.failure.strerror}")
    announced = call.request.headers.get("x-content-sha256", body.digest).strip().lower()
    if announced != body.digest:
        raise Rejected(400, "digest_mismatch", f"the body's sha256 is {body.digest}, not {announced}")
    content_type = call.request.headers.get("content-type") or DEFAULT_CONTENT_TYPE
    held = body.held
    if held is None:
        draft = payload.draft_of_file(call.path, body.size, body.digest, content_type, _semantics(call))
    else:
        draft = payload.draft_of_bytes(call.path, held, content_type, _semantics(call))
    with call.store.transaction():
        change = write_draft(
            call, draft, _expected(call), correlation_id=call.correlation_id, body=None if held is not None else body
        )
    return answer(202, written(change))


def _expected(call: Call) -> str:
    """The precondition in the store's words: `If-None-Match: *` is create-only, and If-Match as `/fs/file` has it."""
    if call.request.headers.get("if-none-match", "").strip() == "*":
        return "0"
    return precondition(call.request)


def _ranged(call: Call, stored: StoredFile, ranged: str, headers: tuple[tuple[str, str], ...]) -> Answer:
    """The whole body, or the part that a single satisfiable range asks for (RFC 9110, section 14)."""
    total = stored.byte_size
    match = _RANGE.fullmatch(ranged)
    if match is None or not (match[1] or match[2]):
        return _answer(call, stored, 200, 0, total, headers)
    first, last = _bounds(match[1], match[2], total)
    if match[1] and match[2] and int(match[2]) < int(match[1]):
        return _answer(call, stored, 200, 0, total, headers)
    if first >= total or last < first:
        return Answer(status=416, headers=(*headers, ("Content-Range", f"bytes */{total}")))
    headers = (*headers, ("Content-Range", f"bytes {first}-{last}/{total}"))
    return _answer(call, stored, 206, first, last - first + 1, headers)


def _bounds(first: str, last: str, total: int) -> tuple[int, int]:
    """The first and the last byte that a range names; without a first one it counts from the end."""
    if not first:
        return max(0, total - int(last)), total - 1 if int(last) else -1
    return int(first), min(int(last), total - 1) if last else total - 1


def _answer(
    call: Call, stored: StoredFile, status: int, start: int, length: int, headers: tuple[tuple[str, str], ...]
) -> Answer:
    if stored.content is not None:
        content = payload.decoded(stored.content, stored.encoding)
        return Answer(status=status, headers=headers, body=content[start : start + length])
    part = call.store.bodies.part(stored.revision, start, length)
    return Answer(status=status, headers=headers, content=part)


def _headers(stored: StoredFile, tag: str) -> tuple[tuple[str, str], ...]:
    headers = (
        ("Content-Type", stored.content_type),
        ("ETag", tag),
        ("Accept-Ranges", "bytes"),
        ("X-Content-SHA256", stored.digest),
    )
    if stored.semantics is None:
        return headers
    shown = json.dumps(json.loads(stored.semantics), separators=(",", ":"))
    return (*headers, (SEMANTICS, shown if len(shown) <= LONGEST_SEMANTICS else TOO_LONG))


def _semantics(call: Call) -> Semantics | None:
    """What is to be attached to the file; None keeps what it has. Raises Rejected."""
    given = call.request.headers.get(SEMANTICS.lower())
    if given is None:
        return None
    if len(given) > LONGEST_SEMANTICS:
        raise Rejected(400, "bad_request", f"{SEMANTICS} is longer than {LONGEST_SEMANTICS} bytes")
    try:
        return msgspec.json.decode(given.encode("ascii"), type=Semantics)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise Rejected(400, "bad_request", f"{SEMANTICS} is no semantics object in ASCII JSON: {error}") from error


def _names(header: str, tag: str) -> bool:
    """Whether a list of entity tags has this one; weak tags compare as strong ones, for revisions are strong."""
    tags = [each.strip().removeprefix("W/") for each in header.split(",")]
    return "*" in tags or tag in tags or tag.strip('"') in tags
