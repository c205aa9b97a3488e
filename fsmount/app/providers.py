"""What the providers behind the remote did with the writes that it accepted.

Invariant: what the remote itself does not call failed any more becomes no dead letter, and what was not written by this
mount none either. Where results may not be asked for, the feed's word counts, and ``results`` says that they are
unknown: that is never a failure of the mount.
"""

from __future__ import annotations

from collections import deque

import trio
from msgspec.structs import replace

from fsmount.connection import Connection
from fsmount.errors import Refusal, RemoteError
from fsmount.model import (
    Attempt,
    ConnectionState,
    Delivered,
    Feed,
    ProviderFailed,
    ProviderResult,
    ProviderResults,
    ProviderState,
    ProviderSucceeded,
    Reason,
    Revision,
    State,
    provider_of,
)
from fsmount.ports import Clock, Details, EventLog, Journal, Remote
from fsmount.render.advice import next_step_to_look_up

AGAIN = 5.0
"""Seconds until a question that got no answer is asked again."""
LOOK_EVERY = 60.0
"""How often the failed ones are asked for, where no feed tells of them or some of ours are among them; seconds."""
DENIED = 600.0
"""Seconds until a credential that may not ask asks again; a reconnection, with perhaps another one, asks at once."""
MOST_TOLD = 10_000
"""Words of the feed that wait at most: beyond them, the remote's list is asked instead."""
MOST_ASKED = 100
"""Dead letters that are asked about, one request each."""
ACCEPTED = 202

Word = ProviderFailed | ProviderSucceeded


