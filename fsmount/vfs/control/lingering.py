"""What a listing has shown stays readable for a moment, whatever becomes of it.

Invariant: whoever lists a directory and then reads what it listed finds all of it, while the queue moves on. What has
gone is never listed again and cannot be moved.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from fsmount.model import Body, OpId, Record
from fsmount.ports import Clock, Journal, Source, Spool
from fsmount.vfs.control.names import CONFLICT, CONTENT
from fsmount.vfs.control.opened import open_body

LINGER = 2.0
"""Seconds from the listing."""
_KEPT = 4096
_OPEN = 512
"""The most ops that are kept after they have gone, and of how many the bytes are; the oldest go first."""


class Lingering:
    """Which names listings have shown in the last seconds, and what stood there."""

    def __init__(self, journal: Journal, spool: Spool, clock: Clock) -> None:
        self._journal = journal
        self._spool = spool
        self._clock = clock
        self._shown: dict[str, dict[OpId, float]] = {}
        self._gone: dict[OpId, tuple[Record, float]] = {}
        self._bodies: dict[OpId, dict[Body, SharedSource]] = {}
        self._swept_at = clock.monotonic()
        journal.watch_leaving(self.leaves)

    def show(self, directory: str, op_ids: Iterable[OpId]) -> None:
        """A program was told that these are in ``directory``."""
        now = self._swept()
        self._shown.setdefault(directory, {}).update(dict.fromkeys(op_ids, now + LINGER))

    def shows(self, directory: str, op_id: OpId) -> bool:
        """Whether a program may still come to read what it was told of."""
        return self._shown.get(directory, {}).get(op_id, 0.0) > self._clock.monotonic()

    def record(self, op_id: OpId) -> Record | None:
        """The op as it was, or as it is where only its state changed."""
        gone = self._gone.get(op_id)
        return self._journal.record(op_id) if gone is None else gone[0]

    def open(self, op_id: OpId, body: Body) -> Source:
        """The bytes of an op, gone or not; raises OSError."""
        held = self._bodies.get(op_id, {}).get(body)
        return open_body(self._spool, body) if held is None else held.share()

    def leaves(self, op_id: OpId) -> None:
        """The op is about to go from where it stands; keeps what a program may still come to read."""
        now = self._swept()
        shown = [name for name, until in self._shown.items() if until.get(op_id, 0.0) > now]
        record = self._journal.record(op_id) if shown else None
        if record is None:
            return
        self._forget(op_id)
        self._gone[op_id] = (record, now + LINGER)
        if len(self._gone) > _KEPT:
            self._forget(next(iter(self._gone)))
        if CONTENT in shown or CONFLICT in shown:
            self._bodies[op_id] = self._opened(record)
        if len(self._bodies) > _OPEN:
            self._close(next(iter(self._bodies)))

    def _opened(self, record: Record) -> dict[Body, SharedSource]:
        found: dict[Body, SharedSource] = {}
        for body in (record.op.body, None if record.theirs is None else record.theirs.body):
            if body is not None:
                with suppress(OSError):
                    found[body] = SharedSource(self._spool.open(body))
        return found

    def _forget(self, op_id: OpId) -> None:
        self._gone.pop(op_id, None)
        self._close(op_id)

    def _close(self, op_id: OpId) -> None:
        for source in self._bodies.pop(op_id, {}).values():
            source.close()

    def _swept(self) -> float:
        """The time now; what nobody comes for any more is forgotten now and then."""
        now = self._clock.monotonic()
        if now - self._swept_at > LINGER:
            self._swept_at = now
            self._shown = {
                directory: {op_id: until for op_id, until in shown.items() if until > now}
                for directory, shown in self._shown.items()
            }
            for op_id in [op_id for op_id, (_, until) in self._gone.items() if until <= now]:
                self._forget(op_id)
        return now


class SharedSource:
    """Implements ports.Source for several who each close it; the last one closes what is behind it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._holders = 1

    @property
    def size(self) -> int:
        return self._source.size

    def read(self, offset: int, size: int) -> bytes:
        return self._source.read(offset, size)

    def share(self) -> SharedSource:
        """One holder more."""
        self._holders += 1
        return self

    def close(self) -> None:
        self._holders -= 1
        if not self._holders:
            self._source.close()
