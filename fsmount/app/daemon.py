"""One mount's daemon: joins the parts, starts them and stops them in order.

Invariant: everything runs in one nursery. Lock, journal and recovery come before the mount, mounting is the last act of
the start; at the end the mount goes first, then what it stands on.
"""

from __future__ import annotations

import logging
import os
import resource
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress

import trio

from fsmount import __version__, registry
from fsmount.app.recovery import recover, remove_released, unresolved
from fsmount.cache import FileCache
from fsmount.clock import SystemClock
from fsmount.config import Config
from fsmount.connection import Connection
from fsmount.errors import FileError, FsmountError, Refusal, RemoteError, Unreachable
from fsmount.eventlog import FileEventLog, LogHandler
from fsmount.fuse import session
from fsmount.fuse.operations import Operations
from fsmount.fuse.session import KernelNotifier
from fsmount.journal import SqliteJournal, open_journal
from fsmount.model import CacheUse, Feed, MountIdentity, OpId, Preconditions, SpoolUse, Timing, Traffic, Transfer
from fsmount.model import Connection as ConnectionShown
from fsmount.remote.relayfile import RelayfileRemote
from fsmount.retry import Policy
from fsmount.spool import FileSpool
from fsmount.statedir import StateDirectory
from fsmount.uploader import Uploader
from fsmount.vfs.control import ControlTree
from fsmount.vfs.filesystem import Filesystem

RETENTION = 3600.0
"""Seconds between two looks for discarded ops whose time is over."""
FEED_RETRY = 5.0
"""Seconds until a change feed that failed is asked again."""


def run(config: Config, ready: Callable[[], None]) -> int:
    """Mounts and serves until the mount is ended; the exit code. ``ready`` is called when the mount answers.

    Raises FsmountError if it cannot be mounted; a first mount that fails leaves nothing behind.
    """
    _allow_descriptors()
    state = StateDirectory(config.state_dir).create()
    state.lock(serving=True, drain=config.drain)
    known, cached = state.identity() is not None, config.cache_dir.exists()
    try:
        return _serve(config, state, ready)
    except FsmountError:
        if not known:
            state.abandon()
            if not cached:
                shutil.rmtree(config.cache_dir, ignore_errors=True)
        raise
    finally:
        state.unlock()


