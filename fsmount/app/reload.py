"""What SIGHUP does: the credential and the configuration are read again.

Invariant: a configuration that cannot be read changes nothing, and no message here holds a credential.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

import trio
from msgspec.structs import replace

from fsmount.config import Config
from fsmount.connection import Connection
from fsmount.errors import FsmountError
from fsmount.journal import SqliteJournal
from fsmount.model import Timing
from fsmount.ports import Details, EventLog
from fsmount.remote.relayfile import RelayfileRemote
from fsmount.retry import Policy
from fsmount.uploader import Uploader

AT_ONCE = (
    "settle", "max_settle", "open_settle", "max_attempts", "max_deletes", "keep_discarded", "discard_limit", "drain",
)  # fmt: skip
"""What can change while the mount is there; all else is taken by the next mount."""


def timing_of(config: Config) -> Timing:
    """How long ops settle."""
    return Timing(
        settle=config.settle,
        max_settle=config.max_settle,
        delete_settle=config.delete_settle,
        open_settle=config.open_settle,
    )


def policy_of(config: Config) -> Policy:
    """How often ops are tried."""
    return Policy(max_attempts=config.max_attempts)


class Reload:
    """Follows SIGHUP; ``config`` is what counts now. ``reload`` reads the configuration anew, None: there is none."""

    def __init__(
        self,
        config: Config,
        reload: Callable[[], Config] | None,
        journal: SqliteJournal,
        uploader: Uploader,
        remote: RelayfileRemote,
        connection: Connection,
        log: EventLog,
    ) -> None:
        self.config = config
        self._reload = reload
        self._journal = journal
        self._uploader = uploader
        self._remote = remote
        self._connection = connection
        self._log = log
        self._watchers: list[Callable[[Config], None]] = []

    def watch(self, changed: Callable[[Config], None]) -> None:
        """``changed`` is called with each new configuration."""
        self._watchers.append(changed)

    async def on_hangup(self) -> None:
        """For ever."""
        with trio.open_signal_receiver(signal.SIGHUP) as signals:
            async for _ in signals:
                await self._read_again()

    async def _read_again(self) -> None:
        await trio.to_thread.run_sync(self._remote.read_credential_again)
        self._connection.credential_read()
        self._log.note("credential", "SIGHUP: the credential is read again", details=Details(state="read"))
        if self._reload is None:
            return
        try:
            found = await trio.to_thread.run_sync(self._reload)
        except (FsmountError, OSError) as error:
            self._log.note("config", f"SIGHUP: the configuration stays as it was: {error}", level="error")
            return
        self._take(found)

    def _take(self, found: Config) -> None:
        changed = [name for name in found.__struct_fields__ if getattr(found, name) != getattr(self.config, name)]
        now = [name for name in changed if name in AT_ONCE]
        self.config = replace(self.config, **{name: getattr(found, name) for name in now})
        self._journal.retime(timing_of(self.config))
        self._uploader.follow(policy_of(self.config))
        for told in self._watchers:
            told(self.config)
        self._tell(now, [name for name in changed if name not in AT_ONCE])

    def _tell(self, now: list[str], later: list[str]) -> None:
        if now:
            values = ", ".join(f"{name} = {getattr(self.config, name)}" for name in now)
            self._log.note("config", f"SIGHUP: {values}")
        if later:
            self._log.note("config", f"SIGHUP: {', '.join(later)} changed; the next mount takes it", level="warning")
        if not now and not later:
            self._log.note("config", "SIGHUP: the configuration has not changed")
