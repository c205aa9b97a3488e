"""What a relayfile server tells of accepted writes: its operations, and another try of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import trio

from fsmount.config import Credentials, parse_remote
from fsmount.errors import InvalidAnswer, Refusal
from fsmount.model import Base, ProviderResult, ProviderState, RemotePath, Revision
from fsmount.remote import provider
from fsmount.remote.relayfile import RelayfileRemote
from tests.support.notes import Notes
from tests.support.raw import RawServer, Script, always, raw_server, response

SECRET = "eyJ.secret.token"
FAILED = {"opId": "op_9", "path": "/a", "revision": "rev_9", "status": "dead_lettered", "lastError": "no such issue"}


@asynccontextmanager
async def answered(script: Script, folder: Path) -> AsyncIterator[tuple[RelayfileRemote, RawServer]]:
    token = folder / "token"
    token.write_text(SECRET)
    token.chmod(0o600)
    async with raw_server(script) as server:
        url = parse_remote(f"relayfile+{server.origin}/my%20work")
        async with RelayfileRemote(url, Credentials(token_file=token), timeout=5, log=Notes()) as remote:
            with trio.fail_after(8):
                yield remote, server


async def test_a_failed_operation_says_why(tmp_path: Path) -> None:
    told = {**FAILED, "updatedAt": "1970-01-01T00:00:09Z", "providerResult": {"status": 410}}
    async with answered(always(response(200, told)), tmp_path) as (remote, server):
        found = await remote.provider_result("op 9")
    assert server.asked[0].target == "/v1/workspaces/my%20work/ops/op%209"
    assert '"status": 410' in found.body
    assert found == ProviderResult(
        remote_op_id="op_9", path=RemotePath("/a"), revision=Revision("rev_9"), state=ProviderState.FAILED,
        said="dead_lettered", error="no such issue", body=found.body, at=9.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("pending", "waiting"), ("running", "waiting"), ("succeeded", "succeeded"), ("failed", "failed"),
        ("canceled", "failed"), ("quarantined", "failed"), ("invented", "unknown"),
    ],
)  # fmt: skip
async def test_every_status_has_a_meaning(tmp_path: Path, status: str, state: str) -> None:
    async with answered(always(response(200, {"opId": "op_1", "status": status})), tmp_path) as (remote, _):
        found = await remote.provider_result("op_1")
    assert (found.state, found.said, found.path, found.revision) == (state, status, None, None)


async def test_what_the_operation_says_hides_the_token(tmp_path: Path) -> None:
    told = {**FAILED, "lastError": f"refused {SECRET}"}
    async with answered(always(response(200, told)), tmp_path) as (remote, _):
        found = await remote.provider_result("op_9")
    assert SECRET not in f"{found.error}{found.body}"


async def test_the_failed_ones_are_read_page_by_page(tmp_path: Path) -> None:
    pages = [
        response(200, {"items": [FAILED], "nextCursor": "op_9"}),
        response(200, {"items": [{**FAILED, "opId": "op_8"}], "nextCursor": None}),
        response(200, {"items": [{**FAILED, "opId": "op_7", "status": "failed"}], "nextCursor": None}),
    ]
    async with answered(always(*pages), tmp_path) as (remote, server):
        assert [found.remote_op_id for found in await remote.failed_at_provider()] == ["op_9", "op_8", "op_7"]
    asked = [parse_qs(urlsplit(each.target).query) for each in server.asked]
    assert asked[0] == {"status": ["dead_lettered"], "limit": ["1000"]}
    assert asked[1]["cursor"] == ["op_9"]
    assert asked[2] == {"status": ["failed"], "limit": ["1000"]}


async def test_a_server_that_knows_no_filter_makes_nothing_fail(tmp_path: Path) -> None:
    items = [FAILED, {**FAILED, "opId": "op_8", "status": "pending"}, {**FAILED, "opId": "op_7", "status": "succeeded"}]
    async with answered(always(response(200, {"items": items, "nextCursor": None})), tmp_path) as (remote, _):
        assert [found.remote_op_id for found in await remote.failed_at_provider()] == ["op_9"]


async def test_a_list_without_end_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with answered(always(response(200, {"items": [FAILED], "nextCursor": "op_9"})), tmp_path) as (remote, server):
        assert len(await remote.failed_at_provider()) == 1
    assert len(server.asked) == 3
    monkeypatch.setattr(provider, "PAGES", 3)
    pages = [response(200, {"items": [{**FAILED, "opId": f"op_{n}"}], "nextCursor": f"op_{n}"}) for n in range(9)]
    async with answered(always(*pages), tmp_path) as (remote, server):
        assert len(await remote.failed_at_provider()) == 6


async def test_a_page_of_something_else_is_no_answer(tmp_path: Path) -> None:
    async with answered(always(response(200, {"login": "please"})), tmp_path) as (remote, _):
        with pytest.raises(InvalidAnswer):
            await remote.failed_at_provider()


async def test_replay_asks_for_another_try(tmp_path: Path) -> None:
    accepted = response(202, {"status": "queued", "id": "op_9", "correlationId": "c"})
    refused = response(409, {"code": "invalid_state", "message": "not dead-lettered"})
    async with answered(always(accepted, refused), tmp_path) as (remote, server):
        await remote.replay("op_9")
        with pytest.raises(Refusal) as refusal:
            await remote.replay("op_9")
    assert (server.asked[0].method, server.asked[0].target) == ("POST", "/v1/workspaces/my%20work/ops/op_9/replay")
    assert (refusal.value.status, refusal.value.code) == (409, "invalid_state")


async def test_a_delete_knows_its_own_revision(tmp_path: Path) -> None:
    accepted = response(202, {"opId": "op_9", "targetRevision": "rev_9", "status": "queued"})
    async with answered(always(accepted), tmp_path) as (remote, _):
        receipt = await remote.delete(RemotePath("/a"), Base(Revision("rev_8")))
    assert (receipt.revision, receipt.tombstone, receipt.remote_op_id) == (None, "rev_9", "op_9")
