"""`POST /fs/merge`: a write that the server merges with what was written since.

Invariant: all or nothing, and the base is what the file really was: its digest is in the change log.
"""

import hashlib

from fsmount.server import payload
from fsmount.server.merging import Chunk, TooAlike, merge
from fsmount.server.messages import Answer, Rejected, answer
from fsmount.server.records import Change, StoredFile
from fsmount.server.routes import Call, content_of, decode, named, need_path, write_draft
from fsmount.wire.relayfile import MergeConflict, MergeRequest, MergeResult

STRATEGY = "three-way-lines-v1"
MOST_TEXT = 512 * 1024
DEFAULT_CONTENT_TYPE = "text/plain"


def merge_file(call: Call) -> Answer:
    """Merge `content`, made from `baseContent`, into the file as it is now."""
    need_path(call)
    asked = decode(call.request, MergeRequest)
    identity = named(asked.content_identity)
    with call.store.transaction():
        earlier = identity and call.store.earlier(call.workspace, identity)
        if earlier:
            return _answer(asked, earlier, asked.base_revision)
        live = _live(call, asked)
        try:
            text, conflicts = merge(asked.base_content, asked.content, content_of(call, live))
        except TooAlike as error:
            raise _ineligible("too many lines of the texts are the same", "too_costly") from error
        if conflicts:
            raise _conflict(live, conflicts)
        draft = payload.draft(call.path, text, None, asked.content_type or DEFAULT_CONTENT_TYPE)
        change = write_draft(call, draft, live.revision, correlation_id=call.correlation_id, identity=identity)
    return _answer(asked, change, live.revision)


def _live(call: Call, asked: MergeRequest) -> StoredFile:
    """The file to merge into. Raises Rejected when this cannot be merged at all."""
    if asked.strategy != STRATEGY:
        raise _ineligible(f"the strategy of this server is {STRATEGY}, not {asked.strategy!r}", "unknown_strategy")
    live = call.store.file(call.workspace, call.path)
    if live is None:
        raise _ineligible(f"there is no file {call.path} any more", "file_missing")
    if live.encoding == "base64":
        raise _ineligible(f"{call.path} is not text", "not_text")
    if max(live.byte_size, *(len(text.encode()) for text in (asked.content, asked.base_content))) > MOST_TEXT:
        raise _ineligible(f"a text is longer than {MOST_TEXT} bytes", "too_large")
    digest = hashlib.sha256(asked.base_content.encode()).hexdigest()
    if digest != call.store.digest_at(call.workspace, call.path, asked.base_revision):
        message = f"baseContent is not what {call.path} was at {asked.base_revision!r}"
        raise Rejected(409, "merge_base_unavailable", message, current=live.revision)
    return live


def _conflict(live: StoredFile, conflicts: tuple[Chunk, ...]) -> Rejected:
    told = tuple(
        MergeConflict(
            unit=f"line {chunk.line}", reason="both_changed", base=chunk.base, mine=chunk.mine, theirs=chunk.theirs
        )
        for chunk in conflicts
    )
    return Rejected(409, "merge_conflict", "both sides changed the same lines", current=live.revision, conflicts=told)


def _ineligible(message: str, reason: str) -> Rejected:
    return Rejected(422, "merge_ineligible", message, reason=reason)


def _answer(asked: MergeRequest, change: Change, against: str) -> Answer:
    made = MergeResult(
        target_revision=change.revision,
        strategy=asked.strategy,
        base_revision=asked.base_revision,
        merged_against_revision=against,
    )
    return answer(200, made)
