"""What must be where, made from the writers' logs, and what is found there: server, journal, spool.

Invariant: every content that a program was told is written, and that the same program did not overwrite or remove
later, is at its name on the server or is some op's in the journal; and nothing that was removed is on the server.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from fsmount.clock import SystemClock
from fsmount.journal import open_journal
from fsmount.model import OpKind, State, Timing
from fsmount.spool import FileSpool

Digest = str | None
"""None: no file."""


class Name(Struct):
    """One name of a writer: ``allowed`` may stand there. ``free``: an error came between and left any part of that."""

    allowed: set[Digest]
    free: bool = False
    acknowledged: int = 0


class Told(Struct):
    """What one writer was told."""

    names: dict[str, Name]
    digests: set[Digest]
    acknowledged: int = 0
    failed: int = 0
    garbage: list[str] = []
    """Names where something was read that this writer never wrote."""


def told(lines: Iterable[str]) -> Told:
    """Replays one writer's log; a last line without its outcome counts as an operation that the daemon's end met."""
    found = Told(names={}, digests={None})
    begun: dict[str, Any] | None = None
    for line in lines:
        noted = json.loads(line)
        if "kind" in noted:
            begun = noted
            _begin(found, noted)
        elif begun is not None:
            _end(found, begun, failed="failed" in noted, partial=noted.get("partial", False))
            begun = None
    if begun is not None:
        _end(found, begun, failed=True, partial=False)
    return found


def _begin(found: Told, op: dict[str, Any]) -> None:
    found.digests.add(op.get("digest"))
    name = found.names.get(op.get("to", ""))
    if "read" in op and op["read"] not in found.digests and not (name is not None and name.free):
        found.garbage.append(op["to"])


def _end(found: Told, op: dict[str, Any], *, failed: bool, partial: bool) -> None:
    new, free = {op.get("digest")}, False
    if "of" in op:
        source = found.names.setdefault(op["of"], Name(allowed={None}))
        new, free = set(source.allowed), source.free
    if not failed:
        found.acknowledged += 1
        _set(found, op, new, free)
        return
    found.failed += 1
    for role, possible in (("to", new), ("gone", {None})):
        if role in op:
            name = found.names.setdefault(op[role], Name(allowed={None}))
            name.allowed |= possible
            name.free = name.free or (role == "to" and (partial or free))


def _set(found: Told, op: dict[str, Any], new: set[Digest], free: bool) -> None:
    if "gone" in op:
        found.names[op["gone"]] = Name(allowed={None})
    if "to" in op:
        found.names[op["to"]] = Name(allowed=new, free=free, acknowledged=1)


class Held(Struct):
    """What a state directory has: digests of the bytes that are really there, names whose removal is not done."""

    digests: set[Digest]
    removals: set[str]
    states: dict[str, int]


def held(state: Path) -> Held:
    """Reads a state directory that nobody uses."""
    journal = open_journal(
        state / "journal.db", SystemClock(), Timing(settle=0, max_settle=0, delete_settle=0, open_settle=0)
    )
    spool = FileSpool(state / "spool")
    found = Held(digests=set(), removals=set(), states={})
    try:
        for record in journal.records():
            found.states[record.state] = found.states.get(record.state, 0) + 1
            if record.op.body is not None and spool.verify(record.op.body):
                source = spool.open(record.op.body)
                found.digests.add(digest(source.read(0, source.size)))
                source.close()
            if record.state is not State.DISCARDED and record.op.kind in (OpKind.DELETE, OpKind.MOVE):
                found.removals.add(record.op.path)
                found.digests.add(record.op.base.digest)
    finally:
        journal.close()
    return found


def missing(directory: str, writer: Told, server: Mapping[str, bytes], kept: Held) -> Iterator[str]:
    """A line for everything that is not as a program was told. ``directory`` is the writer's, on the remote."""
    for name, known in writer.names.items():
        path = f"{directory}/{name}"
        there = digest(server[path]) if path in server else None
        if known.free or there in known.allowed or known.allowed & kept.digests - {None}:
            continue
        if None in known.allowed and path in kept.removals:
            continue
        what = "nothing" if there is None else f"other bytes ({there[:12]})"
        expected = " or ".join("no file" if each is None else each[:12] for each in known.allowed)
        yield f"{path}: {expected} was promised; {what} there, and no op has it"
    for name in writer.garbage:
        yield f"{directory}/{name}: bytes were read there that nobody wrote"
    for path in server:
        if path.startswith(f"{directory}/") and path[len(directory) + 1 :] not in writer.names:
            yield f"{path}: nobody made it"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
