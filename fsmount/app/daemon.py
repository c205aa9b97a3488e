"""One mount's daemon: joins the parts, starts them and stops them in order.

Invariant: everything runs in one nursery. Lock, journal and recovery come before the mount, mounting is the last act of
the start; at the end the mount goes first, then what it stands on.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import trio
from msgspec.structs import replace

from fsmount import __version__, registry
from fsmount.app.beneath import names_beneath, problems_beneath
from fsmount.app.commands import Decisions
from fsmount.app.following import Following
from fsmount.app.process import allow_descriptors, keep_memory_private, settle_memory
from fsmount.app.providers import Providers
from fsmount.app.recovery import opened, problems_apart, recover, unresolved
from fsmount.app.reload import Reload, policy_of, timing_of
from fsmount.app.settings import settings
from fsmount.app.upkeep import Upkeep
from fsmount.cache import FileCache, KnownListings
from fsmount.clock import SystemClock
from fsmount.config import Config
from fsmount.connection import Connection
from fsmount.errors import FsmountError, RemoteError, Unreachable
from fsmount.eventlog import FileEventLog, LogHandler
from fsmount.fuse import session
from fsmount.fuse.notifier import KernelNotifier
from fsmount.fuse.operations import Operations
from fsmount.journal import SqliteJournal
from fsmount.model import (
    CacheUse,
    MountIdentity,
    Preconditions,
    Problem,
    ProviderResults,
    Refuser,
    RemotePath,
    SetApart,
    SpoolUse,
    Traffic,
    Transfer,
    WriteAccess,
    Writes,
)
from fsmount.model import Connection as ConnectionShown
from fsmount.ports import Details
from fsmount.remote.relayfile import RelayfileRemote
from fsmount.render.advice import apart
from fsmount.spool import FileSpool
from fsmount.statedir import Footprint, StateDirectory
from fsmount.uploader import Uploader
from fsmount.vfs.control import ControlTree
from fsmount.vfs.filesystem import Filesystem


def run(config: Config, ready: Callable[[str], None], reload: Callable[[], Config] | None = None) -> int:
    """Mounts and serves until the mount is ended; the exit code. ``ready`` is called when the mount answers, with what
    a person has to know of it, if anything.

    ``reload`` reads the configuration anew, for SIGHUP; it may raise FsmountError.

    Raises FsmountError if it cannot be mounted; a first mount that fails leaves nothing behind.
    """
    allow_descriptors()
    settle_memory()
    if not config.debug:
        keep_memory_private()
    # Until somebody listens for it, a terminal that closes must not end what is starting.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    state = StateDirectory(config.state_dir)
    cache, registrations = Footprint(config.cache_dir), Footprint(registry.directory())
    known = answered = False

    def answers(warning: str) -> None:
        nonlocal answered
        answered = True
        state.settle()
        ready(warning)

    try:
        state.create().lock(serving=True, drain=config.drain, break_lock=config.break_lock)
        known = state.identity() is not None
        return _serve(config, state, answers, reload)
    except BaseException:
        if not known and not answered and state.locked:
            registrations.undo(shared=True)
            state.abandon()
            cache.undo()
        raise
    finally:
        state.unlock()


def _serve(
    config: Config, state: StateDirectory, ready: Callable[[str], None], reload: Callable[[], Config] | None
) -> int:
    clock = SystemClock()
    log = FileEventLog(
        config.log_file,
        clock,
        events=state.events,
        root=config.remote.root,
        debug=config.debug,
        echo=config.foreground and config.debug,
    )
    logging.getLogger().addHandler(LogHandler(log, debug=config.debug))
    journal = opened(state, str(config.remote), clock, timing_of(config))
    known = state.check_remote(str(config.remote), held=journal.rows())
    spool = FileSpool(state.spool, config.spool_limit, journal.lacking)
    warning = ""
    if journal.damage:
        config = replace(config, read_only=True)
        warning = f"{journal.damage}; the mount is read-only, and the files stay as they are"
        log.note("mount", warning, level="error")
    else:
        recover(journal, spool, log)
    warning = "; ".join(filter(None, (warning, apart(spool.apart()))))
    journal.tell(log)
    try:
        return trio.run(Daemon(config, state, clock, log, journal, spool, reload).main, known, partial(ready, warning))
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
        reload: Callable[[], Config] | None,
    ) -> None:
        self._config = config
        self._state = state
        self._clock = clock
        self._log = log
        self._spool = spool
        self._cache = FileCache(config.cache_dir, config.cache_limit)
        self._known = KnownListings(config.cache_dir, str(config.remote))
        self._remote = RelayfileRemote(
            config.remote, config.credentials, timeout=config.timeout, log=log, problems=self._listed
        )
        self._connection = Connection(self._remote, clock, log)
        self._kernel = KernelNotifier()
        self._filesystem = Filesystem(
            config,
            journal,
            spool,
            self._cache,
            self._remote,
            self._connection,
            self._kernel,
            clock,
            log,
            self._known,
        )
        self._uploader = Uploader(
            journal,
            spool,
            self._remote,
            self._connection,
            self._filesystem.arrivals,
            clock,
            log,
            policy_of(config),
        )
        self._decisions = Decisions(journal, self._filesystem.arrivals, self._uploader, log)
        self._upkeep = Upkeep(config, journal, spool, clock, log)
        self._reload = Reload(config, reload, journal, self._uploader, self._remote, self._connection, log)
        self._reload.watch(self._reconfigured)
        self._providers = Providers(self._remote, self._connection, journal, clock, log)
        self._following = Following(self._remote, self._connection, self._filesystem, self._providers, clock, log)
        self._remote.watch_reset(self._filesystem.arrivals.reset)
        self._began = clock.monotonic()
        self._delivered = False
        self._beneath: list[str] = []
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

    def uptime(self) -> float:
        return self._clock.monotonic() - self._began

    def connection(self) -> ConnectionShown:
        return self._connection.shown

    def preconditions(self) -> Preconditions:
        return Preconditions.ENFORCED

    def provider_results(self) -> ProviderResults:
        return self._providers.results

    def writes(self) -> Writes:
        if self._config.read_only:
            return Writes(allowed=WriteAccess.NOWHERE, because=Refuser.READ_ONLY)
        places = self._remote.writable()
        if places is None:
            return Writes()
        allowed = WriteAccess.PART if places else WriteAccess.NOWHERE
        return Writes(allowed=allowed, places=places, because=Refuser.CREDENTIAL)

    def transfers(self) -> Sequence[Transfer]:
        return self._uploader.transfers

    def traffic(self) -> Traffic:
        return Traffic(
            requests=self._remote.requests,
            bytes_down=self._filesystem.contents.bytes_down,
            invalidations=self._kernel.count,
            last_event_at=self._following.last_event_at,
        )

    def cache(self) -> CacheUse:
        return CacheUse(
            bytes=self._cache.used, limit=self._cache.limit, hits=self._cache.hits, misses=self._cache.misses
        )

    def spool(self) -> SpoolUse:
        return SpoolUse(bytes=self._spool.used, limit=self._spool.limit)

    def paused(self) -> bool:
        return self._uploader.paused

    def refusing(self) -> bool:
        return self._uploader.failing

    def problems(self) -> Sequence[Problem]:
        return [*self._filesystem.problems.all(), *problems_apart(self._spool)]

    def apart(self) -> Sequence[SetApart]:
        return self._spool.apart()

    def settings(self) -> dict[str, object]:
        return settings(self._reload.config, spool_limit=self._spool.limit)

    # running

    async def main(self, known: bool, ready: Callable[[], None]) -> int:
        """Serves until a signal or until the mount is taken away; 0."""
        if not known:
            await self._first_contact()
        self._mount()
        clean = False
        try:
            async with trio.open_nursery() as nursery:
                for task in (self._stop_on_signal, self._connection.run, self._uploader.run, self._following.run):
                    nursery.start_soon(task)
                nursery.start_soon(self._filesystem.arrivals.run)
                nursery.start_soon(self._filesystem.listings.keep_known)
                nursery.start_soon(self._filesystem.contents.run)
                nursery.start_soon(self._providers.run)
                nursery.start_soon(self._upkeep.run)
                nursery.start_soon(self._reload.on_hangup)
                nursery.start_soon(_call_when_serving, ready)
                await session.serve()
                await self._deliver()
                nursery.cancel_scope.cancel()
            clean = True
        finally:
            self._kernel.close()
            session.close(unmount=clean)
            self._filesystem.listings.keep_now()
            self._known.close()
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
                noexec=self._config.noexec,
                bare=self._look_beneath,
            )
        except FsmountError:
            registry.remove(str(self._config.mountpoint))
            if before is not None:
                registry.write(before)
            raise
        mounted = f"mounted {self._config.remote} at {self._config.mountpoint}"
        self._log.note("mount", mounted, details=Details(state="mounted"))
        self._tell_beneath()

    def _look_beneath(self, directory: Path) -> None:
        self._beneath = names_beneath(directory)

    def _tell_beneath(self) -> None:
        """What programs wrote there while nothing was mounted is not hidden silently."""
        found = problems_beneath(self._config.mountpoint, self._beneath)
        if self.journal.damage:
            found.append(Problem(path=str(self._state.journal), why=self.journal.damage))
        self._filesystem.problems.beneath(found)
        for problem in found:
            self._log.note("mount", f"{problem.path}: {problem.why}", level="warning")

    async def _first_contact(self) -> None:
        """Asks a remote that this state directory does not know; raises RemoteError if it is not there or not one."""
        try:
            with trio.fail_after(self._config.timeout):
                await self._connection_probe()
        except trio.TooSlowError as error:
            await self._remote.aclose()
            message = f"{self._config.remote.origin} did not answer within {self._config.timeout:g} s"
            hint = "check the network and the server, or allow more with --timeout"
            raise Unreachable(message, timed_out=True, hint=hint) from error
        except BaseException:
            await self._remote.aclose()
            raise
        self.journal.forget_deliveries()
        self._state.claim_for(str(self._config.remote), __version__)

    async def _connection_probe(self) -> None:
        await self._remote.probe()
        self._connection.contacted()

    def _operations(self) -> Operations:
        control = ControlTree(
            self._config,
            self,
            self._decisions,
            self._spool,
            self._cache,
            self._filesystem.deliveries,
            self._log,
            self._clock,
        )
        return Operations(
            self._filesystem,
            control,
            self._kernel,
            self._clock,
            self._log,
            timeout=self._config.timeout,
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
        left, kept = unresolved(self.journal), self._spool.apart()
        unmounted = f"unmounted {self._config.mountpoint}; {left} ops are unresolved"
        self._log.note("mount", unmounted, details=Details(state="unmounted"))
        if not left and not self.journal.counts().discarded and not self.journal.damage and not kept:
            registry.remove(str(self._config.mountpoint))

    def _listed(self, directory: RemotePath, problems: Sequence[Problem]) -> None:
        self._filesystem.problems.listed(directory, problems)

    def _reconfigured(self, config: Config) -> None:
        self._upkeep.config = config
        self._filesystem.max_deletes = config.max_deletes

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
        return self._reload.config.drain if asked is None else asked


async def _cancel_at_next(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    await anext(signals)
    scope.cancel()


async def _call_when_serving(ready: Callable[[], None]) -> None:
    """The first request is answered by now or waits in the kernel for a loop that runs."""
    await trio.lowlevel.checkpoint()
    ready()
