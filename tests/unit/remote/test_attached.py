"""A save takes nothing from a file that is attached to it, whatever the server keeps by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fsmount.errors import Refusal
from fsmount.model import Base, Receipt, RemotePath, Revision
from tests.support.raw import RawServer, Script, response, routed
from tests.support.uploads import digest_of, upload_of
from tests.unit.remote.test_answers import answered, token_file

__all__ = ["token_file"]
AT_BASE = Base(Revision("r1"))
PERMISSIONS = {"permissions": ["deny:public"]}
WRITTEN = response(202, {"opId": "op_1", "targetRevision": "r2", "status": "queued"})


def forgetful(semantics: dict[str, Any], **members: str) -> Script:
    """A server whose listings say no more of a file than `members`, and that has these semantics at `/d/held`."""
    row = {"path": "/d/held", "type": "file", "revision": "r1", **members}
    held = {"path": "/d/held", "revision": "r1", "content": "x", "semantics": semantics}
    results = [{"path": path, "revision": "r2"} for path in ("/d/held", "/d/new")]
    return routed(
        {
            "GET /fs/tree": response(200, {"path": "/d", "entries": [row], "nextCursor": None}),
            "GET /fs/file?path=/d/held": response(200, held),
            "PUT /fs/file": WRITTEN,
            "POST /fs/bulk": response(202, {"results": results}),
        }
    )


def sent(server: RawServer, method: str) -> list[dict[str, Any]]:
    return [json.loads(asked.body) for asked in server.asked if asked.method == method]


async def test_what_a_server_would_forget_is_carried(token_file: Path) -> None:
    async with answered(forgetful(PERMISSIONS), token_file) as (remote, server, _):
        await remote.put(upload_of("/d/held", b"y", AT_BASE))
        assert [body["semantics"] for body in sent(server, "PUT")] == [PERMISSIONS]
        held, new = await remote.put_many([upload_of("/d/held", b"y", AT_BASE), upload_of("/d/new", b"z")])
    assert isinstance(held, Receipt)
    assert isinstance(new, Receipt)
    assert [body["semantics"] for body in sent(server, "PUT")] == [PERMISSIONS] * 2
    assert [file["path"] for body in sent(server, "POST") for file in body["files"]] == ["/d/new"]


@pytest.mark.parametrize("members", [{"contentHash": digest_of(b"x")}, {}], ids=["keeps", "nothing-attached"])
async def test_where_nothing_can_be_lost_nothing_is_carried(token_file: Path, members: dict[str, str]) -> None:
    semantics = PERMISSIONS if members else {}
    async with answered(forgetful(semantics, **members), token_file) as (remote, server, _):
        await remote.listing(RemotePath("/d"))
        await remote.put(upload_of("/d/held", b"y", AT_BASE))
        await remote.put_many([upload_of("/d/held", b"y", AT_BASE)])
    assert ["semantics" in body for body in sent(server, "PUT")] == [False]
    assert len(sent(server, "POST")) == 1
    reads = [asked.target for asked in server.asked if asked.method == "GET" and "/fs/file" in asked.target]
    assert len(reads) == (0 if members else 2)


async def test_a_look_that_fails_is_the_verdict_of_its_file(token_file: Path) -> None:
    async with answered(forgetful(PERMISSIONS), token_file) as (remote, *_):
        gone, new = await remote.put_many([upload_of("/d/gone", b"y", AT_BASE), upload_of("/d/new", b"z")])
    assert isinstance(gone, Refusal)
    assert gone.status == 404
    assert isinstance(new, Receipt)
