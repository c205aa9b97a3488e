"""How the journal's rows become values and back; the one place that knows the columns of ``op``.

Invariant: reading never raises for a damaged row; it gives a Record that is ``malformed`` and says how.
"""

from __future__ import annotations

import os
import sqlite3
import time
from typing import Any

from fsmount.model import (
    Attempt,
    Base,
    Body,
    Digest,
    DraftId,
    Op,
    OpId,
    OpKind,
    Reason,
    Record,
    RemotePath,
    Revision,
    State,
    Theirs,
)  # fmt: skip

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
COLUMNS = (
    "seq", "op_id", "kind", "state", "path", "base_revision", "base_digest", "to_path", "to_base_revision",
    "to_base_digest", "body_size", "body_digest", "body_draft", "content_type", "open", "not_before", "burst_at",
    "created_at",
)  # fmt: skip
"""What a new op's row is given; the rest of it has defaults."""
HISTORY = 50
"""Attempts kept of one op; older ones go first."""


def new_op_id(now: float | None = None) -> OpId:
    """``op_`` and a ULID: 48 bits of milliseconds, 80 random ones (https://github.com/ulid/spec)."""
    number = (int((time.time() if now is None else now) * 1000) & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10))
    return OpId("op_" + "".join(ALPHABET[number >> shift & 31] for shift in range(125, -1, -5)))


def body_of(row: sqlite3.Row) -> Body | None:
    """The body that the row of an op or a node refers to."""
    if row["body_size"] is None:
        return None
    digest, draft = row["body_digest"], row["body_draft"]
    return Body(
        size=row["body_size"],
        digest=None if digest is None else Digest(digest),
        draft=None if draft is None else DraftId(draft),
    )


def _base(revision: str | None, digest: str | None) -> Base:
    return Base(None if revision is None else Revision(revision), None if digest is None else Digest(digest))


def op_of(row: sqlite3.Row) -> Op:
    """Raises ValueError or TypeError for a damaged row."""
    if not isinstance(row["path"], str) or not row["path"].startswith("/"):
        raise ValueError(f"path {row['path']!r}")
    moves = row["to_path"] is not None
    kind = OpKind(row["kind"])
    body = body_of(row)
    if (kind is OpKind.MOVE) is not moves or (kind is OpKind.PUT and body is None and not row["accepted"]):
        raise ValueError(f"a {kind} with to_path {row['to_path']!r} and body {body!r}")
    if body is not None and body.digest is None and body.draft is None:
        raise ValueError("a body that is neither a draft nor sealed")
    return Op(
        op_id=OpId(row["op_id"]),
        seq=row["seq"],
        kind=kind,
        path=RemotePath(row["path"]),
        base=_base(row["base_revision"], row["base_digest"]),
        to_path=RemotePath(row["to_path"]) if moves else None,
        to_base=_base(row["to_base_revision"], row["to_base_digest"]) if moves else None,
        body=body,
        content_type=row["content_type"],
        step=row["step"],
        redrives=row["redrives"],
        group=row["grp"],
        created_at=float(row["created_at"]),
    )


def _theirs(row: sqlite3.Row) -> Theirs | None:
    if row["theirs_revision"] is None:
        return None
    base = _base(row["theirs_revision"], row["theirs_digest"])
    held = row["theirs_size"] is not None and base.digest is not None
    return Theirs(base=base, body=Body(size=row["theirs_size"], digest=base.digest) if held else None)


def record_of(row: sqlite3.Row, *, history: tuple[Attempt, ...] = (), blocked_by: str | None = None) -> Record:
    """The row as a Record; one that is not ``sound`` comes back with ``malformed`` set."""
    try:
        state = State(row["state"])
        if state is State.DEAD and row["reason"] is None:
            raise ValueError("a dead letter without a reason")
        return Record(
            op=op_of(row),
            state=state,
            attempts=int(row["attempts"]),
            attempted=bool(row["attempted"]),
            open=bool(row["open"]),
            not_before=float(row["not_before"]),
            reason=None if row["reason"] is None else Reason(row["reason"]),
            message=str(row["message"]),
            dead_at=row["settled_at"],
            superseded_by=None if row["superseded_by"] is None else OpId(row["superseded_by"]),
            remote_op_id=row["remote_op_id"],
            blocked_by=None if blocked_by is None else OpId(blocked_by),
            theirs=_theirs(row),
            forced=bool(row["forced"]),
            accepted=bool(row["accepted"]),
            history=history,
        )
    except (ValueError, TypeError) as error:
        return _malformed(row, error)


def _malformed(row: sqlite3.Row, error: Exception) -> Record:
    raw: dict[str, Any] = {name: row[name] for name in row.keys()}  # noqa: SIM118 - a Row iterates over its values
    shown = ", ".join(f"{name}={value!r}" for name, value in raw.items() if value is not None)
    path = raw["path"] if isinstance(raw["path"], str) and raw["path"].startswith("/") else "/"
    return Record(
        op=Op(
            op_id=OpId(str(raw["op_id"])),
            seq=raw["seq"],
            kind=OpKind.PUT,
            path=RemotePath(path),
            base=Base(),
            created_at=0.0,
        ),
        state=State.DEAD,
        message=f"this record is damaged: {error}",
        malformed=shown,
    )


def attempt_of(row: sqlite3.Row) -> Attempt:
    """A row of ``attempt`` as a value."""
    return Attempt(
        at=row["at"], status=row["status"], error=row["error"], duration=row["duration"],
        correlation_id=row["correlation_id"], body=row["body"],
    )  # fmt: skip
