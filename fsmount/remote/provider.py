"""What became of accepted writes at the providers behind a relayfile server (relayfile-api, section 16).

Invariant: nothing here decides what an op becomes; a status that is new to us is told as unknown.
"""

from __future__ import annotations

from urllib.parse import quote, urlencode

import msgspec

from fsmount.model import ProviderResult, ProviderState, RemotePath, Revision
from fsmount.remote.entries import epoch
from fsmount.remote.http import Call, Client
from fsmount.wire.providers import Operation, OperationPage

GIVEN_UP = ("dead_lettered", "failed")
"""Statuses of operations that wait for a replay; servers built on relayfile's TypeScript core say the second."""
PAGE = 1000
PAGES = 20
"""Pages of failed operations that are read of each status at most, the newest first."""
STATES = {
    "pending": ProviderState.WAITING,
    "running": ProviderState.WAITING,
    "succeeded": ProviderState.SUCCEEDED,
    "failed": ProviderState.FAILED,
    "canceled": ProviderState.FAILED,
    "quarantined": ProviderState.FAILED,
    "dead_lettered": ProviderState.FAILED,
}


class _Page(OperationPage, frozen=True, kw_only=True):
    items: tuple[Operation, ...] | None


class Operations:
    """The operations of one workspace. Every method is a checkpoint and raises RemoteError."""

    def __init__(self, client: Client, workspace: str) -> None:
        self._client = client
        self._route = f"/v1/workspaces/{quote(workspace, safe='')}/ops"

    async def result(self, remote_op_id: str) -> ProviderResult:
        """Raises Refusal 403 where the credential may not read it, 404 where the server does not know it."""
        call = Call(method="GET", target=f"{self._route}/{quote(remote_op_id, safe='')}")
        answer = await self._client.request(call)
        found = self._client.decoded(call, answer, Operation)
        return _result(found, self._client.hidden(answer.body.decode(errors="replace")), self._client)

    async def failed(self) -> list[ProviderResult]:
        """Those that gave up, the newest first of each status."""
        found: dict[str, ProviderResult] = {}
        for status in GIVEN_UP:
            await self._collect(status, found)
        return [result for result in found.values() if result.state is ProviderState.FAILED]

    async def _collect(self, status: str, found: dict[str, ProviderResult]) -> None:
        """All operations of a status; a page after which nothing new comes is the last."""
        cursor = ""
        for _ in range(PAGES):
            query = {"status": status, "limit": str(PAGE)} | ({"cursor": cursor} if cursor else {})
            call = Call(method="GET", target=f"{self._route}?{urlencode(query, quote_via=quote)}")
            page = self._client.decoded(call, await self._client.request(call), _Page)
            known = len(found)
            for operation in page.items or ():
                body = msgspec.json.encode(operation).decode(errors="replace")
                found[operation.op_id] = _result(operation, self._client.hidden(body), self._client)
            if not page.next_cursor or len(found) == known:
                break
            cursor = page.next_cursor

    async def replay(self, remote_op_id: str) -> None:
        """Raises Refusal 409 where the operation is not dead-lettered (any more)."""
        await self._client.request(Call(method="POST", target=f"{self._route}/{quote(remote_op_id, safe='')}/replay"))


def _result(operation: Operation, body: str, client: Client) -> ProviderResult:
    return ProviderResult(
        remote_op_id=operation.op_id,
        path=RemotePath(operation.path) if operation.path else None,
        revision=Revision(operation.revision) if operation.revision else None,
        state=STATES.get(operation.status, ProviderState.UNKNOWN),
        said=operation.status,
        error=client.hidden(operation.last_error or ""),
        body=body,
        at=epoch(operation.completed_at or operation.updated_at),
    )
