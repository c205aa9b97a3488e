"""From the outcome of one request to the journal, the overlay and the log.

Invariant: every claim that comes here leaves the state ``sending`` exactly once, and the overlay hears of it in the
same synchronous stretch as the journal. ``retry.decide`` alone says what an outcome means.
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Sequence

import trio

from fsmount.errors import Refusal, RemoteError
from fsmount.model import (
    Attempt,
    Base,
    Claim,
    Digest,
    Op,
    OpId,
    OpKind,
    Reason,
    Receipt,
    RemotePath,
    Revision,
    State,
    Theirs,
)
from fsmount.render.advice import next_step_to_look_up
from fsmount.retry import (
    Acknowledge,
    Breaker,
    Bury,
    Compare,
    HoldDeletes,
    Policy,
    Probe,
    Refresh,
    RetryAfter,
    Verdict,
    backoff,
    decide,
)
from fsmount.uploader.bodies import Fetched, fetch
from fsmount.uploader.parts import Accepted, Parts, Request
from fsmount.uploader.wording import answer, asked, body_of, details_of, status_of

REBASES = 3
"""How often an op is re-based in one run before it is taken for a conflict."""
RELEASE_PAUSE = 5.0
NO_ROOM = 10.0
"""Seconds until an op is looked at again, when there was no room on this disk for what sending it takes."""


class Settler:
    """Settles claims; also keeps what several of them have in common."""

    def __init__(self, parts: Parts, policy: Policy) -> None:
        self.policy = policy
        self._parts = parts
        self._rebases: dict[OpId, int] = {}
        self.breaker = Breaker()
        self.deletes_held_until = 0.0
        """Monotonic time before which no delete is sent: the remote took the last ones for a storm."""

    def put_request(self, op: Op, digest: Digest) -> Request:
        """A put of the op's target that begins now."""
        return self._begin(OpKind.PUT, op.target, op.target_base, digest)

    def removal(self, kind: OpKind, op: Op) -> Request:
        """A delete or rmdir of the op's path that begins now."""
        return self._begin(kind, op.path, op.base, None)

    def look(self, path: RemotePath, base: Base) -> Request:
        """A read of ``path`` that a put of it depends on, and that begins now."""
        return self._begin(OpKind.PUT, path, base, None)

    def _begin(self, kind: OpKind, path: RemotePath, base: Base, digest: Digest | None) -> Request:
        clock = self._parts.clock
        return Request(kind=kind, path=path, base=base, digest=digest, at=clock.now(), begun=clock.monotonic())

    # what is so

    def acknowledge(self, claim: Claim, accepted: Accepted, request: Request) -> None:
        """The op is done."""
        self.acknowledge_all([(claim, accepted, request)])

    def acknowledge_all(self, done: Sequence[tuple[Claim, Accepted, Request]]) -> None:
        """These ops are done: one transaction for all. Raises FileError where the journal failed; then none is."""
        with self._parts.journal.transaction():
            for claim, accepted, request in done:
                self._parts.journal.acknowledge(claim, accepted.receipt, self._attempt(request, None))
        for claim, accepted, request in done:
            self._acknowledged(claim, accepted, request)

    def _acknowledged(self, claim: Claim, accepted: Accepted, request: Request) -> None:
        op = claim.op
        self._parts.overlay.acknowledged(op, accepted.receipt)
        self.breaker.acknowledged()
        self._rebases.pop(op.op_id, None)
        took = f"{op.kind} {op.target} in {self._parts.clock.monotonic() - request.begun:.3f} s"
        self._parts.log.note(
            "op.acknowledged",
            f"{took}: {accepted.note}" if accepted.note else took,
            op=op.op_id,
            path=op.target,
            details=details_of(claim, status=200, revision=accepted.receipt.revision),
        )

    def step(self, claim: Claim, accepted: Accepted, request: Request) -> Claim:
        """A move's new name is there; the claim goes on to remove the old one."""
        if accepted.note:
            self._parts.log.note(
                "op.sending",
                accepted.note,
                op=claim.op.op_id,
                path=claim.op.target,
                details=details_of(claim, State.SENDING, revision=accepted.receipt.revision),
            )
        return self._parts.journal.step(claim, accepted.receipt, self._attempt(request, None))

    def give_back(
        self,
        claim: Claim,
        *,
        until: float | None = None,
        request: Request | None = None,
        error: RemoteError | None = None,
    ) -> None:
        """Back to pending, uncharged; due at monotonic ``until``, or now. A ``request`` that says nothing of this op
        alone is in its history all the same.
        """
        attempt = None if request is None else self._attempt(request, error)
        due = self._now() if until is None else until
        self._parts.journal.postpone(claim, due, attempt, charged=False, shared=True)

    def put_off(self, claim: Claim, request: Request, reason: str, until: float) -> None:
        """Back to pending, uncharged, until monotonic ``until``: this machine lacks what sending takes."""
        op = claim.op
        attempt = Attempt(at=request.at, status=0, error=reason, duration=self._now() - request.begun)
        self._parts.journal.postpone(claim, until, attempt, charged=False)
        self._parts.log.note(
            "op.retrying",
            f"not sent: {reason}",
            op=op.op_id,
            path=op.target,
            level="warning",
            details=details_of(claim, State.PENDING),
        )

    def bury(
        self,
        claim: Claim,
        reason: Reason,
        message: str,
        request: Request | None = None,
        error: RemoteError | None = None,
        *,
        theirs: Theirs | None = None,
        at: RemotePath | None = None,
    ) -> None:
        """A dead letter, charged where a request was made. ``at``: the name that it is about, if not the request's."""
        about = at if request is None else at or request.path
        attempt = None if request is None else self._attempt(request, error)
        op = claim.op
        self._parts.journal.bury(claim, reason, message, attempt, charged=attempt is not None, theirs=theirs, at=about)
        self._parts.overlay.changed(op)
        was_failing = self.breaker.failing
        if reason is not Reason.CORRUPT_SPOOL:  # of that the remote knows nothing, and others are not worse for it
            self.breaker.buried(self._now())
        self._rebases.pop(op.op_id, None)
        refused = "" if request is None or error is None else f" ({asked(request, error, message)})"
        self._parts.log.note(
            "op.dead",
            f"{reason}: {message}{refused}; {next_step_to_look_up(op.op_id, reason)}",
            op=op.op_id,
            path=op.target,
            level="warning",
            details=details_of(claim, State.DEAD, reason=reason, status=None if attempt is None else attempt.status),
        )
        if self.breaker.failing and not was_failing:
            self._parts.log.note(
                "connection",
                f"{Breaker.LIMIT} changes in a row were refused: one a minute is tried until one succeeds",
                level="warning",
            )

    # what failed

    async def failed(
        self, claim: Claim, request: Request, error: RemoteError, *, stamp: int | None = None
    ) -> Accepted | None:
        """Settles a failed request; what it returns is so all the same and is left to the caller to settle.

        A checkpoint where the remote has to be asked. A probe that ended since ``stamp`` need not be repeated.
        """
        self._heard(error)
        verdict = self._verdict(claim, request, error)
        if isinstance(verdict, Probe):
            if not await self._parts.connection.check(stamp):
                self._postpone(claim, request, error, self._now(), charged=False, then="the remote cannot be used now")
                return None
            verdict = self._verdict(claim, request, error, remote_answers=True)
        if isinstance(verdict, Acknowledge):
            return Accepted(receipt=Receipt(path=request.path, revision=None), note=answer(request, error))
        if isinstance(verdict, Compare):
            return await self._compare(claim, request, error)
        self._settle(claim, request, error, verdict)
        return None

    async def foreseen(self, claim: Claim, request: Request, error: RemoteError) -> Accepted | None:
        """As ``failed`` for a request that was not made, because a look before it told that it would fail."""
        self._parts.connection.contacted()
        if isinstance(error, Refusal):
            return await self.failed(claim, request, error)
        return await self._compare(claim, request, error)

    async def surprised(self, claim: Claim, error: Exception) -> None:
        """An error of this program, or of its disk, concerns one op only: logged, and the op is tried again later.

        Never raises. A checkpoint.
        """
        op, full = claim.op, _is_full(error)
        what = f"not sent: {error}" if full else f"internal error: {type(error).__name__}: {error}"
        self._parts.log.note(
            "op.retrying",
            what,
            op=op.op_id,
            path=op.target,
            level="warning" if full else "error",
            details=details_of(claim, State.PENDING, status=0),
        )
        if not full:
            self._parts.log.note("traceback", "".join(traceback.format_exception(error)), op=op.op_id, level="debug")
        while not self._released(claim, what, charged=not full):  # noqa: ASYNC110 - nothing tells of room on the disk
            await trio.sleep(RELEASE_PAUSE)

    def _released(self, claim: Claim, what: str, *, charged: bool) -> bool:
        """Gives the claim back if it is still held; False if even that failed (a full disk)."""
        try:
            record = self._parts.journal.record(claim.op.op_id)
            if record is None or record.state is not State.SENDING:
                return True
            wait = max(1.0, backoff(claim.attempts - claim.budget_start + 1)) if charged else NO_ROOM
            attempt = Attempt(at=self._parts.clock.now(), status=0, error=what, duration=0.0)
            self._parts.journal.postpone(claim, self._now() + wait, attempt, charged=charged)
        except Exception as failure:  # noqa: BLE001 - the journal may fail too; nothing may end the uploader
            self._parts.log.note("op.retrying", f"cannot be given back: {failure}", op=claim.op.op_id, level="error")
            return False
        return True

    def _settle(self, claim: Claim, request: Request, error: RemoteError, verdict: Verdict) -> None:
        now = self._now()
        if isinstance(verdict, RetryAfter):
            then = f"sent again in {verdict.delay:.1f} s"
            self._postpone(claim, request, error, now + verdict.delay, charged=True, then=then)
        elif isinstance(verdict, HoldDeletes):
            self.deletes_held_until = now + verdict.delay
            then = f"all deletes wait {verdict.delay:.0f} s"
            self._postpone(claim, request, error, self.deletes_held_until, charged=False, then=then)
        elif isinstance(verdict, Refresh):
            self._parts.connection.refused()
            self._postpone(claim, request, error, now, charged=False, then="waits for another credential")
        elif isinstance(verdict, Bury):
            self.bury(claim, verdict.reason, verdict.message, request, error)

    # what the remote holds

    async def _compare(self, claim: Claim, request: Request, error: RemoteError) -> Accepted | None:
        known = {request.digest, request.base.digest, *self._parts.journal.sent_digests(request.path)}
        try:
            theirs = await fetch(request.path, self._parts.remote, self._parts.spool, known)
        except RemoteError as unread:
            return await self._not_compared(claim, request, error, unread)
        if theirs is None:
            return self._compared_with_nothing(claim, request, error)
        try:
            return await self._compared(claim, request, error, theirs)
        finally:
            theirs.drop()

    async def _compared(self, claim: Claim, request: Request, error: RemoteError, theirs: Fetched) -> Accepted | None:
        if theirs.digest == request.digest:
            receipt = Receipt(path=request.path, revision=theirs.revision, digest=theirs.digest)
            return Accepted(receipt=receipt, note=f"{answer(request, error)}; the remote holds these very bytes")
        if self._is_ours(request, theirs) and self._rebased(claim, request, error, theirs.base):
            return None
        message = f"somebody changed {request.path} on the remote since it was read here"
        self.bury(claim, Reason.CONFLICT, message, request, error, theirs=await theirs.keep())
        return None

    def _is_ours(self, request: Request, theirs: Fetched) -> bool:
        """Whether what stands there is what the change was made from, or bytes that we sent since."""
        if theirs.digest == request.base.digest or theirs.revision == request.base.revision:
            return True
        return theirs.digest in self._parts.journal.sent_digests(request.path)

    def _compared_with_nothing(self, claim: Claim, request: Request, error: RemoteError) -> Accepted | None:
        if request.kind is OpKind.DELETE:
            return Accepted(
                receipt=Receipt(path=request.path, revision=None), note=f"{answer(request, error)}; it is gone there"
            )
        if not request.base.absent:
            message = "somebody deleted the file on the remote since it was read here"
            self.bury(claim, Reason.REMOTE_DELETED, message, request, error)
        elif not self._rebased(claim, request, error, Base()):
            missing = isinstance(error, Refusal) and error.status == 409
            reason = Reason.PARENT_MISSING if missing else Reason.CONFLICT
            self.bury(claim, reason, f"nothing is there, and yet it cannot be made: {error.message}", request, error)
        return None

    async def _not_compared(
        self, claim: Claim, request: Request, error: RemoteError, unread: RemoteError
    ) -> Accepted | None:
        """The comparison's own failure says when to try again; a final one leaves a conflict that shows no bytes."""
        verdict = self._verdict(claim, request, unread)
        again = isinstance(verdict, (Probe, RetryAfter, Refresh))
        if again or (isinstance(verdict, Bury) and verdict.reason is Reason.EXHAUSTED):
            return await self.failed(claim, request, unread)
        current = error.current_revision if isinstance(error, Refusal) else None
        theirs = Theirs(base=Base(None if current is None else Revision(current)))
        message = f"it changed on the remote since it was read here, and what is there cannot be read: {unread.message}"
        self.bury(claim, Reason.CONFLICT, message, request, error, theirs=theirs)
        return None

    def _rebased(self, claim: Claim, request: Request, error: RemoteError, base: Base) -> bool:
        """Sends the op again from where the remote stands now; False once that was done too often."""
        op = claim.op
        done = self._rebases.get(op.op_id, 0)
        if done >= REBASES:
            return False
        self._rebases[op.op_id] = done + 1
        self._parts.journal.rebase(claim, base, self._attempt(request, error))
        then = "nothing is there now: sent again as a new file"
        if base.revision:
            then = f"sent again as a change of revision {base.revision}, which is there now"
        self._parts.log.note(
            "op.retrying",
            f"{answer(request, error)}; {then}",
            op=op.op_id,
            path=op.target,
            details=details_of(claim, State.PENDING, status=status_of(error), revision=base.revision),
        )
        return True

    # shared

    def _verdict(self, claim: Claim, request: Request, error: RemoteError, *, remote_answers: bool = False) -> Verdict:
        return decide(
            request.kind,
            request.base,
            error,
            attempts=claim.attempts - claim.budget_start + 1,
            policy=self.policy,
            remote_answers=remote_answers,
        )

    def _postpone(
        self, claim: Claim, request: Request, error: RemoteError, until: float, *, charged: bool, then: str
    ) -> None:
        op = claim.op
        self._parts.journal.postpone(claim, until, self._attempt(request, error), charged=charged)
        self._parts.log.note(
            "op.retrying",
            f"{answer(request, error)}; {then}",
            op=op.op_id,
            path=op.target,
            level="warning",
            details=details_of(claim, State.PENDING, status=status_of(error)),
        )

    def _attempt(self, request: Request, error: RemoteError | None) -> Attempt:
        return Attempt(
            at=request.at,
            status=status_of(error),
            error=None if error is None else error.message,
            duration=self._parts.clock.monotonic() - request.begun,
            correlation_id=getattr(error, "correlation_id", None),
            body=body_of(error),
        )

    def _heard(self, error: RemoteError) -> None:
        """Even a refusal is a sign of life, unless it is the kind that only a probe explains."""
        if isinstance(error, Refusal) and error.status < 500 and error.status not in (401, 429):
            self._parts.connection.contacted()

    def _now(self) -> float:
        return self._parts.clock.monotonic()


def _is_full(error: Exception) -> bool:
    """Whether there is no room on this disk, for a body or for the journal."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
