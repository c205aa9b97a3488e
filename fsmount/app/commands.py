"""What a person decides, carried out: implements ports.Commands.

Invariant: a decision is in the journal, and the filesystem has heard of it, when the call returns. Decisions about many
ops are one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fsmount.errors import VerbRefused
from fsmount.model import Op, OpId, Record, RemotePath, State, provider_of
from fsmount.ports import Details, EventLog, Journal
from fsmount.uploader import Uploader
from fsmount.vfs.arrivals import Arrivals


class Decisions:
    """The commands of one mount. What becomes of each op is told by the journal, what was refused of many by this."""

    def __init__(self, journal: Journal, arrivals: Arrivals, uploader: Uploader, log: EventLog) -> None:
        self._journal = journal
        self._arrivals = arrivals
        self._uploader = uploader
        self._log = log

    # one op

    def retry(self, op_id: OpId) -> None:
        self._decide(self._journal.retry, op_id)

    def force(self, op_id: OpId) -> None:
        self._decide(self._journal.force, op_id)

    def discard(self, op_id: OpId) -> None:
        self._decide(self._journal.discard, op_id)

    def purge(self, op_id: OpId) -> None:
        self._journal.purge(op_id)

    def _decide(self, decide: Callable[[OpId], None], op_id: OpId) -> None:
        record = self._journal.record(op_id)
        decide(op_id)
        if record is not None:
            self._arrivals.changed(record.op)

    # many

    def retry_dead(self, provider: str | None) -> int:
        """Every dead letter (of a provider) that can be tried again, the newest of each path; how many."""
        dead = [
            record
            for record in self._journal.records(State.DEAD)
            if record.malformed is None and (provider is None or provider_of(record.op.path) == provider)
        ]
        return self._decide_all(self._journal.retry, reversed(_newest_of_each_path(dead)))

    def release_held(self) -> int:
        """Lets the held ops go, in their order; how many."""
        return self._decide_all(self._journal.retry, reversed(self._journal.records(State.HELD)))

    def discard_held(self) -> int:
        """Brings back what the held ops took away; how many. The newest first: others may need the older ones."""
        return self._decide_all(self._journal.discard, self._journal.records(State.HELD))

    def _decide_all(self, decide: Callable[[OpId], None], records: Iterable[Record]) -> int:
        done: list[Op] = []
        with self._journal.transaction():
            for record in records:
                try:
                    decide(record.op.op_id)
                except VerbRefused as error:
                    self._refused(record.op, str(error))
                else:
                    done.append(record.op)
        for op in done:
            self._arrivals.changed(op)
        return len(done)

    def _refused(self, op: Op, message: str) -> None:
        self._log.note("verb.refused", message, op=op.op_id, path=op.target, level="warning")

    # the mount

    def refresh(self, path: RemotePath) -> None:
        """What is known of ``path`` and all below it is asked again."""
        self._arrivals.refresh(path)

    def pause(self) -> None:
        """Nothing is sent until ``resume``, over restarts too."""
        if not self._uploader.paused:
            self._uploader.pause()
            until = "uploads pause until: echo resume > .relay/ctl"
            self._log.note("mount", until, level="warning", details=Details(state="paused"))

    def resume(self) -> None:
        """Sends again, also where uploads pause because too much was refused."""
        if self._uploader.paused or self._uploader.failing:
            self._log.note("mount", "uploads go on", details=Details(state="resumed"))
        self._uploader.resume()

    def flush(self) -> None:
        """Makes due what only settles."""
        self._journal.expedite()


def _newest_of_each_path(records: Iterable[Record]) -> list[Record]:
    """Of ``records``, the newest first, those on whose names none of the others is newer."""
    seen: set[RemotePath] = set()
    newest = []
    for record in records:
        names = {record.op.path, record.op.target}
        if names.isdisjoint(seen):
            newest.append(record)
        seen |= names
    return newest
