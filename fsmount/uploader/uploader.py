"""When what is sent.

Invariant: between claiming an op and freezing its draft nothing else runs, so that a program's next write to the file
goes to a copy. All decisions of one round are made in one synchronous stretch; the rounds are driven by the journal,
the connection, the requests that end, and the clock.

Small files gather: a batch waits for ops that become due within milliseconds, and for a quarter of a second while
another batch is under way. While files come in crowds and are not more than one batch takes, nothing is claimed until
one and a half seconds after the last batch began: until then they can still change. One that comes alone never waits.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import trio

from fsmount.connection import Connection
from fsmount.errors import FileError
from fsmount.model import Claim, ConnectionState, OpKind, Transfer
from fsmount.ports import Clock, EventLog, Journal, Overlay, Remote, Spool
from fsmount.retry import Policy
from fsmount.uploader.parts import Claimed, Parts
from fsmount.uploader.sending import Sender
from fsmount.uploader.settling import Settler

SMALL = 256 * 1024
"""Puts up to this many bytes travel in batches."""
CLAIMED_AT_MOST = 256
PACE = 0.005
"""The shortest time between two rounds: a burst of journal entries costs a few looks, not one each."""
JOURNAL_PAUSE = 5.0
"""After the journal failed (a full disk, say)."""
NEARLY_DUE = 0.02
LINGER = 0.06
"""How long a batch waits for ops that are nearly due, while nothing is under way."""
GATHER = 0.25
"""How long it waits while another batch is under way."""
CROWD = 10.0
"""Small files within about a second that are no single saves any more."""
CROWDED_PACE = 1.5
"""The time from the start of one batch to the next claim, while files come in crowds."""
PAUSED = "paused"
"""The journal's setting that outlives the daemon."""


