"""`/ops` and `/writeback`: what became of each write at the provider behind the server.

The server has no provider; whoever consumes `/writeback` plays its part. Invariant: an op's end, its
event and what it does to the agent's file become durable together.
"""

import msgspec

from fsmount.server.acl import is_too_long
from fsmount.server.messages import Answer, Rejected, answer
from fsmount.server.oplog import OpStatus, StoredOp
from fsmount.server.paths import normal, parent, provider
from fsmount.server.records import Change
from fsmount.server.routes import Call, bad_cursor, decode, number
from fsmount.server.store import rfc3339
from fsmount.wire.providers import (
    AckResult,
    DraftDisposition,
    Operation,
    OperationPage,
    PendingWriteback,
    Queued,
    WritebackAck,
)
from fsmount.wire.relayfile import ContentIdentity

_ACTIONS = {"put": "file_upsert", "delete": "file_delete"}
_KINDS = {action: kind for kind, action in _ACTIONS.items()}


def list_ops(call: Call) -> Answer:
    """`GET /ops`: one page, newest first, of the status, action and provider asked for."""
    query = call.request.query
    limit = number(query.get("limit", ""), default=100, most=1000)
    before = call.store.ops.get(call.workspace, query["cursor"]) if query.get("cursor") else None
    if query.get("cursor") and before is None:
        raise bad_cursor()
    action = query.get("action") or None
    found = call.store.ops.newest(
        call.workspace,
        before=before.id if before else None,
        status=query.get("status") or None,
        kind=action and _KINDS.get(action, action),
        provider=query.get("provider") or None,
        limit=limit + 1,
    )
    page = tuple(_operation(op) for op in found[:limit])
    return answer(200, OperationPage(items=page, next_cursor=page[-1].op_id if len(found) > limit else None))


def get_op(call: Call) -> Answer:
    """`GET /ops/{opId}`."""
    return answer(200, _operation(_op(call)))


def replay_op(call: Call) -> Answer:
    """`POST /ops/{opId}/replay`: a dead letter waits for its provider again."""
    op = _op(call)
    if op.status is not OpStatus.DEAD_LETTERED:
        raise Rejected(409, "invalid_state", f"{op.op_id} is {op.status.value}; only a dead-lettered op is replayed")
    with call.store.transaction():
        call.store.ops.replay(op)
    return answer(202, Queued(status="queued", id=op.op_id, correlation_id=call.correlation_id))


def pending(call: Call) -> Answer:
    """`GET /writeback/pending`: every op that waits, oldest first."""
    waiting = [
        PendingWriteback(
            id=op.op_id,
            workspace_id=call.workspace,
            path=op.path,
            revision=op.revision,
            correlation_id=op.correlation_id,
            content_identity=_identity(op),
        )
        for op in call.store.ops.waiting(call.workspace)
    ]
    return Answer(status=200, body=msgspec.json.encode(waiting))


def acknowledge(call: Call) -> Answer:
    """`POST /writeback/{opId}/ack`: the provider took the write, or did not.

    The same ack again, its answer having been lost, is acknowledged and does nothing.
    """
    ack = decode(call.request, WritebackAck)
    op = _op(call)
    status = OpStatus.SUCCEEDED if ack.success else OpStatus.DEAD_LETTERED
    draft = DraftDisposition(action="none") if ack.success else None
    if op.status is OpStatus.PENDING:
        with call.store.transaction():
            result = msgspec.json.encode(ack.provider_result).decode() if ack.provider_result else None
            error = None if ack.success else ack.error or "the provider refused it"
            call.store.ops.settle(op, status, error=error, result=result)
            if ack.success:
                draft = _reconciled(call, op, ack)
            else:
                _tell(call, op)
    elif op.status is not status:
        raise Rejected(409, "invalid_state", f"{op.op_id} is {op.status.value} already")
    said = AckResult(
        status="acknowledged", id=op.op_id, correlation_id=call.correlation_id, success=ack.success, draft=draft
    )
    return answer(200, said)


def _op(call: Call) -> StoredOp:
    op = call.store.ops.get(call.workspace, call.name)
    if op is None:
        raise Rejected(404, "not_found", f"operation not found: {call.name}")
    return op


def _tell(call: Call, op: StoredOp) -> None:
    change = Change(op_id=op.op_id, path=op.path, revision=op.revision, content_type=op.content_type)
    call.store.report_failure(call.workspace, change, correlation_id=op.correlation_id)


def _reconciled(call: Call, op: StoredOp, ack: WritebackAck) -> DraftDisposition:
    """Give the agent's file the name that the provider has for it.

    The name of a marker is not given to what is too long to be one. Where the provider's own record stands there
    already, the draft is removed, unless it was written again since: those bytes are nowhere else.
    """
    stored = call.store.file(call.workspace, op.path) if op.kind == "put" else None
    object_id = (ack.external_id or "").strip()
    if not object_id or stored is None or stored.object_id or not op.provider:
        return DraftDisposition(action="none")
    to = _canonical(op, object_id, ack.canonical_path or "")
    if to == op.path:
        return DraftDisposition(action="none")
    if is_too_long(to, stored.byte_size):
        return DraftDisposition(action="none")
    if call.store.file(call.workspace, to) is None:
        call.store.rename(call.workspace, op.path, to, object_id=object_id, correlation_id=call.correlation_id)
        return DraftDisposition(action="renamed", from_=op.path, to=to)
    if stored.revision != op.revision:
        return DraftDisposition(action="none")
    call.store.discard(call.workspace, op.path, correlation_id=call.correlation_id)
    return DraftDisposition(action="removed", from_=op.path)


def _canonical(op: StoredOp, object_id: str, wanted: str) -> str:
    """Where the provider's record belongs: the path wanted, if it is that provider's, else beside the draft."""
    path = normal(wanted.strip())
    if path != "/" and provider(path) == op.provider:
        return path
    stem = "".join("_" if letter in "/\\ " else letter for letter in object_id).strip(".")
    _, dot, extension = op.path.rpartition("/")[2].rpartition(".")
    return f"{parent(op.path)}/{stem}.{extension if dot else 'json'}" if stem else op.path


def _operation(op: StoredOp) -> Operation:
    moved = rfc3339(op.updated_at or op.at)
    return Operation(
        op_id=op.op_id,
        path=op.path,
        revision=op.revision,
        action=_ACTIONS[op.kind],
        provider=op.provider or None,
        status=op.status.value,
        attempt_count=op.attempts,
        last_error=op.last_error,
        provider_result=msgspec.json.decode(op.provider_result) if op.provider_result else None,
        content_identity=_identity(op),
        correlation_id=op.correlation_id or None,
        created_at=rfc3339(op.at),
        updated_at=moved,
        completed_at=None if op.status is OpStatus.PENDING else moved,
    )


def _identity(op: StoredOp) -> ContentIdentity | None:
    return ContentIdentity(kind=op.identity_kind, key=op.identity_key) if op.identity_kind and op.identity_key else None
