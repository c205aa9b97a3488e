"""What happened, for programs: NDJSON with a number that grows.

Invariant: every line is one JSON object, and no number is given twice, over restarts, rotations and crashes. A
line that a full disk cost leaves a gap in the numbers.
"""

from __future__ import annotations

import json
from contextlib import suppress

from fsmount.eventlog.stream import FileStream, Generation
from fsmount.model import ROOT, OpId, RemotePath
from fsmount.ports import Details
from fsmount.render.advice import mount_path
from fsmount.render.escape import rfc3339
from fsmount.render.json import line

EVENTS = frozenset((
    "op.queued", "op.sending", "op.retrying", "op.acknowledged", "op.dead", "op.held", "op.discarded", "op.superseded",
    "remote.changed", "remote.deleted", "connection", "credential", "mount",
))  # fmt: skip
"""What the log says beside these is for people only."""
_TAIL = 1 << 18
"""Bytes at the end of the file in which the last whole line is found: longer than two paths, each byte escaped."""
_NOTHING = Details()


class Events:
    """Writes the lines of ``.relay/events``; ``append`` may come from any thread."""

    def __init__(self, stream: FileStream, root: RemotePath = ROOT) -> None:
        """Goes on where the file ends; the beginning of a line that a crash cut off goes."""
        self.stream = stream
        self._root = root
        self._seq = _resumed(stream.current)

    def append(
        self, event: str, at: float, op: OpId | None, path: RemotePath | None, details: Details | None
    ) -> None:  # fmt: skip
        """One line; not for two threads at once, because the lines stand in the order of their numbers."""
        self._seq += 1
        about = details or _NOTHING
        members: dict[str, object] = {
            "seq": self._seq,
            "at": rfc3339(at),
            "event": event,
            "opId": op,
            "path": path,
            "mountPath": None if path is None else mount_path(path, self._root),
            "kind": about.kind,
            "reason": about.reason,
            "status": about.status,
            "attempt": about.attempt,
            "revision": about.revision,
            "state": about.state,
        }
        self.stream.append(line({name: member for name, member in members.items() if member is not None}), at)


def _resumed(generation: Generation) -> int:
    """The last number that was given; cuts off a torn line, which had the next."""
    start = max(0, generation.size - _TAIL)
    found = generation.read(start, _TAIL)
    whole = found.rfind(b"\n") + 1
    torn = len(found) - whole
    if torn:
        with suppress(OSError):
            generation.cut(start + whole)
    for written in reversed(found[:whole].splitlines()):
        seq = _number(written)
        if seq is not None:
            return seq + bool(torn)
    return 1 if torn else 0


def _number(written: bytes) -> int | None:
    try:
        seq = json.loads(written)["seq"]
    except (ValueError, LookupError, TypeError):
        return None
    return seq if isinstance(seq, int) else None
