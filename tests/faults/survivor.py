"""What becomes of a state directory that a power failure left, and whether every promise is kept.

Invariant: it goes the way of a start: lock, identity, journal, spool and recovery are those of the daemon, and what
would be sent is what the uploader's own seal and check let through.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio
from msgspec.structs import replace

from fsmount.app.recovery import recover
from fsmount.clock import SystemClock
from fsmount.errors import FsmountError
from fsmount.eventlog import FileEventLog
from fsmount.journal import SqliteJournal, open_journal
from fsmount.model import Body, Claim, Reason, RemotePath, State, Timing
from fsmount.spool import FileSpool
from fsmount.statedir import StateDirectory
from fsmount.uploader.bodies import CorruptBody, parcel, sealed
from fsmount.uploader.parts import Claimed
from tests.support.strace import Event

AT_ONCE = Timing(settle=0, max_settle=0, delete_settle=0, open_settle=0)
Content = tuple[str, str, int]
"""Path, digest and size."""


@dataclass
class Promises:
    """What the marks of a recording had promised at some moment."""

    kept: dict[str, set[Content]] = field(default_factory=dict)
    """For each file: one of these must be there."""
    meant: set[Content] = field(default_factory=set)
    """All that programs ever wrote: nothing else may be sent."""
    synced: set[Content] = field(default_factory=set)

    @classmethod
    def at(cls, events: Sequence[Event]) -> Promises:
        found = cls()
        for event in events:
            if event.kind == "mark":
                found._take(json.loads(event.content))
        return found

    def _take(self, mark: dict[str, object]) -> None:
        file = str(mark["file"])
        for word in ("only", "also"):
            if isinstance(told := mark.get(word), list):
                content = (str(told[0]), str(told[1]), int(told[2]))
                self.meant.add(content)
                if word == "only":
                    self.synced.add(content)
                    self.kept[file] = {content}
                elif file in self.kept:
                    self.kept[file].add(content)
        if mark.get("free"):
            self.kept.pop(file, None)


def broken(root: Path, promises: Promises, remote: str) -> list[str]:
    """What is wrong with a start in ``root/home/state``; empty where every promise is kept."""
    state = StateDirectory(root / "home/state")
    try:
        state.create().lock(serving=True)
        journal = open_journal(state.journal, SystemClock(), AT_ONCE)
        known = state.check_remote(remote, held=journal.rows())
        spool = FileSpool(state.spool, None)
        log = FileEventLog(state.log, SystemClock(), events=state.events)
        recover(journal, spool, log)
    except FsmountError as error:
        return [f"it does not start: {error}"]
    finally:
        state.unlock()
    try:
        wrong = [] if known or not promises.kept else ["it does not know its remote: offline it would not mount"]
        wrong += _lost(journal, spool, promises)
        return wrong + trio.run(_wrongly_sent, journal, spool, promises)
    finally:
        journal.close()
        log.close()


def _lost(journal: SqliteJournal, spool: FileSpool, promises: Promises) -> list[str]:
    """A promise is kept by an op, or by a file that stays on this mount, that begins with those bytes: what was written
    since may be there, in part.
    """
    held: dict[RemotePath, list[bytes]] = {}
    for record in (record for state in State for record in journal.records(state)):
        if record.state is not State.DISCARDED and record.malformed is None and record.op.body is not None:
            held.setdefault(record.op.target, []).append(_bytes(spool, record.op.body))
    for path in {path for may_be in promises.kept.values() for path, *_ in may_be}:
        litter = journal.node(RemotePath(path))
        if litter is not None and litter.body is not None:
            held.setdefault(RemotePath(path), []).append(_bytes(spool, litter.body))
    return [
        f"{file} is lost: {sorted(may_be)}"
        for file, may_be in promises.kept.items()
        if not any(
            _digest(found[:size]) == digest and len(found) >= size
            for path, digest, size in may_be
            for found in held.get(RemotePath(path), [])
        )
    ]


def _bytes(spool: FileSpool, body: Body) -> bytes:
    """All that is on the disk, also beyond the size that the journal knows."""
    try:
        source = spool.open(replace(body, size=1 << 40))
    except FileNotFoundError:
        return b""
    try:
        return source.read(0, source.size)
    finally:
        source.close()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def _wrongly_sent(journal: SqliteJournal, spool: FileSpool, promises: Promises) -> list[str]:
    wrong = []
    while claims := journal.claim(100):
        for claim in claims:
            wrong += await _attempt(claim, journal, spool, promises)
    return wrong


async def _attempt(claim: Claim, journal: SqliteJournal, spool: FileSpool, promises: Promises) -> list[str]:
    path, body = claim.op.target, claim.op.body
    wrong: list[str] = []
    if body is not None:
        try:
            claim = await sealed(Claimed(claim=claim, frozen=None), journal, spool)
            ready = await parcel(claim, spool)
        except CorruptBody as error:
            synced = (path, body.digest, body.size) in promises.synced
            wrong = [f"{path} is corrupt although it was synced: {error}"] if synced else []
        else:
            sent = ready.source.read(0, ready.source.size)
            ready.source.close()
            if (path, _digest(sent), len(sent)) not in promises.meant:
                wrong = [f"{path} would be sent with bytes that nobody wrote"]
    journal.bury(claim, Reason.REJECTED, "the end of this test", None, charged=False)
    return wrong
