"""The live feed on real sockets: by a client that is not ours, and by one that misbehaves."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import trio
import trio_websocket
from trio_websocket import ConnectionClosed, WebSocketConnection

from tests.support.server import RelayServer, serving
from tests.unit.server.test_connection import Wire

ROUTE = "/v1/workspaces/local/fs/ws"
NOW: dict[str, Any] = {"from": "now"}
UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayServer]:
    with serving(tmp_path_factory.mktemp("websocket"), body_cap=4 << 20) as started:
        yield started


@pytest.fixture(autouse=True)
def _no_rules(server: RelayServer) -> None:
    server.rules("")


@asynccontextmanager
async def connected(
    server: RelayServer, token: str | None = None, headers: dict[str, str] | None = None, **query: Any
) -> AsyncIterator[WebSocketConnection]:
    """A feed opened by trio-websocket; must do what the test wants within seconds."""
    asked = urlencode({"token": server.token if token is None else token, **query}, doseq=True)
    with trio.fail_after(20):
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        async with stream, trio.open_nursery() as nursery:
            yield await trio_websocket.wrap_client_stream(
                nursery, stream, "x", f"{ROUTE}?{asked}", receive_buffer_size=1 << 16, max_message_size=16 << 20,
                extra_headers=[(name.encode(), value.encode()) for name, value in (headers or {}).items()],
            )  # fmt: skip
            nursery.cancel_scope.cancel()


def asked(server: RelayServer, token: str) -> httpx.Response:
    """What a good handshake is answered where it gets no upgrade."""
    headers = {**dict(line.split(": ") for line in UPGRADE), "Authorization": ""}
    return server.http.get("ws", params={"token": token}, headers=headers)


async def told(socket: WebSocketConnection, count: int = 1) -> list[dict[str, Any]]:
    return [json.loads(await socket.get_message()) for _ in range(count)]


async def paths(socket: WebSocketConnection, count: int) -> list[str]:
    return [message["path"] for message in await told(socket, count)]


async def nothing_else(socket: WebSocketConnection) -> None:
    """The answer to a ping is the next message, for messages keep their order."""
    await socket.send_message('{"type":"ping"}')
    (answer,) = await told(socket)
    assert answer["type"] == "pong", answer


def head(server: RelayServer) -> str:
    (newest,) = server.http.get("events", params={"direction": "desc", "limit": 1}).json()["events"]
    return str(newest["eventId"])


async def test_a_change_is_told_with_its_content(server: RelayServer) -> None:
    async with connected(server, **NOW) as socket:
        revision = server.put("/github/a", "héllo")
        (event,) = await told(socket)
    stored = server.file("/github/a")
    assert stored is not None
    assert event == {
        "eventId": head(server), "type": "file.created", "path": "/github/a", "revision": revision,
        "contentHash": stored.content_hash, "contentType": "text/plain", "content": "héllo", "inlineContent": True,
        "origin": "agent_write", "provider": "github", "correlationId": "test", "timestamp": event["timestamp"],
    }  # fmt: skip


async def test_large_content_and_what_is_no_longer_current_stay_out(server: RelayServer) -> None:
    start = head(server)
    server.put("/inline/fits", "x" * (1 << 20))
    server.put("/inline/beyond", "x" * ((1 << 20) + 1))
    server.put("/inline/empty", "")
    server.put("/inline/bytes", b"\xff")
    server.put("/inline/again", "1")
    server.put("/inline/again", "2")
    server.delete("/inline/empty")
    async with connected(server, cursor=start) as socket:
        events = await told(socket, 7)
    shown = [(event["path"][8:], event.get("inlineContent"), len(event.get("content", ""))) for event in events]
    assert shown == [
        ("fits", True, 1 << 20), ("beyond", None, 0), ("empty", None, 0), ("bytes", True, 4), ("again", None, 0),
        ("again", True, 1), ("empty", None, 0),
    ]  # fmt: skip
    assert (events[3]["encoding"], events[3]["content"]) == ("base64", "/w==")
    assert events[6]["type"] == "file.deleted"


async def test_an_empty_file_is_inline_without_content(server: RelayServer) -> None:
    async with connected(server, **NOW) as socket:
        server.put("/empty", "")
        (event,) = await told(socket)
    assert event["inlineContent"] is True
    assert "content" not in event


async def test_catch_up_goes_on_into_what_happens_now(server: RelayServer) -> None:
    start = head(server)
    for number in range(3):
        server.put(f"/catch/{number}", "x")
    async with connected(server, cursor=start) as socket:
        server.put("/catch/3", "x")
        assert await paths(socket, 4) == [f"/catch/{number}" for number in range(4)]
        await nothing_else(socket)


@pytest.mark.parametrize("query", [{"from": "now"}, {"cursor": "evt_999999"}, {"cursor": "nonsense", "from": "x"}])
async def test_now_and_an_unknown_cursor_are_told_of_nothing_old(server: RelayServer, query: dict[str, Any]) -> None:
    server.put("/old", "x")
    async with connected(server, **query) as socket:
        await nothing_else(socket)
        server.put("/new", "x")
        assert await paths(socket, 1) == ["/new"]


async def test_a_cursor_wins_over_from(server: RelayServer) -> None:
    start = head(server)
    server.put("/wins", "x")
    async with connected(server, cursor=start, **NOW) as socket:
        assert await paths(socket, 1) == ["/wins"]


async def test_without_a_beginning_the_last_hundred_are_told(server: RelayServer) -> None:
    server.put_many({f"/hundred/{number:03}": "x" for number in range(120)})
    async with connected(server) as socket:
        assert await paths(socket, 100) == [f"/hundred/{number:03}" for number in range(20, 120)]
        await nothing_else(socket)


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        (["/g/**"], ["/g/a", "/g/a/b/c"]),
        (["/g/*"], ["/g/a"]),
        (["/g/a/**"], ["/g/a", "/g/a/b/c"]),
        (["/*/a"], ["/g/a", "/h/a"]),
        (["/g/a", "/h/a"], ["/g/a", "/h/a"]),
        (["/g/*/b/*"], ["/g/a/b/c"]),
        (["h/**", ""], ["/h/a"]),
        (["/**"], ["/g/a", "/g/a/b/c", "/h/a", "/gg"]),
        (["/**/a"], []),
    ],
)
async def test_filters(server: RelayServer, filters: list[str], wanted: list[str]) -> None:
    start = head(server)
    server.put_many(dict.fromkeys(["/g/a", "/g/a/b/c", "/h/a", "/gg"], "x"))
    async with connected(server, cursor=start, path=filters) as socket:
        assert await paths(socket, len(wanted)) == wanted
        await nothing_else(socket)


async def test_other_workspaces_are_not_told(server: RelayServer) -> None:
    async with connected(server, **NOW) as socket:
        headers = {"Authorization": f"Bearer {server.sign(wks='w2')}", "If-Match": "*"}
        route = f"{server.base}/v1/workspaces/w2/fs/file?path=/secret"
        server.http.put(route, json={"content": "x"}, headers=headers).raise_for_status()
        await nothing_else(socket)


async def test_pings_of_both_kinds_are_answered(server: RelayServer) -> None:
    async with connected(server, **NOW) as socket:
        await socket.ping()
        await socket.send_message("not JSON")
        await socket.send_message('{"type":"subscribe"}')
        await socket.send_message(b"\x00")
        await nothing_else(socket)


async def test_the_token_may_come_in_the_header(server: RelayServer) -> None:
    headers = {"Authorization": f"Bearer {server.token}"}
    async with connected(server, "", headers, **NOW) as socket:
        await nothing_else(socket)


@pytest.mark.parametrize(
    ("claims", "status", "code"),
    [
        ({"exp": 1}, 401, "unauthorized"),
        ({"scopes": ["fs:write"]}, 403, "forbidden"),
        ({"wks": "elsewhere"}, 403, "forbidden"),
    ],
)
def test_a_token_that_may_not_is_answered_as_elsewhere(
    server: RelayServer, claims: dict[str, Any], status: int, code: str
) -> None:
    answer = asked(server, server.sign(**claims))
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_without_a_token_or_an_upgrade_there_is_an_ordinary_answer(server: RelayServer) -> None:
    bare = {"Authorization": ""}
    assert server.http.get("ws", headers=bare).status_code == 401
    assert server.http.get("ws").status_code == 400
    outdated = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "a", "Sec-WebSocket-Version": "8"}
    assert server.http.get("ws", headers=outdated).status_code == 426
    assert server.http.post("ws").status_code == 404
    assert server.http.get("events").status_code == 200, "the connection goes on"


async def test_the_token_is_in_no_log(server: RelayServer) -> None:
    async with connected(server, path="/a"):
        pass
    assert f"GET {ROUTE}?path=/a 101" in server.requests()
    assert server.token not in server.access_log.read_text() + server.stderr()


def opened(wire: Wire, query: str = "from=now") -> None:
    wire.send(f"GET {ROUTE}?{query}", b"", *UPGRADE)
    assert b" 101 " in wire.socket.recv(4096)


def test_frames_may_follow_the_handshake_at_once(server: RelayServer) -> None:
    ping = bytes([0x89, 0x80, 0, 0, 0, 0])
    with Wire(server) as wire:
        head = [f"GET {ROUTE}?token={server.token} HTTP/1.1", "Host: x", *UPGRADE, "", ""]
        wire.socket.sendall("\r\n".join(head).encode() + ping)
        received = b""
        while b"\x8a\x00" not in received:
            received += wire.socket.recv(4096)
        assert b" 101 " in received


@pytest.mark.parametrize("broken", [b"\x83\x80\x00\x00\x00\x00", b"\x81\x01x", b"\xff" * 20])
def test_what_is_no_frame_ends_the_socket(server: RelayServer, broken: bytes) -> None:
    with Wire(server) as wire:
        opened(wire)
        wire.socket.sendall(broken)
        assert b"\x03\xea" in wire.until_closed(), "1002, a protocol error"


def test_a_message_without_end_is_refused(server: RelayServer) -> None:
    with Wire(server) as wire:
        opened(wire)
        wire.socket.sendall(b"\x81\xff" + (1 << 40).to_bytes(8) + bytes(4) + b"x" * 100_000)
        assert b"\x03\xf1" in wire.until_closed(), "1009, too big"


async def test_a_slow_reader_costs_the_others_nothing_and_overflows(server: RelayServer) -> None:
    def write(number: int) -> None:
        """First what fills the buffers of a socket that is not read, then more events than may wait."""
        if number < 6:
            server.put("/slow", "x" * (1 << 20))
        else:
            server.put_many({f"/slow/{number}/{file}": "" for file in range(500)})

    async with connected(server, **NOW) as quick:
        with Wire(server) as slow:
            opened(slow)
            for number in range(16):
                await trio.to_thread.run_sync(write, number)
                await told(quick, 1 if number < 6 else 500)
            received = await trio.to_thread.run_sync(slow.until_closed)
        assert received.endswith(b"\x03\xf5event stream overflow; reconnect from cursor"), received[-80:]
        assert received.count(b'"eventId"') < 4096
        await nothing_else(quick)


async def test_an_overflow_is_no_matter_of_catch_up(server: RelayServer) -> None:
    start = head(server)
    server.put_many({f"/many/{number}": "" for number in range(4200)})
    async with connected(server, cursor=start) as socket:
        assert len(await told(socket, 4200)) == 4200
        await nothing_else(socket)


@pytest.mark.parametrize("rule", ["refuse", "drop", "503"])
async def test_a_standing_rule_cuts_open_feeds(server: RelayServer, rule: str) -> None:
    async with connected(server, **NOW) as socket:
        server.rules(f"EVENTS / {rule}\n")
        with pytest.raises(ConnectionClosed) as caught:
            await socket.get_message()
        assert caught.value.reason is not None
        assert caught.value.reason.code == 1006


async def test_a_rule_that_counts_concerns_requests_alone(server: RelayServer) -> None:
    async with connected(server, **NOW) as socket:
        server.rules("EVENTS / 503 times=1\n")
        server.put("/counted", "x")
        assert await paths(socket, 1) == ["/counted"]
        assert asked(server, server.token).status_code == 503
        async with connected(server):
            pass


async def test_a_feed_that_hangs_is_silent_and_loses_nothing(server: RelayServer) -> None:
    async with connected(server, **NOW) as socket:
        server.rules("EVENTS / hang\n")
        await trio.sleep(0.3)  # the look at the rules is not to be seen from outside
        server.put("/withheld", "x")
        with trio.move_on_after(0.3) as silence:
            await socket.ping()
        assert silence.cancelled_caught
        server.rules("")
        assert await paths(socket, 1) == ["/withheld"]


@pytest.mark.parametrize("rule", ["refuse", "drop"])
def test_a_refused_handshake_gets_not_one_byte(server: RelayServer, rule: str) -> None:
    server.rules(f"EVENTS / {rule}\n")
    with Wire(server) as wire:
        wire.send(f"GET {ROUTE}", b"", *UPGRADE)
        assert wire.until_closed() == b""


async def test_the_end_of_the_server_is_said_and_not_held_up(tmp_path: Path) -> None:
    with serving(tmp_path / "ending") as server:
        async with connected(server, **NOW) as socket:
            with Wire(server) as deaf:
                opened(deaf)
                began = time.monotonic()
                server.process.send_signal(signal.SIGTERM)
                with pytest.raises(ConnectionClosed) as caught:
                    await socket.get_message()
                assert caught.value.reason is not None
                assert caught.value.reason.code == 1001
                assert await trio.to_thread.run_sync(server.process.wait, 10) == 0
                assert time.monotonic() - began < 2
