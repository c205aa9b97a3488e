"""The live feed on real sockets: by a client that is not ours, and by one that misbehaves."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import pytest
import trio
import trio_websocket
from trio_websocket import WebSocketConnection

from tests.support.server import RelayServer, serving

ROUTE = "/v1/workspaces/local/fs/ws"
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
async def connected(server: RelayServer, token: str | None = None, **query: Any) -> AsyncIterator[WebSocketConnection]:
    """A feed opened by trio-websocket; must do what the test wants within seconds."""
    asked = urlencode({"token": server.token if token is None else token, **query}, doseq=True)
    with trio.fail_after(20):
        async with trio_websocket.open_websocket(
            "127.0.0.1", server.port, f"{ROUTE}?{asked}", use_ssl=False, max_message_size=16 << 20
        ) as socket:
            yield socket


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
    async with connected(server, **{"from": "now"}) as socket:
        revision = server.put("/github/a", "héllo")
        (event,) = await told(socket)
    stored = server.file("/github/a")
    assert stored is not None
    assert event == {
        "eventId": head(server), "type": "file.created", "path": "/github/a", "revision": revision,
        "contentHash": stored.content_hash, "contentType": "text/plain", "content": "héllo", "inlineContent": True,
        "origin": "agent_write", "provider": "github", "correlationId": "test", "timestamp": event["timestamp"],
    }  # fmt: skip