def _allow_descriptors() -> None:
    """Every open file that is being written holds one: as many as the system grants."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _serve(config: Config, state: StateDirectory, ready: Callable[[], None]) -> int:
    clock = SystemClock()
    log = FileEventLog(config.log_file, clock, debug=config.debug, echo=config.foreground and config.debug)
    logging.getLogger().addHandler(LogHandler(log, debug=config.debug))
    timing = Timing(
        settle=config.settle,
        max_settle=config.max_settle,
        delete_settle=config.delete_settle,
        open_settle=config.open_settle,
    )
    journal = open_journal(state.journal, clock, timing)
    known = state.check_remote(str(config.remote), held=journal.rows())
    spool = FileSpool(state.spool, config.spool_limit)
    recover(journal, spool, log)
    try:
        return trio.run(Daemon(config, state, clock, log, journal, spool).main, known, ready)
    finally:
        journal.close()
        log.close()


class Daemon:
    """One mount: its parts, and the facts that the status shows of them."""

    def __init__(
        self,
        config: Config,
        state: StateDirectory,
        clock: SystemClock,
        log: FileEventLog,
        journal: SqliteJournal,
        spool: FileSpool,
    ) -> None:
        self._config = config
        self._state = state
        self._clock = clock
        self._log = log
        self._spool = spool
        self._cache = FileCache(config.cache_dir, config.cache_limit)
        self._remote = RelayfileRemote(config.remote, config.credentials, timeout=config.timeout, log=log)
        self._connection = Connection(self._remote, clock, log)
        self._kernel = KernelNotifier(log)
        self._filesystem = Filesystem(
            config, journal, spool, self._cache, self._remote, self._connection, self._kernel, clock, log
        )
        self._uploader = Uploader(
            journal,
            spool,
            self._remote,
            self._connection,
            self._filesystem.arrivals,
            clock,
            log,
            Policy(max_attempts=config.max_attempts),
        )
        self._last_event_at: float | None = None
        self._released = trio.Event()
        self._delivered = False
        self.journal = journal
        self.identity = MountIdentity(
            name=config.name,
            remote=str(config.remote),
            workspace=config.remote.workspace,
            root=config.remote.root,
            mountpoint=str(config.mountpoint),
            version=__version__,
            pid=os.getpid(),
            started_at=clock.now(),
        )

    # Facts

    def now(self) -> float:
        return self._clock.now()

    def connection(self) -> ConnectionShown:
        return self._connection.shown

    def preconditions(self) -> Preconditions:
        return Preconditions.ENFORCED

    def transfers(self) -> Sequence[Transfer]:
        return self._uploader.transfers

    def traffic(self) -> Traffic:
        return Traffic(
            requests=self._remote.requests,
            bytes_down=self._filesystem.contents.bytes_down,
            invalidations=self._kernel.count,
            last_event_at=self._last_event_at,
        )

    def cache(self) -> CacheUse:
        return CacheUse(
            bytes=self._cache.used, limit=self._cache.limit, hits=self._cache.hits, misses=self._cache.misses
        )

    def spool(self) -> SpoolUse:
        return SpoolUse(bytes=self._spool.used, limit=self._spool.limit)

    # Commands

    def retry(self, op_id: OpId) -> None:
        self._decide(self.journal.retry, op_id)

    def discard(self, op_id: OpId) -> None:
        self._decide(self.journal.discard, op_id)

    def _decide(self, decide: Callable[[OpId], None], op_id: OpId) -> None:
        record = self.journal.record(op_id)
        decide(op_id)
        if record is not None:
            self._filesystem.arrivals.changed(record.op)

    # running

    async def main(self, known: bool, ready: Callable[[], None]) -> int:
        """Serves until a signal or until the mount is taken away; 0."""
        if not known:
            await self._first_contact()
        self._mount()
        clean = False
        try:
            async with trio.open_nursery() as nursery:
                for task in (self._stop_on_signal, self._connection.run, self._uploader.run, self._follow_feed):
                    nursery.start_soon(task)
                nursery.start_soon(self._filesystem.arrivals.run)
                nursery.start_soon(self._sweep)
                nursery.start_soon(self._retain)
                nursery.start_soon(_call_when_serving, ready)
                await session.serve()
                await self._deliver()
                nursery.cancel_scope.cancel()
            clean = True
        finally:
            session.close(unmount=clean)
            self._kernel.close()
            self._cache.close()
            with trio.CancelScope(shield=True), suppress(RemoteError):
                await self._remote.aclose()
        self._take_leave()
        return 0

    def _mount(self) -> None:
        """Registers and mounts; where that fails, the registration is as it was before."""
        before = registry.at(str(self._config.mountpoint))
        operations = self._operations()
        self._announce()
        try:
            session.mount(
                operations,
                self._config.mountpoint,
                fsname=str(self._config.remote),
                allow_other=self._config.allow_other,
                read_only=self._config.read_only,
            )
        except FsmountError:
            registry.remove(str(self._config.mountpoint))
            if before is not None:
                registry.write(before)
            raise
        self._log.note("mount", f"mounted {self._config.remote} at {self._config.mountpoint}")

    async def _first_contact(self) -> None:
        """Asks a remote that this state directory does not know; raises RemoteError if it is not there or not one."""
        try:
            with trio.fail_after(self._config.timeout):
                await self._connection_probe()
        except trio.TooSlowError as error:
            await self._remote.aclose()
            message = f"{self._config.remote.origin} did not answer within {self._config.timeout:g} s"
            raise Unreachable(message, timed_out=True) from error
        except BaseException:
            await self._remote.aclose()
            raise
        self._state.claim_for(str(self._config.remote), __version__)

    async def _connection_probe(self) -> None:
        await self._remote.probe()
        self._connection.contacted()

    def _operations(self) -> Operations:
        control = ControlTree(
            self, self, self._spool, self._log, self._clock, uid=self._config.uid, gid=self._config.gid
        )
        self.journal.watch(self._note_change)
        return Operations(
            self._filesystem,
            control,
            self._clock,
            self._log,
            timeout=self._config.timeout,
            ttl=self._config.attr_ttl,
            state_dir=str(self._config.state_dir),
        )

    def _announce(self) -> None:
        registry.write(
            registry.Registration(
                mountpoint=str(self._config.mountpoint),
                name=self._config.name,
                remote=str(self._config.remote),
                state_dir=str(self._config.state_dir),
                pid=os.getpid(),
                started_at=self._clock.now(),
            )
        )

    def _take_leave(self) -> None:
        """The registration stays while an op can still be looked at, so that commands find it."""
        left = unresolved(self.journal)
        self._log.note("mount", f"unmounted {self._config.mountpoint}; {left} ops are unresolved")
        if not left and not self.journal.counts().discarded:
            registry.remove(str(self._config.mountpoint))

    def _note_change(self) -> None:
        self._released.set()

    async def _sweep(self) -> None:
        """Removes bodies that no op needs any more; never in the transaction that let go of them."""
        while True:
            await self._released.wait()
            self._released = trio.Event()
            await trio.sleep(0.05)
            remove_released(self.journal, self._spool)

    async def _retain(self) -> None:
        while True:
            with suppress(FileError):  # a full disk: next time
                gone = self.journal.purge_discarded(self._clock.now() - self._config.keep_discarded)
                if gone:
                    self._log.note("op.purged", f"{gone} discarded ops were older than --keep-discarded")
            await trio.sleep(RETENTION)

    async def _follow_feed(self) -> None:
        """Learns changes made elsewhere; without a feed the listings' time to live bounds how old they get."""
        while True:
            try:
                async for change in self._remote.changes():
                    self._connection.feed = Feed.POLLING
                    self._last_event_at = self._clock.now()
                    if change is None:
                        self._filesystem.arrivals.missed()
                    else:
                        self._filesystem.arrivals.remote_changed(change)
            except RemoteError as error:
                if self._connection.feed is not Feed.NONE:
                    self._connection.feed = Feed.NONE
                    self._filesystem.listings.renew()
                if isinstance(error, Refusal) and error.status in (403, 404):
                    self._log.note("connection", f"no change feed: {error.message}", level="warning")
                    return
                # Whether it is the feed alone, the way to the remote or the credential: a probe tells.
                self._connection.suspect()
            await trio.sleep(FEED_RETRY)

    async def _stop_on_signal(self) -> None:
        """First signal: no new writers, deliver what can be, unmount. Second: at once."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            await anext(signals)
            self._filesystem.files.closing = True
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_at_next, signals, nursery.cancel_scope)
                await self._deliver()
                nursery.cancel_scope.cancel()
        self._delivered = True
        session.stop()

    async def _deliver(self) -> None:
        """At the end, once: what is queued is sent for as long as --drain allows. What a program has still open and
        never flushed is half a file: it stays a draft.
        """
        if not self._delivered:
            await self._uploader.drain(seconds=self._drain_seconds())
        self._delivered = True

    def _drain_seconds(self) -> float:
        asked = self._state.asked_drain()
        return self._config.drain if asked is None else asked


async def _cancel_at_next(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    await anext(signals)
    scope.cancel()


async def _call_when_serving(ready: Callable[[], None]) -> None:
    """The first request is answered by now or waits in the kernel for a loop that runs."""
    await trio.lowlevel.checkpoint()
    ready()
