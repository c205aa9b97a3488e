"""The JSON that programs read: one op, ``status.json``, ``state.json``, ``problems``, ``config.json``.

Invariant: every member is always present, times are RFC 3339 UTC with milliseconds, and the bytes are valid UTF-8
whatever a name holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

import msgspec

from fsmount.model import Attempt, Problem, Reason, Record, RemotePath, State, provider_of
from fsmount.ports import Clock
from fsmount.render.advice import hint, mount_path
from fsmount.render.escape import escape, rfc3339
from fsmount.status import Health, LastError, Snapshot

Members = dict[str, object]
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_BODY_LIMIT = 1024
_UNSAFE = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]|([\ud800-\udfff])")
_CODE = re.compile(r"\d{3} ([a-z][a-z0-9_]*)\b")


def encode(value: object) -> bytes:
    r"""Two-space indent and a final newline.

    What a terminal would act on is a JSON escape; a byte that was no UTF-8 is shown as in the log, as ``\xff``,
    because parsers refuse a lone surrogate.
    """
    return msgspec.json.format(_compact(value), indent=2) + b"\n"


def line(value: object) -> bytes:
    """The same on one line: NDJSON."""
    return _compact(value) + b"\n"


def _compact(value: object) -> bytes:
    return _UNSAFE.sub(_escaped, _ENCODER.encode(value)).encode()


def _escaped(match: re.Match[str]) -> str:
    return f"\\{escape(match[1])}" if match[1] else f"\\u{ord(match[0]):04x}"


def status(snapshot: Snapshot) -> bytes:
    """``status.json``: the Snapshot itself."""
    members = msgspec.to_builtins(snapshot)
    del members["beside"]
    return encode(_with_times(members))


def _with_times(value: object) -> object:
    """Times are the numbers named ``at``, ``ts`` or ``…At``."""
    if isinstance(value, dict):
        return {
            name: rfc3339(member)
            if isinstance(member, int | float) and (name in ("at", "ts") or name.endswith("At"))
            else _with_times(member)
            for name, member in value.items()
        }
    return [_with_times(member) for member in value] if isinstance(value, list | tuple) else value


def state(snapshot: Snapshot) -> bytes:
    """``state.json``: the same under the members that relayfile's tools know."""
    queue, beside = snapshot.queue, snapshot.beside
    pending = queue.pending + queue.sending
    return encode(
        {
            "workspaceId": beside.workspace,
            "remoteRoot": snapshot.remote_path,
            "localRoot": snapshot.mountpoint,
            "mode": "fuse",
            "status": _state_word(snapshot, pending),
            "pendingWriteback": pending,
            "pendingConflicts": beside.dead_by_reason.get(Reason.CONFLICT, 0),
            "failedWritebacks": snapshot.failed_writebacks,
            "deniedPaths": beside.dead_by_reason.get(Reason.FORBIDDEN, 0),
            "lastEventAt": _time(beside.last_event_at),
            "lastError": _last_error(snapshot),
            "outbox": {
                "pending": pending,
                "needsAttention": queue.dead_letter + queue.blocked + queue.held,
                "failed": queue.dead_letter,
                "acked": snapshot.counters.acknowledged,
            },
        }
    )


def _state_word(snapshot: Snapshot, pending: int) -> str:
    if snapshot.health in (Health.STOPPED, Health.OFFLINE):
        return "offline"
    if snapshot.beside.dead_by_reason.get(Reason.CONFLICT):
        return "conflict"
    if _needs_attention(snapshot):
        return "writeback-needs-attention"
    if pending:
        return "writeback-pending"
    return "syncing" if snapshot.connection.last_contact_at is None else "ready"


def _needs_attention(snapshot: Snapshot) -> bool:
    """What ``paused`` hides in ``health`` waits for a person all the same."""
    queue = snapshot.queue
    waits = queue.dead_letter or queue.blocked or queue.held or snapshot.damage or snapshot.beside.apart
    return bool(waits) or snapshot.beside.refusing or snapshot.health is Health.AUTH


