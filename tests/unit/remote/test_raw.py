"""The ``raw`` extension as the client uses it: ranges, streamed uploads, and what happens where it is gone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from fsmount.config import Credentials, parse_remote
from fsmount.errors import InvalidAnswer, Refusal, Unreachable
from fsmount.model import ABSENT, Base, RemotePath, Revision
from fsmount.ports import Upload
from fsmount.remote.files import RAW_FROM
from fsmount.remote.pieces import PIECE
from fsmount.remote.relayfile import RelayfileRemote
from tests.support.notes import Notes
from tests.support.raw import RawServer, Script, always, raw_server, response, routed
from tests.support.server import RelayServer, serving
from tests.support.uploads import Bytes, digest_of, upload_of

FILE = RemotePath("/d/f.bin")
RAW = frozenset({"raw"})
HEALTH = response(200, {"status": "ok", "features": ["raw"]})
PLAIN_HEALTH = response(200, {"status": "ok"})
LARGE = bytes(range(256)) * (RAW_FROM // 256 + 1)
WRITTEN = response(202, {"opId": "op_1", "targetRevision": "rev_2", "status": "queued"})
PERMISSIONS = '{"permissions":["allow:public"]}'


@asynccontextmanager
async def answered(
    script: Script, folder: Path, *, patience: float = 5.0
) -> AsyncIterator[tuple[RelayfileRemote, RawServer]]:
    """A remote that knows of the extension; ``script`` answers."""
    token = folder / "token"
    token.write_text("t")
    async with raw_server(script) as server:
        url = parse_remote(f"relayfile+{server.origin}/w")
        credentials = Credentials(token_file=token)
        async with RelayfileRemote(url, credentials, timeout=patience, log=Notes(), features=RAW) as remote:
            with trio.fail_after(8):
                yield remote, server


@asynccontextmanager
async def mounted(server: RelayServer) -> AsyncIterator[RelayfileRemote]:
    credentials = Credentials(token_file=server.token_file)
    async with RelayfileRemote(parse_remote(server.remote), credentials, timeout=5, log=Notes()) as remote:
        with trio.fail_after(20):
            await remote.probe()
            yield remote


async def test_a_read_asks_for_its_range_and_no_more(relay_server: RelayServer) -> None:
    relay_server.put(FILE, LARGE)
    async with mounted(relay_server) as remote:
        chunk = await remote.read(FILE, None, 1000, 50)
        assert (chunk.start, chunk.data, chunk.total) == (1000, LARGE[1000:1050], len(LARGE))
        assert (chunk.digest, chunk.content_type) == (digest_of(LARGE), "application/octet-stream")
        beyond = await remote.read(FILE, None, len(LARGE) + 5, 50)
        assert (beyond.start, beyond.data, beyond.total) == (len(LARGE), b"", len(LARGE))
        relay_server.put(FILE, b"")
        assert (await remote.read(FILE, None, 0, 50)).total == 0
        assert remote.capabilities.ranges
        assert remote.capabilities.size_limit is None


@pytest.mark.parametrize(
    "answer",
    [
        response(206, b"abc", etag='"r"', content_range="bytes 0-1/9"),
        response(206, b"abc", etag='"r"', content_range="bytes 0-2/2"),
        response(206, b"abc", etag='"r"', content_range="bytes */9"),
        response(206, b"abc", etag='"r"'),
        response(206, b"abc", content_range="bytes 0-2/9"),
        response(416, b"", etag='"r"'),
        response(200, b"abc", etag='"r"', x_content_sha256="0" * 64),
    ],
    ids=["longer", "past the end", "no range", "no header", "no revision", "416 without size", "wrong digest"],
)
async def test_a_range_that_cannot_be_is_no_answer(tmp_path: Path, answer: bytes) -> None:
    async with answered(always(answer), tmp_path) as (remote, _):
        with pytest.raises(InvalidAnswer):
            await remote.read(FILE, None, 0, 9)


class Counted(Bytes):
    """Tells the longest piece that was read of it, and how often it was begun."""

    longest = 0
    begun = 0

    def read(self, offset: int, size: int) -> bytes:
        self.longest = max(self.longest, size)
        self.begun += offset == 0
        return super().read(offset, size)


async def test_an_upload_is_read_in_pieces_and_carries_length_digest_and_base(tmp_path: Path) -> None:
    content = bytes(3 * PIECE + 17)
    source = Counted(content)
    async with answered(always(WRITTEN), tmp_path) as (remote, server):
        upload = upload_of(FILE, content, Base(Revision("rev_1")), content_type="image/png")
        receipt = await remote.put(_with_source(upload, source))
        await remote.put(upload_of(FILE, content, content_type=""))
    assert receipt.revision == "rev_2"
    assert source.longest <= PIECE
    first, created = server.asked
    assert (first.method, first.body) == ("PUT", content)
    assert first.target == "/v1/workspaces/w/fs/raw?path=/d/f.bin"
    wanted = {
        "content-length": str(len(content)), "x-content-sha256": hashlib.sha256(content).hexdigest(),
        "if-match": '"rev_1"', "content-type": "image/png",
    }  # fmt: skip
    assert wanted.items() <= first.headers.items()
    assert "transfer-encoding" not in first.headers
    assert (created.headers["if-none-match"], created.headers["content-type"]) == ("*", "application/octet-stream")


async def test_a_fresh_credential_sends_it_from_its_beginning(tmp_path: Path) -> None:
    source = Counted(LARGE)

    async def script(asked: object, stream: trio.SocketStream) -> None:
        (tmp_path / "token").write_text("fresh")
        await stream.send_all(response(401) if source.begun == 1 else WRITTEN)

    async with answered(script, tmp_path) as (remote, server):
        await remote.put(_with_source(upload_of(FILE, LARGE), source))
    assert [asked.body for asked in server.asked] == [LARGE, LARGE]


async def test_a_server_that_stops_taking_it_is_given_up(tmp_path: Path) -> None:
    async def deaf(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    token = tmp_path / "token"
    token.write_text("t")
    content = bytes(64 * PIECE)
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, deaf, 0, host="127.0.0.1"))
        url = parse_remote(f"relayfile+http://127.0.0.1:{listener.socket.getsockname()[1]}/w")
        remote = RelayfileRemote(url, Credentials(token_file=token), timeout=0.3, log=Notes(), features=RAW)
        with trio.fail_after(10), pytest.raises(Unreachable):
            await remote.put(upload_of(FILE, content))
        await remote.aclose()
        nursery.cancel_scope.cancel()


async def test_where_the_route_is_gone_files_go_as_any_server_takes_them(tmp_path: Path) -> None:
    body = {"path": FILE, "revision": "rev_1", "content": "text"}
    script = routed({
        "GET /health": PLAIN_HEALTH, "GET /fs/file": response(200, body), "PUT /fs/file": WRITTEN,
    })  # fmt: skip
    async with answered(script, tmp_path) as (remote, server):
        assert (await remote.read(FILE, None, 0, 9)).data == b"text"
        await remote.put(upload_of(FILE, LARGE))
        assert not remote.capabilities.ranges
        assert remote.capabilities.size_limit is not None
    assert [asked.target.partition("?")[0].rpartition("/")[2] for asked in server.asked] == [
        "raw", "health", "file", "file",
    ]  # fmt: skip


async def test_of_a_server_that_was_never_asked_no_limit_is_known(tmp_path: Path) -> None:
    credentials = Credentials(token_file=tmp_path / "token")
    url = parse_remote("relayfile+http://127.0.0.1:1/w")
    async with RelayfileRemote(url, credentials, timeout=1, log=Notes()) as remote:
        assert remote.capabilities.size_limit is None


async def test_a_file_that_is_gone_stays_gone(tmp_path: Path) -> None:
    async with answered(routed({"GET /health": HEALTH}), tmp_path) as (remote, server):
        with pytest.raises(Refusal) as caught:
            await remote.read(FILE, None, 0, 9)
    assert caught.value.status == 404
    assert len(server.asked) == 2


async def test_what_json_is_too_large_for_goes_as_it_is(tmp_path: Path) -> None:
    with serving(tmp_path / "relay", body_cap=2000) as server:
        async with mounted(server) as remote:
            await remote.put(upload_of(FILE, b"x" * 5000))
            assert remote.capabilities.size_limit is None
        assert server.get(FILE) == b"x" * 5000


async def test_metadata_of_a_large_file_goes_along(relay_server: RelayServer) -> None:
    headers = {"If-Match": "*", "X-Relayfile-Semantics": PERMISSIONS}
    relay_server.http.put("raw", params={"path": "/old"}, content=LARGE, headers=headers).raise_for_status()
    async with mounted(relay_server) as remote:
        for name, content in (("/new", LARGE), ("/small", b"x")):
            await remote.copy_metadata(upload_of(name, content), RemotePath("/old"), None)
            found = relay_server.http.head("raw", params={"path": name})
            assert json.loads(found.headers["x-relayfile-semantics"]) == json.loads(PERMISSIONS)


async def test_metadata_too_long_for_a_header_goes_along(relay_server: RelayServer) -> None:
    comments = ["c" * 1000] * 40
    body = {"content": "x", "semantics": {"comments": comments}}
    relay_server.http.put("file", params={"path": "/old"}, json=body, headers={"If-Match": "*"}).raise_for_status()
    async with mounted(relay_server) as remote:
        await remote.copy_metadata(upload_of("/new", LARGE), RemotePath("/old"), None)
    found = relay_server.file("/new")
    assert found is not None
    assert found.semantics is not None
    assert found.semantics.comments == tuple(comments)


async def test_without_the_metadata_of_what_is_gone_nothing_is_created(tmp_path: Path) -> None:
    script = routed({"HEAD /": response(404, b""), "GET /health": HEALTH, "PUT /": WRITTEN})
    async with answered(script, tmp_path) as (remote, server):
        with pytest.raises(Refusal) as caught:
            await remote.copy_metadata(upload_of("/new", LARGE, ABSENT), RemotePath("/old"), None)
    assert caught.value.status == 404
    assert not [asked for asked in server.asked if asked.method == "PUT"]


@pytest.mark.parametrize(("read", "put"), [(413, 202), (403, 202), (200, 431), (200, 400), (200, 403)])
async def test_metadata_that_cannot_be_carried_is_forbidden(tmp_path: Path, read: int, put: int) -> None:
    shown = PERMISSIONS if read == 200 else "too-long"
    script = routed({
        "HEAD /": response(403 if read == 403 else 200, b"", etag='"r"', x_relayfile_semantics=shown),
        "GET /fs/file": response(read, {"code": "payload_too_large"}),
        "PUT /fs/raw": WRITTEN if put == 202 else response(put, {"code": "bad_request"}),
    })  # fmt: skip
    async with answered(script, tmp_path) as (remote, server):
        with pytest.raises(Refusal) as caught:
            await remote.copy_metadata(upload_of("/new", LARGE, ABSENT), RemotePath("/old"), None)
    assert caught.value.status == 403
    if read != 200:
        assert not [asked for asked in server.asked if asked.method == "PUT"]


def _with_source(upload: Upload, source: Bytes) -> Upload:
    return msgspec.structs.replace(upload, source=source)