class Providers:
    """Follows accepted writes to their end for as long as ``run`` runs."""

    def __init__(self, remote: Remote, connection: Connection, journal: Journal, clock: Clock, log: EventLog) -> None:
        self._remote = remote
        self._connection = connection
        self._journal = journal
        self._clock = clock
        self._log = log
        self._told: deque[Word] = deque()
        self._unsettled: list[Word] = []
        """Told of a write whose own answer is still awaited here."""
        self._look_due = False
        self._denied_until = 0.0
        self._stirred = trio.Event()
        self._state = connection.state
        self.results = ProviderResults.UNKNOWN
        journal.watch(self._settled)
        connection.watch(self._moved)

    # what happens

    def told(self, word: Word) -> None:
        """The feed tells of a provider; never blocks."""
        if len(self._told) >= MOST_TOLD:
            self._told.clear()
            self._look_due = True
        self._told.append(word)
        self._stir()

    def missed(self) -> None:
        """The feed may have lost words: the remote is asked what failed."""
        if self._clock.monotonic() >= self._denied_until:
            self._look_due = True
            self._stir()

    def _settled(self) -> None:
        if self._unsettled:
            self._told.extend(self._unsettled)
            self._unsettled.clear()
            self._stir()

    def _moved(self) -> None:
        before, self._state = self._state, self._connection.state
        if self._state is ConnectionState.ONLINE and before is not self._state:
            self._denied_until = 0.0
            self.missed()

    # following

    async def run(self) -> None:
        """For ever; a question that fails is asked again."""
        while True:
            stirred = self._stirred
            try:
                if self._connection.usable:
                    await self._catch_up()
            except RemoteError as error:
                self._log.note("provider", f"results cannot be read: {error.message}", level="debug")
                await trio.sleep(AGAIN)
                continue
            with trio.move_on_after(LOOK_EVERY) as waiting:
                await stirred.wait()
            if waiting.cancelled_caught:
                self._look_due = self._look_due or self._may_be_untold()

    def _may_be_untold(self) -> bool:
        """Whether something may have come to an end of which no feed tells: a success need not be an event."""
        if self.results is ProviderResults.UNKNOWN:
            return False
        if self._connection.feed is Feed.NONE and self._journal.awaits_results():
            return True
        return bool(self._journal.op_ids(State.DEAD, reasons=(Reason.PROVIDER_FAILED,)))

    async def _catch_up(self) -> None:
        if self._look_due:
            self._look_due = False
            try:
                await self._look()
            except BaseException:
                self._look_due = True
                raise
        while self._told:
            if not await self._judge(self._told[0]):
                self._unsettled.append(self._told[0])
            self._told.popleft()

    async def _judge(self, word: Word) -> bool:
        """Whether that is settled; False: it may be about an op of ours that is still being sent."""
        delivered = self._journal.delivered_at(word.path, word.revision)
        if delivered is None:
            return not self._may_be_ours(word)
        record = self._journal.record(delivered.op_id)
        if record is not None and record.state is State.SENDING:
            return False
        if isinstance(word, ProviderSucceeded):
            self._succeeded(delivered)
        else:
            await self._failed(delivered, word.at)
        return True

    def _may_be_ours(self, word: Word) -> bool:
        record = self._journal.shown(word.path)
        if record is not None and record.attempted and record.state in (State.PENDING, State.SENDING):
            return True
        if isinstance(word, ProviderFailed):
            self._log.note("provider", "somebody else's write failed at its provider", path=word.path, level="debug")
        return False

    async def _failed(self, delivered: Delivered, at: float) -> None:
        result = await self._result(delivered)
        if result is None or result.state in (ProviderState.FAILED, ProviderState.UNKNOWN):
            self._bury(delivered, result, at)
        elif result.state is ProviderState.SUCCEEDED:
            self._succeeded(delivered)

    async def _result(self, delivered: Delivered) -> ProviderResult | None:
        """What the remote says of it now; None where it does not tell."""
        try:
            if delivered.remote_op_id is not None:
                return await self._remote.provider_result(delivered.remote_op_id)
            found = await self._remote.failed_at_provider()
        except Refusal as refusal:
            if refusal.status in (403, 404):
                return None
            raise
        return next(
            (each for each in found if (each.path, each.revision) == (delivered.path, delivered.revision)), None
        )

    # what was missed

    async def _look(self) -> None:
        """Asks for all that failed. A checkpoint."""
        try:
            failed = await self._remote.failed_at_provider()
        except Refusal as refusal:
            if refusal.status not in (403, 404, 405):
                raise
            self.results = ProviderResults.UNKNOWN
            self._denied_until = self._clock.monotonic() + DENIED
            return
        self.results = ProviderResults.KNOWN
        for result in failed:
            delivered = self._ours(result)
            if delivered is not None:
                self._bury(delivered, result, result.at)
        await self._look_at_dead({result.remote_op_id for result in failed})

    def _ours(self, result: ProviderResult) -> Delivered | None:
        """The remote may have been set up anew, and count from the beginning: the path must agree, too."""
        found = self._journal.delivered_as(result.remote_op_id)
        if found is None and result.path is not None:
            found = self._journal.delivered_at(result.path, result.revision)
        return found if found is not None and _agree(found, result.path, result.revision) else None

    async def _look_at_dead(self, failed: set[str]) -> None:
        """Somebody may have had tried again there what is a dead letter here."""
        for op_id in self._journal.op_ids(State.DEAD, reasons=(Reason.PROVIDER_FAILED,))[:MOST_ASKED]:
            record = self._journal.record(op_id)
            known = None if record is None else record.remote_op_id
            if known is None or known in failed:
                continue
            delivered = self._journal.delivered_as(known)
            result = None if delivered is None else await self._result(delivered)
            if delivered is not None and result is not None and result.state is ProviderState.SUCCEEDED:
                self._succeeded(delivered)

    # what follows

    def _bury(self, delivered: Delivered, result: ProviderResult | None, at: float) -> None:
        provider = provider_of(delivered.path)
        said = "it does not say why" if result is None else result.error or result.said or "it does not say why"
        error = f"{provider} failed with it: {said}"
        message = f"the remote accepted it{_as(delivered.revision)}, but {error}"
        attempt = Attempt(
            at=at or self._clock.now(), status=ACCEPTED, error=error, duration=0.0,
            body="" if result is None else result.body,
        )  # fmt: skip
        if delivered.remote_op_id is None and result is not None:
            delivered = replace(delivered, remote_op_id=result.remote_op_id)
        if not self._journal.provider_failed(delivered, message, attempt):
            return
        reason = Reason.PROVIDER_FAILED
        self._log.note(
            "op.dead",
            f"{reason}: {message}; {next_step_to_look_up(delivered.op_id, reason)}",
            op=delivered.op_id, path=delivered.path, level="warning",
            details=Details(
                kind=delivered.kind, reason=reason, status=ACCEPTED, revision=delivered.revision, state=State.DEAD
            ),
        )  # fmt: skip

    def _succeeded(self, delivered: Delivered) -> None:
        if self._journal.provider_succeeded(delivered):
            note = f"{provider_of(delivered.path)} has taken it after all"
            details = Details(kind=delivered.kind, revision=delivered.revision)
            self._log.note("op.acknowledged", note, op=delivered.op_id, path=delivered.path, details=details)

    def _stir(self) -> None:
        stirred, self._stirred = self._stirred, trio.Event()
        stirred.set()


def _as(revision: Revision | None) -> str:
    return "" if revision is None else f" as {revision}"


def _agree(delivered: Delivered, path: str | None, revision: Revision | None) -> bool:
    same = revision is None or delivered.revision is None or revision == delivered.revision
    return same and (path is None or path == delivered.path)
