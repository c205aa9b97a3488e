"""Follows the remote's change feed for as long as the daemon runs.

Invariant: the connection's ``feed`` tells how changes are learned now; without a feed the listings' time to live bounds
how old they get. Whatever goes wrong in a feed ends that feed at most, and is logged.
"""

from __future__ import annotations

import trio

from fsmount.app.providers import Providers
from fsmount.connection import Connection
from fsmount.errors import Refusal, RemoteError, kind_and_place
from fsmount.model import Change, Feed, Told
from fsmount.ports import Clock, EventLog
from fsmount.remote.relayfile import RelayfileRemote
from fsmount.vfs.filesystem import Filesystem

SOON, AGAIN = 1.0, 5.0
"""Seconds until a feed that failed is asked again, the first time and later."""
REFUSED = 60
"""How many times as long it takes until a feed that this credential may not follow is asked again with it."""


class Following:
    """Brings what somebody else changed to the filesystem."""

    def __init__(
        self,
        remote: RelayfileRemote,
        connection: Connection,
        filesystem: Filesystem,
        providers: Providers,
        clock: Clock,
        log: EventLog,
    ) -> None:
        self._remote = remote
        self._connection = connection
        self._filesystem = filesystem
        self._providers = providers
        self._clock = clock
        self._log = log
        self.last_event_at: float | None = None
        """UTC epoch seconds."""
        self._reachable = trio.Event()
        connection.watch(self._connection_changed)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._remote.follow(self._told, self._going)
            except RemoteError as error:
                wait = AGAIN if self._connection.feed is Feed.NONE else SOON
                self._going(Feed.NONE)
                await self._wait_after(error, wait)
            except Exception as error:  # noqa: BLE001 - without a feed the mount still serves, without a daemon it hangs
                self._going(Feed.NONE)
                what = f"internal error: {kind_and_place(error)}; followed again in {AGAIN:g} s"
                self._log.note("feed", what, level="error")
                await trio.sleep(AGAIN)

    async def _wait_after(self, error: RemoteError, seconds: float) -> None:
        if isinstance(error, Refusal) and error.status in (403, 404):
            self._log.note("connection", f"no change feed: {error.message}", level="warning")
            await self._wait_for_credential()
            return
        # Whether it is the feed alone, the way to the remote or the credential: a probe tells.
        self._connection.suspect()
        with trio.move_on_after(seconds):
            await self._reachable.wait()

    def _connection_changed(self) -> None:
        if self._connection.usable:
            reachable, self._reachable = self._reachable, trio.Event()
            reachable.set()

    async def _wait_for_credential(self) -> None:
        """Until another one may be granted more, or it is time to try the same one."""
        refused = self._remote.credentials_taken
        for _ in range(REFUSED):
            await trio.sleep(AGAIN)
            if self._remote.credentials_taken != refused:
                return

    def _told(self, told: Told | None) -> None:
        self.last_event_at = self._clock.now()
        if told is None:
            self._filesystem.arrivals.missed()
            self._providers.missed()
        elif isinstance(told, Change):
            self._filesystem.arrivals.remote_changed(told)
        else:
            self._providers.told(told)

    def _going(self, feed: Feed) -> None:
        if feed is not self._connection.feed:
            self._log.note("feed", f"changes elsewhere: {feed}")
        self._connection.feed = feed
        if feed is not Feed.NONE:
            self._connection.heard()
