"""Whether the remote can be reached, found out by one small read at a time.

Invariant: only a probe, an answer (``contacted``) or a refused credential changes the state, and every change is told
to the watchers in the same synchronous stretch. At most one probe is under way; whoever asks meanwhile shares it.

    unknown/online ──a probe fails──> offline ──a probe or any answer succeeds──> online
        any        ──401───────────> auth    ──the credential changes, a probe──> online
        online     ──429 to a probe─> limited until the time that the remote named, then online
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from fsmount.errors import InvalidAnswer, Refusal, RemoteError, Unreachable, kind_and_place
from fsmount.model import Connection as Shown
from fsmount.model import ConnectionState, Feed
from fsmount.ports import Clock, Details, EventLog, Remote
from fsmount.retry import asked_wait, is_asked_about

FIRST_PROBE = 1.0
LONGEST_PROBE = 60.0
PROBE_TIMEOUT = 10.0
CATCH_UP = 5.0
"""How long, after it came back, a remote's feed is waited for before anything is sent."""
CREDENTIAL_LOOK = 1.0
"""How often, in ``auth``, the credential is read again."""
FIRST_AUTH_PROBE = 2.0
LONGEST_AUTH_PROBE = 60.0
"""How long, in ``auth``, until the same credential is tried again, at first and at most: the refusal may have been the
server's mistake."""