def _last_error(snapshot: Snapshot) -> Members | None:
    """The newest error of any provider; being offline is one where no op has met another."""
    if snapshot.last_error_by_provider:
        return _shown_error(max(snapshot.last_error_by_provider.values(), key=lambda error: error.at))
    since = snapshot.connection.offline_since
    if since is None:
        return None
    message = "the remote cannot be reached"
    return {"kind": "offline", "statusCode": 0, "code": None, "message": message, "at": rfc3339(since)}


def _shown_error(error: LastError) -> Members:
    code = _CODE.match(error.message)
    kinds = {0: "offline", 409: "conflict", 412: "conflict"}
    return {
        "kind": kinds.get(error.status, "http" if error.status >= 300 else "error"),
        "statusCode": error.status,
        "code": code[1] if code else None,
        "message": error.message,
        "at": rfc3339(error.at),
    }


def problems(found: Sequence[Problem]) -> bytes:
    """``problems``: NDJSON, a line each; empty where everything is shown as it is."""
    return b"".join(line(msgspec.to_builtins(problem)) for problem in found)


def config(settings: Mapping[str, object]) -> bytes:
    """``config.json``: the configuration in force, under the names that the configuration file has."""
    return encode(dict(settings))


def op(record: Record, root: RemotePath, clock: Clock | None = None) -> bytes:
    """One op, whole, for a mount that shows ``root``; ``clock`` tells when it is due, None where no daemon runs."""
    return encode(members(record, root, clock))


def members(record: Record, root: RemotePath, clock: Clock | None = None) -> Members:
    """The members of ``op`` in their order; a damaged record has one more, ``raw``."""
    change, history = record.op, record.history
    last = history[-1] if history else None
    shown: Members = {
        "opId": change.op_id,
        "path": change.path,
        "attempts": record.attempts,
        "lastStatus": last.status if last else 0,
        "lastBody": cut(last.body) if last else "",
        "ts": rfc3339(record.dead_at or (last.at if last else change.created_at)),
        "kind": change.kind.value,
        "toPath": change.to_path,
        "state": record.state.value if record.malformed is None else "malformed",
        "reason": record.reason,
        "message": record.message or _message(record, last),
        "hint": hint(record, root),
        "mountPath": mount_path(change.path, root),
        "provider": provider_of(change.path),
        "baseRevision": change.base.revision,
        "remoteOpId": record.remote_op_id,
        "blockedBy": record.blocked_by,
        "supersededBy": record.superseded_by,
        "group": change.group,
        "contentType": change.content_type,
        "size": change.body.size if change.body else None,
        "sha256": change.body.digest if change.body else None,
        "createdAt": rfc3339(change.created_at),
        "firstAttemptAt": rfc3339(history[0].at) if history else None,
        "lastAttemptAt": rfc3339(last.at) if last else None,
        "nextAttemptAt": _next_attempt(record, clock),
        "history": [_attempt(attempt) for attempt in history],
    }
    return shown if record.malformed is None else {**shown, "raw": record.malformed}


def cut(text: str) -> str:
    """At most 1 KiB of UTF-8, cut at a character."""
    return text.encode("utf-8", "replace")[:_BODY_LIMIT].decode("utf-8", "ignore")


def _message(record: Record, last: Attempt | None) -> str:
    if record.state is State.SENDING:
        return "being sent"
    if record.state is State.DISCARDED:
        return "given up"
    if record.state is State.HELD:
        return "held: more was deleted within a minute than --max-deletes allows"
    if record.blocked_by is not None:
        return f"waits for {record.blocked_by}"
    return f"failed, will be tried again: {last.error}" if last and last.error else "waits to be sent"


def _next_attempt(record: Record, clock: Clock | None) -> str | None:
    if clock is None or record.state is not State.PENDING or record.blocked_by is not None:
        return None
    return rfc3339(clock.now() + max(0.0, record.not_before - clock.monotonic()))


def _attempt(attempt: Attempt) -> Members:
    return {
        "at": rfc3339(attempt.at),
        "status": attempt.status,
        "error": attempt.error,
        "durationMs": round(attempt.duration * 1000),
        "correlationId": attempt.correlation_id,
    }


def _time(at: float | None) -> str | None:
    return None if at is None else rfc3339(at)