class Uploader:
    """Delivers the journal's ops for as long as ``run`` runs."""

    def __init__(  # noqa: PLR0913, PLR0917 - app joins the parts here
        self,
        journal: Journal,
        spool: Spool,
        remote: Remote,
        connection: Connection,
        overlay: Overlay,
        clock: Clock,
        log: EventLog,
        policy: Policy,
        concurrency: int = 4,
    ) -> None:
        self._journal = journal
        self._connection = connection
        self._overlay = overlay
        self._clock = clock
        self._concurrency = concurrency
        self._limits = remote
        self._log = log
        parts = Parts(
            journal=journal, spool=spool, remote=remote, connection=connection, overlay=overlay, clock=clock, log=log
        )
        self._settler = Settler(parts, policy)
        self._sender = Sender(parts, self._settler)
        self._waiting: deque[Claimed] = deque()
        self._gathered: deque[Claimed] = deque()
        self._gathering_since = 0.0
        self._batch_began = -math.inf
        self._crowd = 0.0
        self._crowd_at = 0.0
        self._hurried = False
        self._paused = journal.setting(PAUSED) is not None
        self._singles = 0
        self._batches = 0
        self._stirred = trio.Event()
        journal.watch(self._stir)
        connection.watch(self._stir)

    @property
    def transfers(self) -> list[Transfer]:
        """The bodies that are being sent, with how far each has come."""
        return self._sender.transfers

    @property
    def failing(self) -> bool:
        """Whether uploads pause because many ops in a row became dead letters; one a minute is tried."""
        return self._settler.breaker.failing

    def follow(self, policy: Policy) -> None:
        """From now on that policy counts; an op that it gives no more attempts dies at its next failure."""
        self._settler.policy = policy

    @property
    def paused(self) -> bool:
        """Whether a person said so; over restarts."""
        return self._paused

    def pause(self) -> None:
        """Claims nothing more until ``resume``; what is under way ends. Raises FileError on a full disk."""
        self._journal.keep_setting(PAUSED, "yes")
        self._paused = True
        self._stir()

    def resume(self) -> None:
        """Sends again, also where it all but stopped because so much was refused. Raises FileError on a full disk."""
        self._journal.keep_setting(PAUSED, None)
        self._paused = False
        self._settler.breaker.reset()
        self._stir()

    async def run(self) -> None:
        """Sends what is due, for ever. What is under way when this is cancelled is found again at the next start."""
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    self._round(nursery)
                except FileError as error:
                    self._log.note("op.retrying", f"nothing can be sent: {error}", level="error")
                    await trio.sleep(JOURNAL_PAUSE)
                await self._rest()

    async def drain(self, *, seconds: float) -> None:
        """Makes due what only settles, and returns when nothing more can be sent, or after ``seconds``.

        Returns at once while the remote cannot be used. ``run`` must be running.
        """
        self._hurried = True
        self._journal.expedite()
        self._stir()
        until = self._clock.monotonic() + seconds
        try:
            while (left := until - self._clock.monotonic()) > 0 and not self._drained(until):
                stirred = self._stirred
                with trio.move_on_after(min(left, max(PACE, self._next_due() - self._clock.monotonic()))):
                    await stirred.wait()
        finally:
            self._hurried = False

    # one round

    def _round(self, nursery: trio.Nursery) -> None:
        if not self._may_send():
            self._put_back()
            return
        self._claim()
        while self._waiting and self._singles < self._concurrency:
            claimed = self._waiting.popleft()
            if not self._held_back(claimed, self._clock.monotonic()):
                self._singles += 1
                nursery.start_soon(self._run_single, claimed)
        while self._gathered and self._batches < self._concurrency and self._batch_is_ready():
            batch = self._next_batch()
            self._batches += 1
            nursery.start_soon(self._run_batch, batch)

    def _may_send(self) -> bool:
        if self._paused or not self._connection.usable or not self._connection.caught_up:
            return False
        breaker = self._settler.breaker
        return not breaker.failing or (not self._busy and self._clock.monotonic() >= breaker.next_try)

    @property
    def _busy(self) -> bool:
        return self._singles + self._batches > 0

    def _claim(self) -> None:
        room = CLAIMED_AT_MOST - len(self._waiting) - len(self._gathered)
        if self._settler.breaker.failing:
            room = min(room, 1)
        now = self._clock.monotonic()
        if room <= 0 or self._next_claim() > now:
            return
        # From here to the last freeze there is no checkpoint.
        claims = self._journal.claim(room)
        self._count_crowd(now, len(claims), full=len(claims) == room)
        if claims and self._settler.breaker.failing:
            self._settler.breaker.tried(now)
        for claim in claims:
            self._take(self._frozen(claim), now)

    def _frozen(self, claim: Claim) -> Claimed:
        """The claim, its draft frozen. What was written since the last flush goes with it: the journal learns its
        length before anybody can close the file.
        """
        body = claim.op.body
        frozen = None if body is None or body.draft is None else self._overlay.freeze(body.draft)
        if frozen is not None and frozen != body:
            # Where the disk is full it is told once more when the draft is sealed.
            with suppress(FileError):
                claim = self._journal.sealed(claim, frozen)
        return Claimed(claim=claim, frozen=frozen)

    def _count_crowd(self, now: float, more: int, *, full: bool) -> None:
        """``_crowd`` is about how many ops were claimed within the last second.

        Where more are due than one claim takes there is nothing to gather.
        """
        self._crowd = 0.0 if full else more + self._crowd * math.exp(self._crowd_at - now)
        self._crowd_at = now

    def _next_claim(self) -> float:
        """Before when no op is to be claimed; infinite where none becomes due."""
        if self._crowd > CROWD and not self._gathered and not self._hurried:
            dispersed = self._crowd_at + math.log(self._crowd / CROWD)
            gathered = min(dispersed, self._batch_began + CROWDED_PACE)
            if gathered > self._clock.monotonic():
                # The journal is asked then: with every file that a crowd adds it would cost too much.
                return gathered
        return self._next_due()

    def _take(self, claimed: Claimed, now: float) -> None:
        if self._held_back(claimed, now):
            return
        small = _is_small(claimed, self._limits.capabilities.max_batch_bytes)
        # The one op that is tried while failing must be under way when this round ends: it does not gather.
        gathers = self._sender.takes_batches and self._sender.company(claimed.claim) > 0 and not self.failing
        if small and gathers:
            if not self._gathered:
                self._gathering_since = now
            self._gathered.append(claimed)
        else:
            self._waiting.append(claimed)

    def _held_back(self, claimed: Claimed, now: float) -> bool:
        """Gives a delete back where the remote wants no more of them for a while."""
        until = self._settler.deletes_held_until
        if now >= until or claimed.claim.op.kind not in (OpKind.DELETE, OpKind.RMDIR):
            return False
        self._settler.give_back(claimed.claim, until=until)
        return True

    def _put_back(self) -> None:
        """What was claimed and not begun waits as pending, where it can be seen and changed."""
        while self._waiting or self._gathered:
            self._settler.give_back((self._waiting or self._gathered).popleft().claim)

    # batches

    def _batch_is_ready(self) -> bool:
        if self._gathered and len(self._gathered) >= self._most_files(self._gathered[0]):
            return True
        if sum(map(_weight, self._gathered)) >= self._limits.capabilities.max_batch_bytes:
            return True
        return self._clock.monotonic() >= self._batch_due()

    def _most_files(self, claimed: Claimed) -> float:
        return min(self._limits.capabilities.max_batch_files, self._sender.company(claimed.claim))

    def _batch_due(self) -> float:
        """When what has gathered goes whether or not the batch is full; infinite while there is nothing."""
        if not self._gathered:
            return math.inf
        if self._hurried:
            return self._gathering_since
        if self._batches:
            return self._gathering_since + GATHER
        if self._next_due() <= self._clock.monotonic() + NEARLY_DUE:
            return self._gathering_since + LINGER
        return self._gathering_since

    def _next_batch(self) -> list[Claimed]:
        batch, weight = [self._gathered.popleft()], 0
        weight = _weight(batch[0])
        most = self._most_files(batch[0])
        while self._gathered and len(batch) < (most := min(most, self._most_files(self._gathered[0]))):
            weight += _weight(self._gathered[0])
            if weight > self._limits.capabilities.max_batch_bytes:
                break
            batch.append(self._gathered.popleft())
        self._gathering_since = self._batch_began = self._clock.monotonic()
        return batch

    # requests under way

    async def _run_single(self, claimed: Claimed) -> None:
        try:
            await self._guarded([claimed], lambda: self._sender.one(claimed))
        finally:
            self._singles -= 1
            self._stir()

    async def _run_batch(self, batch: Sequence[Claimed]) -> None:
        try:
            await self._guarded(batch, lambda: self._sender.many(batch))
        finally:
            self._batches -= 1
            self._stir()

    async def _guarded(self, claims: Sequence[Claimed], send: Callable[[], Awaitable[None]]) -> None:
        """Whatever goes wrong with these ops, the others go on."""
        try:
            await send()
        except Exception as error:  # noqa: BLE001 - see above; the error is logged with its traceback
            for claimed in claims:
                await self._settler.surprised(claimed.claim, error)

    # waiting

    async def _rest(self) -> None:
        """Until something may have to be done."""
        stirred = self._stirred
        await trio.sleep(PACE)
        with trio.move_on_after(max(0.0, self._next_look() - self._clock.monotonic())):
            await stirred.wait()

    def _next_look(self) -> float:
        """Monotonic time at which the passing of time alone changes what can be done."""
        if self._paused:
            return math.inf
        if not self._connection.usable:
            limited = self._connection.state is ConnectionState.LIMITED
            return self._connection.limited_until if limited else math.inf
        if not self._connection.caught_up:
            return self._connection.behind_until
        breaker = self._settler.breaker
        if breaker.failing:
            return math.inf if self._busy else max(breaker.next_try, self._next_due())
        looks = [self._batch_due()] if self._batches < self._concurrency else []
        if len(self._waiting) + len(self._gathered) < CLAIMED_AT_MOST:
            looks.append(self._next_claim())
        return min(looks, default=math.inf)

    def _next_due(self) -> float:
        due = self._journal.next_due()
        return math.inf if due is None else due

    def _drained(self, until: float) -> bool:
        """Whether nothing more can be sent before ``until``."""
        if not self._connection.usable:
            return True
        if self._paused:
            return not self._busy
        return (
            not self._busy and not self._waiting and not self._gathered and (self.failing or self._next_due() > until)
        )

    def _stir(self) -> None:
        stirred, self._stirred = self._stirred, trio.Event()
        stirred.set()


def _is_small(claimed: Claimed, most: int) -> bool:
    op = claimed.claim.op
    size = _size(claimed)
    return op.kind is OpKind.PUT and size <= SMALL and _weight(claimed) <= most


def _weight(claimed: Claimed) -> int:
    """What the file may add to a request: base64 and JSON around it, reckoned generously."""
    return _size(claimed) * 7 // 5 + 2 * len(claimed.claim.op.path.encode()) + 512


def _size(claimed: Claimed) -> int:
    body = claimed.frozen or claimed.claim.op.body
    return 0 if body is None else body.size