class Connection:
    """The way to the remote. ``run`` must be running for anything to come back by itself."""

    def __init__(self, remote: Remote, clock: Clock, log: EventLog) -> None:
        self._remote = remote
        self._clock = clock
        self._log = log
        self._state = ConnectionState.UNKNOWN
        self._offline_since: float | None = None
        self._last_contact: float | None = None
        self._failures = 0
        self._refusals = 0
        self._accepted_at = 0.0
        self._next_probe = 0.0
        self._suspected = False
        self._limited = False
        self._probes = 0
        self._probing = trio.Lock()
        self._stirred = trio.Event()
        self._watchers: list[Callable[[], None]] = []
        self._feed = Feed.NONE
        self._feed_watchers: list[Callable[[Feed, Feed], None]] = []
        self._followed = False
        self.behind_until = 0.0
        """Monotonic time before which nothing is to be sent, because the feed has yet to tell whether this is still the
        remote that went away: one that was restored has other content at the same revisions. The feed ends it."""
        self.limited_until = 0.0
        """Monotonic time before which nothing is to be sent, because the remote asked so."""

    # facts

    @property
    def state(self) -> ConnectionState:
        """Now; ``limited`` ends by the passing of time alone."""
        if self._state is ConnectionState.ONLINE and self._clock.monotonic() < self.limited_until:
            return ConnectionState.LIMITED
        return self._state

    @property
    def feed(self) -> Feed:
        """How changes made elsewhere are learned; set by whoever reads the feed."""
        return self._feed

    @feed.setter
    def feed(self, feed: Feed) -> None:
        before, self._feed = self._feed, feed
        if feed is not Feed.NONE:
            self._followed = True
            self._end_waiting_for_feed()
        if feed is not before:
            for changed in self._feed_watchers:
                changed(before, feed)

    @property
    def usable(self) -> bool:
        """Whether a request may be worth sending: not known to be offline, limited or refused."""
        return self.state in (ConnectionState.ONLINE, ConnectionState.UNKNOWN)

    def _end_waiting_for_feed(self) -> None:
        if self.behind_until:
            self.behind_until = 0.0
            self._stir()

    @property
    def caught_up(self) -> bool:
        """Whether the feed, where there is one, goes on from where the remote went away, or was waited for in vain."""
        return self._clock.monotonic() >= self.behind_until

    @property
    def offline_since(self) -> float | None:
        """UTC epoch seconds; None unless offline."""
        return self._on_the_wall(self._offline_since)

    @property
    def last_contact_at(self) -> float | None:
        """UTC epoch seconds of the last answer of any kind."""
        return self._on_the_wall(self._last_contact)

    @property
    def next_probe_at(self) -> float | None:
        """UTC epoch seconds of the next try while offline or refused, or of the end of a limit."""
        moment = {
            ConnectionState.OFFLINE: self._next_probe,
            ConnectionState.AUTH: self._next_probe,
            ConnectionState.LIMITED: self.limited_until,
        }.get(self.state)
        return None if moment is None else self._clock.now() + max(0.0, moment - self._clock.monotonic())

    def _on_the_wall(self, moment: float | None) -> float | None:
        """A monotonic time as the wall clock would have shown it, had it been what it is now."""
        return None if moment is None else self._clock.now() - (self._clock.monotonic() - moment)

    @property
    def shown(self) -> Shown:
        """All of this as the status shows it."""
        return Shown(
            state=self.state,
            feed=self.feed,
            last_contact_at=self.last_contact_at,
            offline_since=self.offline_since,
            next_probe_at=self.next_probe_at,
        )

    @property
    def probes(self) -> int:
        """How many probes have ended; a stamp for ``check``."""
        return self._probes

    def watch(self, changed: Callable[[], None]) -> None:
        """``changed`` is called at every change of the state; it must not block."""
        self._watchers.append(changed)

    def watch_feed(self, changed: Callable[[Feed, Feed], None]) -> None:
        """``changed`` is called with what the feed was and what it is now; it must not block."""
        self._feed_watchers.append(changed)

    # what others have seen

    def heard(self) -> None:
        """The remote answered something that tells nothing of whether it takes writes: the change feed."""
        self._last_contact = self._clock.monotonic()

    def contacted(self) -> None:
        """A valid answer came: who was offline is back. A refused credential is not made good by it."""
        self._last_contact = self._clock.monotonic()
        if self._state in (ConnectionState.OFFLINE, ConnectionState.UNKNOWN):
            self._come_back()
        self._end_limit()

    def suspect(self) -> None:
        """Something got no answer: ``run`` probes as soon as it can."""
        if self._state not in (ConnectionState.OFFLINE, ConnectionState.AUTH):
            self._suspected = True
            self._stir()

    def refused(self) -> None:
        """The credential was refused although it has just been read again: nothing is sent until it changes."""
        self._last_contact = self._clock.monotonic()
        now = self._clock.monotonic()
        if self._state is not ConnectionState.AUTH:
            # a probe may be let through where uploads are not: only what lasted was an acceptance
            lasted = now - self._accepted_at > self._auth_wait()
            self._refusals = 0 if lasted else self._refusals
        elif now < self._next_probe:
            return
        self._next_probe = now + self._auth_wait()
        self._refusals += 1
        self._become(ConnectionState.AUTH)

    def credential_read(self) -> None:
        """A person says that the credential may be another one: whether it is accepted is found out now."""
        self._refusals, self._next_probe = 0, self._clock.monotonic()
        self.suspect()

    def _auth_wait(self) -> float:
        return min(LONGEST_AUTH_PROBE, FIRST_AUTH_PROBE * 2.0 ** min(self._refusals, 16))

    # probing

    async def check(self, stamp: int | None = None) -> bool:
        """Whether the remote answers, found out by a probe; a checkpoint, at most 10 s of it a probe's.

        Shares the probe that is under way. With ``stamp`` (a former ``probes``), a probe that ended since then counts.
        """
        before = self._probes if stamp is None else stamp
        async with self._probing:
            if self._probes == before:
                await self._probe()
        return self.usable

    async def run(self) -> None:
        """Probes: at once if nobody has yet, when something is suspected, and with backoff while there is no answer."""
        if self._state is ConnectionState.UNKNOWN:
            await self.check()
        while True:
            if self._state is ConnectionState.AUTH:
                await self._wait_for_credential()
                await self.check()
            elif await self._reason_comes():
                await self.check()

    async def _reason_comes(self) -> bool:
        """Waits until a probe is due; False when the credential was refused meanwhile."""
        while not self._suspected:
            if self._state is ConnectionState.AUTH:
                return False
            left = math.inf
            if self._state is ConnectionState.OFFLINE:
                left = self._next_probe - self._clock.monotonic()
                if left <= 0:
                    return True
            with trio.move_on_after(left):
                await self._stirred.wait()
        return True

    async def _wait_for_credential(self) -> None:
        """Returns when the credential has changed, or it is time to try the same one."""
        while self._state is ConnectionState.AUTH and self._clock.monotonic() < self._next_probe:
            await trio.sleep(CREDENTIAL_LOOK)
            if await trio.to_thread.run_sync(self._remote.credential_changed, abandon_on_cancel=True):
                self._log.note("credential", "the credential has changed; trying it", details=Details(state="changed"))
                self._refusals, self._next_probe = 0, self._clock.monotonic()
                return

    async def _probe(self) -> None:
        self._suspected = False
        try:
            with trio.fail_after(PROBE_TIMEOUT):
                await self._remote.probe()
        except trio.TooSlowError:
            self._probe_failed(Unreachable(f"no answer within {PROBE_TIMEOUT:g} s", timed_out=True))
        except RemoteError as error:
            self._probe_failed(error)
        except Exception as error:  # noqa: BLE001 - what is not known to answer is probed again; the mount goes on
            what = f"internal error in a probe: {kind_and_place(error)}"
            self._log.note("connection", what, level="error")
            self._probe_failed(InvalidAnswer(what))
        else:
            self._last_contact = self._clock.monotonic()
            self._come_back()
        self._probes += 1

    def _probe_failed(self, error: RemoteError) -> None:
        if isinstance(error, Refusal):
            self._last_contact = self._clock.monotonic()
        if isinstance(error, Refusal) and error.status == 401:
            self.refused()
        elif isinstance(error, Refusal) and error.status == 429:
            self._limit(asked_wait(error) or self._backoff())
        elif is_asked_about(error) or (isinstance(error, Refusal) and error.status >= 500):
            self._go_offline(error)
        else:
            # It answers, if only to say that this credential may not look there: the ops learn for themselves.
            self._come_back()

    def _limit(self, seconds: float) -> None:
        self._failures += 1
        self.limited_until = self._clock.monotonic() + seconds
        self._log.note(
            "connection",
            f"the remote asks to wait for {seconds:.0f} s",
            level="warning",
            details=Details(state=ConnectionState.LIMITED),
        )
        self._become(ConnectionState.ONLINE, quietly=True)
        self._limited = True
        self._stir()

    def _go_offline(self, error: RemoteError) -> None:
        wait = max(self._backoff(), asked_wait(error) or 0.0)
        self._failures += 1
        self._next_probe = self._clock.monotonic() + wait
        if self._state is not ConnectionState.OFFLINE:
            self._offline_since = self._clock.monotonic()
            self._log.note(
                "connection",
                f"offline: {error.message}; changes are kept and sent later",
                level="warning",
                details=Details(state=ConnectionState.OFFLINE),
            )
        self._become(ConnectionState.OFFLINE)

    def _come_back(self) -> None:
        self._failures = 0
        self.limited_until = 0.0
        if self._state is ConnectionState.OFFLINE and self._followed and self._feed is Feed.NONE:
            self.behind_until = self._clock.monotonic() + CATCH_UP
        if self._state is not ConnectionState.ONLINE:
            self._accepted_at = self._clock.monotonic()
        self._become(ConnectionState.ONLINE)
        self._end_limit()

    def _end_limit(self) -> None:
        """The remote answers after the time for which it asked us to wait."""
        if self._limited and self.state is ConnectionState.ONLINE:
            self._limited = False
            self._tell(ConnectionState.LIMITED, ConnectionState.ONLINE)

    def _backoff(self) -> float:
        return min(LONGEST_PROBE, FIRST_PROBE * 2.0 ** min(self._failures, 16))

    def _become(self, state: ConnectionState, *, quietly: bool = False) -> None:
        before, self._state = self._state, state
        if state is not ConnectionState.OFFLINE:
            self._offline_since = None
        if state is before:
            return
        self._limited = False
        if not quietly:
            self._tell(before, state)
        self._stir()

    def _tell(self, before: ConnectionState, state: ConnectionState) -> None:
        if state is ConnectionState.AUTH:
            self._log.note(
                "credential",
                "the remote refuses the credential; uploads wait until it changes",
                level="warning",
                details=Details(state="refused"),
            )
        elif state is ConnectionState.ONLINE and before is ConnectionState.AUTH:
            self._log.note("credential", "the remote accepts the credential again", details=Details(state="accepted"))
        elif state is ConnectionState.ONLINE:
            again = "online" if before is ConnectionState.UNKNOWN else "online again"
            self._log.note("connection", again, details=Details(state=ConnectionState.ONLINE))

    def _stir(self) -> None:
        stirred, self._stirred = self._stirred, trio.Event()
        stirred.set()
        for changed in self._watchers:
            changed()
