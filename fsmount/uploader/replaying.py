"""Tries again, behind the remote, what its provider failed with: a person's ``retry`` of a ``provider-failed``.

Invariant: no byte is sent. What the remote says of its own operation decides; where it says nothing, the op goes on
waiting for the provider, and never counts as delivered there.
"""

from __future__ import annotations

from fsmount.errors import Refusal, RemoteError
from fsmount.model import Claim, ProviderResult, ProviderState, Reason
from fsmount.retry import ASKED_ABOUT, TRANSIENT
from fsmount.uploader.parts import Parts, Request
from fsmount.uploader.settling import Settler
from fsmount.uploader.wording import details_of

_WHY = {
    403: "the credential may not replay operations (it needs ops:replay)",
    404: "the remote does not know its operation any more",
}


class Replaying:
    """Asks the remote for another try and settles the claim."""

    def __init__(self, parts: Parts, settler: Settler) -> None:
        self._parts = parts
        self._settler = settler

    async def replay(self, claim: Claim, remote_op_id: str) -> None:
        """Settles the claim in any case. A checkpoint."""
        request = self._settler.look(claim.op.path, claim.op.base)
        try:
            await self._parts.remote.replay(remote_op_id)
        except RemoteError as error:
            await self._refused(claim, request, error, remote_op_id)
        else:
            self._parts.connection.contacted()
            self._accepted(claim, f"{remote_op_id} is tried again behind the remote")

    async def _refused(self, claim: Claim, request: Request, error: RemoteError, remote_op_id: str) -> None:
        refusal = _final(error)
        if refusal is None:
            await self._settler.failed(claim, request, error)
            return
        if refusal.status == 409:
            await self._not_failed_there(claim, request, refusal, remote_op_id)
            return
        why = _WHY.get(refusal.status, "the remote does not try it again")
        self._settler.bury(claim, Reason.PROVIDER_FAILED, f"{why}: {error.message}", request, error)

    async def _not_failed_there(self, claim: Claim, request: Request, error: Refusal, remote_op_id: str) -> None:
        """Somebody else had it tried again, or it ended otherwise."""
        try:
            found: ProviderResult | None = await self._parts.remote.provider_result(remote_op_id)
        except RemoteError as unread:
            if _final(unread) is None:
                await self._settler.failed(claim, request, unread)
                return
            found = None
        if found is not None and found.state is ProviderState.FAILED:
            message = f"it is {found.said} at the remote, which does not try it again: {found.error or error.message}"
            self._settler.bury(claim, Reason.PROVIDER_FAILED, message, request, error)
            return
        said = "the remote does not tell how it stands" if found is None else f"it is {found.said} there"
        self._accepted(claim, f"{remote_op_id} has not failed at the remote any more; {said}")
        if found is not None and found.state is ProviderState.SUCCEEDED:
            self._succeeded(remote_op_id)

    def _succeeded(self, remote_op_id: str) -> None:
        delivered = self._parts.journal.delivered_as(remote_op_id)
        if delivered is not None:
            self._parts.journal.provider_succeeded(delivered)

    def _accepted(self, claim: Claim, note: str) -> None:
        self._parts.journal.replayed(claim)
        self._settler.breaker.acknowledged()
        self._parts.log.note(
            "op.acknowledged", note, op=claim.op.op_id, path=claim.op.path, details=details_of(claim, status=202)
        )


def _final(error: RemoteError) -> Refusal | None:
    """The answer, if the same request made again would get the same one."""
    if not isinstance(error, Refusal) or error.status == 401:
        return None
    return error if error.status < 500 and error.status not in ASKED_ABOUT | TRANSIENT else None
