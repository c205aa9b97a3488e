"""What a forced op is about to replace: kept first, so that a person's decision destroys nothing.

Invariant: a forced op is sent only when the version that it replaces is in the spool and on the disk, or is no longer
the remote's: then its precondition decides.
"""

from __future__ import annotations

import trio

from fsmount.errors import RemoteError
from fsmount.model import Base, Claim, OpKind, RemotePath
from fsmount.uploader.bodies import Fetched, fetch
from fsmount.uploader.parts import Parts
from fsmount.uploader.settling import NO_ROOM, Settler


class Replaced:
    """Fetches what was not kept when the conflict was found."""

    def __init__(self, parts: Parts, settler: Settler) -> None:
        self._parts = parts
        self._settler = settler

    async def kept(self, claim: Claim) -> Claim | None:
        """The claim with what it replaces in the journal; None where that cannot be had now and the op was settled.

        A checkpoint.
        """
        sought = _unkept(claim)
        if sought is None:
            await self._put_on_disk(claim)
            return claim
        path, base = sought
        request = self._settler.look(path, base)
        try:
            found = await fetch(path, self._parts.remote, self._parts.spool)
        except RemoteError as error:
            await self._settler.failed(claim, request, error)
            return None
        if found is None:
            return claim
        try:
            return claim if found.revision != base.revision else await self._keep(claim, found)
        except OSError as error:
            reason = f"what it replaces cannot be kept: {error.strerror or error}"
            self._settler.put_off(claim, request, reason, self._parts.clock.monotonic() + NO_ROOM)
            return None
        finally:
            found.drop()

    async def _keep(self, claim: Claim, found: Fetched) -> Claim:
        if found.draft is None:
            raise OSError(f"there is no room in the spool for its {found.size} bytes")
        claim = self._parts.journal.keep_theirs(claim, await found.keep())
        await self._put_on_disk(claim)
        return claim

    async def _put_on_disk(self, claim: Claim) -> None:
        """From here on nobody else may have these bytes; raises OSError."""
        body = None if claim.theirs is None else claim.theirs.body
        if body is not None:
            await trio.to_thread.run_sync(self._parts.spool.sync, body)
            await trio.to_thread.run_sync(self._parts.journal.durable)


def _unkept(claim: Claim) -> tuple[RemotePath, Base] | None:
    """Where the version stands that the op replaces, unless there is none, its bytes are here or travel on."""
    op, theirs = claim.op, claim.theirs
    if theirs is None or theirs.base.absent or theirs.body is not None:
        return None
    for name in (op.target, op.path):
        carried = op.kind is OpKind.MOVE and name == op.path and op.body is None
        if not carried and op.base_of(name).like(theirs.base):
            return name, op.base_of(name)
    return None
