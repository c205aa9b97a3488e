"""Follows the remote's change feed for as long as the daemon runs.

Invariant: the connection's ``feed`` tells how changes are learned now; without a feed the listings' time to live bounds
how old they get.
"""

from __future__ import annotations

import trio

from fsmount.app.providers import Providers
from fsmount.connection import Connection
from fsmount.errors import Refusal, RemoteError
from fsmount.model import Change, Feed, ProviderFailed, ProviderSucceeded
from fsmount.ports import Clock, EventLog
from fsmount.remote.relayfile import RelayfileRemote
from fsmount.vfs.filesystem import Filesystem

AGAIN = 5.0
"""Seconds until a feed that failed is asked again."""


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
        remote.watch_changes(self._answered)

    async def run(self) -> None:
        """Until the remote turns out to have no feed for this credential."""
        while True:
            try:
                await self._follow()
            except RemoteError as error:
                if self._connection.feed is not Feed.NONE:
                    self._connection.feed = Feed.NONE
                    self._filesystem.listings.renew()
                if isinstance(error, Refusal) and error.status in (403, 404):
                    self._log.note("connection", f"no change feed: {error.message}", level="warning")
                    return
                # Whether it is the feed alone, the way to the remote or the credential: a probe tells.
                self._connection.suspect()
            await trio.sleep(AGAIN)

    async def _follow(self) -> None:
        async for change in self._remote.changes():
            self.last_event_at = self._clock.now()
            if change is None:
                self._filesystem.arrivals.missed()
                self._providers.missed()
            elif isinstance(change, Change):
                self._filesystem.arrivals.remote_changed(change)
            elif isinstance(change, ProviderFailed | ProviderSucceeded):
                self._providers.told(change)

    def _answered(self) -> None:
        self._connection.feed = Feed.POLLING
        self._connection.heard()
