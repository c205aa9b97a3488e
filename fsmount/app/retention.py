"""When what was discarded has had its term.

Invariant: the wall clock says when something was discarded, but being set makes nothing older: neither while the daemon
runs nor between two daemons. In doubt a thing is kept longer.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import trio

from fsmount.errors import FileError
from fsmount.journal import SqliteJournal
from fsmount.ports import Clock, EventLog

LOOK = 3600.0
"""Seconds between two looks for discarded ops whose time is over."""
JUMP = 60.0
"""Seconds by which the wall clock differs from what has passed, from which on it was set rather than corrected."""
SEEN = "clock"
"""The journal's setting that says what the wall clock was at the last look, in UTC epoch seconds."""


class Retention:
    """``keep`` gives the term in seconds."""

    def __init__(self, journal: SqliteJournal, clock: Clock, log: EventLog, keep: Callable[[], float]) -> None:
        self._journal = journal
        self._clock = clock
        self._log = log
        self._keep = keep
        self._offset = self._read_offset()
        self._set = trio.Event()
        self._set_at = 0.0
        journal.watch(self._compare)

    async def run(self) -> None:
        """For ever."""
        with suppress(FileError):
            self._follow_since_last_run()
        while True:
            with suppress(FileError):  # a full disk: next time
                self._look()
            with trio.move_on_after(LOOK):
                await self._set.wait()

    def _read_offset(self) -> float:
        return self._clock.now() - self._clock.monotonic()

    def _compare(self) -> None:
        """At every change of the journal, so that what is discarded after the clock was set is told from the rest."""
        if abs(self._read_offset() - self._offset) > JUMP and not self._set.is_set():
            self._set_at = self._clock.now()
            self._set.set()

    def _follow_since_last_run(self) -> None:
        """How long nobody looked cannot be known: more than a whole term, or less than nothing, counts as nothing."""
        seen, now = self._journal.setting(SEEN), self._clock.now()
        if seen is not None and not -JUMP <= now - float(seen) <= self._keep():
            self._journal.follow_clock(now - float(seen), now)

    def _look(self) -> None:
        self._compare()
        if self._set.is_set():
            jumped = self._read_offset() - self._offset
            self._journal.follow_clock(jumped, self._set_at - JUMP)
            self._offset += jumped
            self._set = trio.Event()
        now = self._clock.now()
        gone = self._journal.purge_discarded(now - self._keep())
        if gone:
            self._log.note("op.purged", f"{gone} discarded ops were older than --keep-discarded")
        self._journal.keep_setting(SEEN, repr(now))
