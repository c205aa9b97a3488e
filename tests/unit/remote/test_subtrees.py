"""A subtree in one request, and the cap on requests that answers tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsmount.errors import Refusal, RemoteError
from fsmount.model import RemotePath
from fsmount.remote.bodycap import LARGEST_BATCH, BodyCap
from fsmount.remote.content import SIZE_LIMIT
from tests.support.raw import response, routed
from tests.unit.remote.test_answers import EMPTY_TREE, HEALTH, answered, token_file

__all__ = ["token_file"]
D = RemotePath("/d")


def tree(*sizes: int, cursor: str | None = None) -> bytes:
    rows = [{"path": f"/d/{n}", "type": "file", "revision": "r", "size": size} for n, size in enumerate(sizes)]
    return response(200, {"path": "/d", "entries": rows, "nextCursor": cursor})


@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_small_subtree_comes_whole(token_file: Path, wrapped: bool) -> None:
    files = [
        {"path": "/d/0", "revision": "rev_1", "content": "text"},
        {"path": "/d/e/1", "revision": "rev_2", "content": "AAE=", "encoding": "base64", "contentType": "image/png"},
    ]
    exported = {"files": files} if wrapped else files
    routes = {**HEALTH, "GET /fs/tree": tree(4, 4), "GET /fs/export": response(200, exported)}
    async with answered(routed(routes), token_file) as (remote, server, _):
        found = await remote.read_below(D, 8)
    assert found is not None
    assert [(path, chunk.revision, chunk.data, chunk.total) for path, chunk in found] == [
        ("/d/0", "rev_1", b"text", 4), ("/d/e/1", "rev_2", b"\0\1", 2),
    ]  # fmt: skip
    assert server.asked[-1].target.endswith("/fs/export?path=/d&format=json")


async def test_a_large_one_does_not(token_file: Path) -> None:
    async with answered(routed({"GET /fs/tree": tree(5, 4)}), token_file) as (remote, server, _):
        assert await remote.read_below(D, 8) is None
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "answer", [response(404), response(400), response(429), response(200, {}), response(200, [{"path": "/d/0"}])]
)
async def test_what_is_no_export_is_an_error_and_only_a_missing_route_is_remembered(
    token_file: Path, answer: bytes
) -> None:
    routes = {**HEALTH, "GET /fs/tree?path=/d": tree(1), "GET /fs/tree": EMPTY_TREE, "GET /fs/export": answer}
    async with answered(routed(routes), token_file) as (remote, *_):
        with pytest.raises(RemoteError) as caught:
            await remote.read_below(D, 8)
        missing = isinstance(caught.value, Refusal) and caught.value.status == 404
        assert remote.capabilities.batch_read is not missing
        await remote.probe()
        assert remote.capabilities.batch_read


def test_a_file_is_refused_only_if_it_certainly_does_not_fit() -> None:
    cap = BodyCap()
    assert cap.size_limit == SIZE_LIMIT
    cap.refused(1014)
    assert cap.size_limit == 999, 'a body of 1,000 bytes was never shorter than {"content":""} around it'
    cap.refused(5000)
    assert cap.size_limit == 999
    cap.accepted(900)
    assert cap.size_limit == 999
    cap.accepted(1014)
    assert cap.size_limit == SIZE_LIMIT, "a longer one was taken: the cap was raised"


def test_batches_are_halved_and_never_below_what_one_small_file_needs() -> None:
    cap = BodyCap()
    for _ in range(20):
        cap.refused(cap.max_batch_bytes, files=2)
    assert cap.max_batch_bytes == 4096
    cap.refused(10, files=1)
    assert (cap.max_batch_bytes, cap.size_limit) == (4096, 0)
    cap.forget()
    assert (cap.max_batch_bytes, cap.size_limit) == (LARGEST_BATCH, SIZE_LIMIT)
