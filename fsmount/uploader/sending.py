"""The requests that each kind of op needs.

Invariant: a move's old name is removed only after the journal knows that the new one is there. A batch that fails as a
whole is the verdict of none of its ops: they go in smaller ones, in the end each by itself. What a forced op replaces
is kept before it is sent.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Awaitable, Callable, Sequence

import trio
from msgspec.structs import replace

from fsmount.errors import FileError, Refusal, RemoteError, Unreachable
from fsmount.model import Body, Claim, OpId, OpKind, Reason, Receipt, State, Transfer
from fsmount.retry import GONE, asked_wait, is_asked_about
from fsmount.uploader.beforehand import overtaken
from fsmount.uploader.bodies import CorruptBody, Parcel, fetch, parcel, parcel_of, recorded, sealed
from fsmount.uploader.parts import Accepted, Claimed, Parts, Request
from fsmount.uploader.replaced import Replaced
from fsmount.uploader.replaying import Replaying
from fsmount.uploader.settling import Settler
from fsmount.uploader.wording import details_of

STRETCH = 16
"""Files of a batch that are settled in one transaction."""
BULK_NOT_FOR_US = frozenset({403, 404, 405, 501})
"""A whole batch refused so: the route is closed to this credential or missing, whatever the files are."""
BULK_AGAIN = 600.0
"""Seconds after which batches are tried again where they were refused."""


class Sender:
    """Sends claims. Every method settles what it is given, or raises what only ``Settler.surprised`` can settle."""

    def __init__(self, parts: Parts, settler: Settler) -> None:
        self._parts = parts
        self._settler = settler
        self._replaced = Replaced(parts, settler)
        self._replaying = Replaying(parts, settler)
        self._flying: dict[OpId, Parcel] = {}
        self._no_bulk_until = 0.0
        self._company: dict[OpId, int] = {}

    @property
    def transfers(self) -> list[Transfer]:
        """The bodies that are being sent."""
        return [
            Transfer(op_id=op_id, path=flying.upload.path, bytes_sent=flying.source.sent, size=flying.source.size)
            for op_id, flying in self._flying.items()
        ]

    @property
    def takes_batches(self) -> bool:
        """Whether several files may travel in one request."""
        able = self._parts.remote.capabilities.batch_put
        return able and self._parts.clock.monotonic() >= self._no_bulk_until

    def company(self, claim: Claim) -> float:
        """How many files a batch may have that this op travels in; 0: it goes by a request of its own."""
        return 0 if claim.forced or claim.replays else self._company.get(claim.op.op_id, math.inf)

    async def one(self, claimed: Claimed) -> None:
        """Sends one op by itself."""
        claim: Claim | None = claimed.claim
        self._company.pop(claimed.claim.op.op_id, None)
        self._note_sending(claimed.claim)
        if claimed.claim.replays is not None:
            await self._replaying.replay(claimed.claim, claimed.claim.replays)
            return
        if claimed.claim.forced:
            claim = await self._replaced.kept(claimed.claim)
        if claim is not None:
            await self._send(replace(claimed, claim=claim))

    def _note_sending(self, claim: Claim) -> None:
        op = claim.op
        self._parts.log.note(
            "op.sending", f"{op.kind} {op.target}", op=op.op_id, path=op.target, level="debug",
            details=details_of(claim, State.SENDING),
        )  # fmt: skip

    async def _send(self, claimed: Claimed) -> None:
        op = claimed.claim.op
        if op.kind is OpKind.PUT:
            await self._put(claimed)
        elif op.kind is OpKind.MOVE:
            await self._move(claimed)
        elif op.kind is OpKind.DELETE:
            await self._remove(claimed.claim, lambda: self._parts.remote.delete(op.path, op.base))
        else:
            await self._remove(claimed.claim, lambda: self._remove_directory(claimed.claim))

    async def many(self, batch: Sequence[Claimed]) -> None:
        """Sends puts of small files in one request, be it a single one: in a batch the remote recognises a repeated
        request by its key, so that a lost answer cannot turn into a conflict with ourselves."""
        parcels = []
        await recorded(batch, self._parts.journal, self._parts.spool)
        for claimed in batch:
            self._note_sending(claimed.claim)
            try:
                ready = await self._ready(claimed)
            except Exception as error:  # noqa: BLE001 - one op's trouble is not the batch's
                await self._settler.surprised(claimed.claim, error)
                ready = None
            if ready is not None:
                parcels.append(ready)
            await trio.lowlevel.checkpoint()
        for ready in parcels:
            self._flying[ready.claim.op.op_id] = ready
        try:
            await self._bulk(parcels)
        finally:
            for ready in parcels:
                self._landed(ready)

    # puts

    async def _ready(self, claimed: Claimed) -> Parcel | None:
        """The op's bytes, sealed and checked; None if they are damaged: then it is buried."""
        try:
            return await parcel(await sealed(claimed, self._parts.journal, self._parts.spool), self._parts.spool)
        except CorruptBody as error:
            self._settler.bury(claimed.claim, Reason.CORRUPT_SPOOL, str(error))
            return None

    async def _put(self, claimed: Claimed) -> None:
        await recorded([claimed], self._parts.journal, self._parts.spool)
        ready = await self._ready(claimed)
        if ready is not None:
            await self._put_alone(ready)

    async def _put_alone(self, ready: Parcel) -> None:
        request = self._put_request(ready)
        foreseen = await overtaken(ready.upload, self._parts.remote)
        if foreseen is None:
            accepted = await self._flown(ready, request, lambda: self._parts.remote.put(ready.upload))
        else:
            self._landed(ready)
            accepted = await self._settler.foreseen(ready.claim, request, foreseen)
        if accepted is not None:
            self._settler.acknowledge(ready.claim, accepted, request)

    async def _flown(self, ready: Parcel, request: Request, call: Callable[[], Awaitable[Receipt]]) -> Accepted | None:
        self._flying[ready.claim.op.op_id] = ready
        try:
            return await self._outcome(ready.claim, request, call)
        finally:
            self._landed(ready)

    def _landed(self, ready: Parcel) -> None:
        self._flying.pop(ready.claim.op.op_id, None)
        ready.source.close()

    async def _outcome(self, claim: Claim, request: Request, call: Callable[[], Awaitable[Receipt]]) -> Accepted | None:
        try:
            receipt = await call()
        except RemoteError as error:
            return await self._settler.failed(claim, request, error)
        self._parts.connection.contacted()
        return Accepted(receipt=receipt)

    def _put_request(self, ready: Parcel) -> Request:
        return self._settler.put_request(ready.claim.op, ready.upload.digest)

    # batches

    async def _bulk(self, parcels: Sequence[Parcel]) -> None:
        if not parcels:
            return
        requests = [self._put_request(ready) for ready in parcels]
        try:
            outcomes = await self._parts.remote.put_many([ready.upload for ready in parcels])
        except RemoteError as error:
            await self._whole_failed(parcels, requests, error)
            return
        for ready in parcels:
            self._company.pop(ready.claim.op.op_id, None)
        stamp = self._parts.connection.probes
        answered = list(zip(parcels, requests, outcomes, strict=True))
        # A batch is settled in many stretches: the filesystem gets its turn between them.
        for start in range(0, len(answered), STRETCH):
            stretch = answered[start : start + STRETCH]
            if not self._settled_together(stretch):
                await self._settle_each(stretch, stamp)
            await trio.lowlevel.checkpoint()

    def _settled_together(self, answered: Sequence[tuple[Parcel, Request, Receipt | RemoteError]]) -> bool:
        """Acknowledges several files in one transaction; False where one was refused or anything went wrong."""
        done = [
            (ready.claim, Accepted(receipt=outcome), request)
            for ready, request, outcome in answered
            if isinstance(outcome, Receipt)
        ]
        if len(done) < len(answered):
            return False
        try:
            self._settler.acknowledge_all(done)
        except FileError:
            return False
        self._parts.connection.contacted()
        return True

    async def _settle_each(self, answered: Sequence[tuple[Parcel, Request, Receipt | RemoteError]], stamp: int) -> None:
        for ready, request, outcome in answered:
            try:
                await self._settle_entry(ready, request, outcome, stamp)
            except Exception as error:  # noqa: BLE001 - one op's trouble is not the batch's
                await self._settler.surprised(ready.claim, error)

    async def _settle_entry(self, ready: Parcel, request: Request, outcome: Receipt | RemoteError, stamp: int) -> None:
        if isinstance(outcome, RemoteError):
            accepted = await self._settler.failed(ready.claim, request, outcome, stamp=stamp)
        else:
            self._parts.connection.contacted()
            accepted = Accepted(receipt=outcome)
        if accepted is not None:
            self._settler.acknowledge(ready.claim, accepted, request)

    async def _whole_failed(self, parcels: Sequence[Parcel], requests: Sequence[Request], error: RemoteError) -> None:
        """All go back into the queue; what failed says how they are to travel next."""
        status = error.status if isinstance(error, Refusal) else 0
        single = len(parcels) == 1 and status not in BULK_NOT_FOR_US
        if single and (status == 401 or status >= 500 or is_asked_about(error)):
            # It was a single request already, and another route would fare no better.
            await self._settle_entry(parcels[0], requests[0], error, self._parts.connection.probes)
            return
        self._parts.log.note("batch", f"{len(parcels)} files in one request: {error.message}", level="warning")
        if status == 401:
            self._parts.connection.refused()
        elif is_asked_about(error):
            await self._parts.connection.check()
        if self._parts.connection.usable:
            self._go_on_smaller(parcels, error)
        until = self._parts.clock.monotonic() + (asked_wait(error) or 0.0)
        with self._parts.journal.transaction():
            for ready, request in zip(parcels, requests, strict=True):
                self._settler.give_back(ready.claim, until=until, request=request, error=error)

    def _go_on_smaller(self, parcels: Sequence[Parcel], error: RemoteError) -> None:
        """In halves; each by itself after a silence, which would cost the others of a half a timeout once more."""
        if isinstance(error, Refusal) and error.status in BULK_NOT_FOR_US:
            self._no_bulk_until = self._parts.clock.monotonic() + BULK_AGAIN
            return
        silent = isinstance(error, Unreachable) and error.timed_out
        most = 1 if silent else len(parcels) // 2
        self._company |= dict.fromkeys((ready.claim.op.op_id for ready in parcels), most)

    # removals

    async def _remove(self, claim: Claim, call: Callable[[], Awaitable[Receipt]]) -> None:
        request = self._settler.removal(claim.op.kind, claim.op)
        accepted = await self._outcome(claim, request, call)
        if accepted is not None:
            self._settler.acknowledge(claim, accepted, request)

    async def _remove_directory(self, claim: Claim) -> Receipt:
        await self._parts.remote.remove_directory(claim.op.path)
        return Receipt(path=claim.op.path, revision=None)

    # moves

    async def _move(self, claimed: Claimed) -> None:
        claim: Claim | None = claimed.claim
        if claimed.claim.op.step == 0:
            claim = await (self._carry(claimed.claim) if claimed.claim.op.body is None else self._bring(claimed))
        if claim is not None:
            await self._leave(claim)

    async def _bring(self, claimed: Claimed) -> Claim | None:
        """Puts the op's own bytes at the new name."""
        await recorded([claimed], self._parts.journal, self._parts.spool)
        ready = await self._ready(claimed)
        return None if ready is None else await self._arrive(ready)

    async def _carry(self, claim: Claim) -> Claim | None:
        """Puts the old name's bytes at the new one, if they are still those that were renamed."""
        op = claim.op
        request = self._settler.removal(OpKind.PUT, op)
        try:
            theirs = await fetch(op.path, self._parts.remote, self._parts.spool)
        except RemoteError as error:
            await self._settler.failed(claim, request, error)
            return None
        if theirs is None:
            await self._old_name_gone(claim)
            return None
        try:
            if theirs.revision != op.base.revision and theirs.digest != op.base.digest:
                message = f"somebody changed {op.path} on the remote before its new name was there"
                self._settler.bury(claim, Reason.CONFLICT, message, theirs=await theirs.keep(), at=op.path)
                return None
            if theirs.draft is None:
                raise OSError(errno.ENOSPC, f"no room in the spool for its {theirs.size} bytes", op.path)
            return await self._arrive(parcel_of(claim, theirs.draft, theirs.digest, theirs.content_type))
        finally:
            theirs.drop()

    async def _arrive(self, ready: Parcel) -> Claim | None:
        op = ready.claim.op
        remote = self._parts.remote
        request = self._put_request(ready)

        async def put() -> Receipt:
            if op.base.absent:
                return await remote.put(ready.upload)
            return await remote.copy_metadata(ready.upload, op.path, op.base.revision)

        self._flying[op.op_id] = ready
        try:
            receipt = await put()
        except RemoteError as error:
            accepted = await self._not_arrived(ready, request, error)
        else:
            self._parts.connection.contacted()
            accepted = Accepted(receipt=receipt)
        finally:
            self._landed(ready)
        return None if accepted is None else self._settler.step(ready.claim, accepted, request)

    async def _not_arrived(self, ready: Parcel, request: Request, error: RemoteError) -> Accepted | None:
        """A 404 may speak of the old name, whose metadata was to be copied."""
        op = ready.claim.op
        if isinstance(error, Refusal) and error.status in GONE and not op.base.absent:
            try:
                old = await fetch(op.path, self._parts.remote, self._parts.spool)
            except RemoteError as unread:
                return await self._settler.failed(ready.claim, request, unread)
            if old is None:
                await self._old_name_gone(ready.claim)
                return None
            old.drop()
        return await self._settler.failed(ready.claim, request, error)

    async def _old_name_gone(self, claim: Claim) -> None:
        """Done if the new name holds the content already; else somebody deleted the file meanwhile."""
        op = claim.op
        wanted = (op.body or Body(size=0, digest=op.base.digest)).digest
        request = self._settler.removal(OpKind.PUT, op)
        try:
            new = await fetch(op.target, self._parts.remote, self._parts.spool, {wanted})
        except RemoteError as error:
            await self._settler.failed(claim, request, error)
            return
        if new is not None:
            new.drop()
        if new is not None and new.digest == wanted:
            receipt = Receipt(path=op.target, revision=new.revision, digest=new.digest)
            self._settler.acknowledge(claim, Accepted(receipt=receipt, note="it had been moved already"), request)
            return
        message = f"somebody deleted {op.path} on the remote before its new name was there"
        self._settler.bury(claim, Reason.REMOTE_DELETED, message, at=op.path)

    async def _leave(self, claim: Claim) -> None:
        """Removes the old name, at its base."""
        op = claim.op
        request = self._settler.removal(OpKind.DELETE, op)
        accepted = await self._outcome(claim, request, lambda: self._parts.remote.delete(op.path, op.base))
        if accepted is None:
            return
        # The journal passes on what the receipt says of the new name; the old one is gone in any case.
        base = op.target_base
        arrived = Receipt(
            path=op.target, revision=base.revision, digest=base.digest, remote_op_id=accepted.receipt.remote_op_id,
            tombstone=accepted.receipt.tombstone,
        )  # fmt: skip
        self._settler.acknowledge(claim, Accepted(receipt=arrived, note=accepted.note), request)
