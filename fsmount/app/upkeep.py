"""What a daemon tidies up beside its work: bodies that no op needs, discarded ops whose time or room is over, memory.

Invariant: nothing here runs in the transaction that let go of something, and a full disk only puts it off.
"""

from __future__ import annotations

from contextlib import suppress

import trio

from fsmount.app.process import return_memory
from fsmount.app.recovery import remove_released
from fsmount.app.retention import Retention
from fsmount.config import Config
from fsmount.errors import FileError
from fsmount.journal import SqliteJournal
from fsmount.ports import Clock, EventLog
from fsmount.spool import FileSpool

ROOM = 2.0
"""Seconds between two looks at how much the discarded bodies take."""
RECOUNT = 60.0
"""Seconds between two looks where nothing more was given up: some may have been purged, or tried again."""
GATHER = 0.2
"""Seconds between two removals of bodies: each costs a flush of the journal."""
SHRINK = 10.0
"""Seconds between two returns of memory."""


class Upkeep:
    """Runs beside the mount; ``config`` may be replaced while it runs."""

    def __init__(self, config: Config, journal: SqliteJournal, spool: FileSpool, clock: Clock, log: EventLog) -> None:
        self.config = config
        self._journal = journal
        self._spool = spool
        self._clock = clock
        self._log = log
        self._retention = Retention(journal, clock, log, lambda: self.config.keep_discarded)
        self._changed = trio.Event()
        self._given_up = -1
        self._look_again = 0.0
        journal.watch(self._note_change)

    async def run(self) -> None:
        """For ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sweep)
            nursery.start_soon(self._retention.run)
            nursery.start_soon(self._keep_room)
            nursery.start_soon(self._shrink)

    def _note_change(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def _sweep(self) -> None:
        """Removes bodies that no op needs any more; the first are those that a former run left."""
        while True:
            changed = self._changed
            with suppress(OSError):  # a disk that cannot be synced: next time
                await self._remove_released()
            await changed.wait()
            await trio.sleep(GATHER)

    async def _remove_released(self) -> None:
        leaving = self._journal.leaving()
        if leaving:
            await trio.to_thread.run_sync(self._journal.durable)
            remove_released(leaving, self._journal, self._spool)

    async def _keep_room(self) -> None:
        """Discarded bodies have a limit of their own, and take no room from those that are still to be sent."""
        while True:
            changed = self._changed
            with suppress(FileError):
                self._look_at_discarded()
            await trio.to_thread.run_sync(self._journal.keep_reserve)
            await changed.wait()
            await trio.sleep(ROOM)

    @staticmethod
    async def _shrink() -> None:
        """What a large file took is not held for the next one, which may never come."""
        while True:
            await trio.sleep(SHRINK)
            await trio.to_thread.run_sync(return_memory)

    def _look_at_discarded(self) -> None:
        totals, now = self._journal.totals(), self._clock.monotonic()
        given_up, limit = totals.discarded + totals.superseded, self.config.discard_limit
        if given_up == self._given_up and now < self._look_again:
            return
        self._given_up, self._look_again = given_up, now + RECOUNT
        if limit is not None:
            gone = self._journal.trim_discarded(limit)
            if gone:
                self._log.note("op.purged", f"{gone} superseded ops were beyond --discard-limit")
        self._spool.set_aside(self._journal.discarded_bytes())
