"""Section 14: GET /fs/ws."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
import trio
import trio_websocket
from trio_websocket import ConnectionClosed, WebSocketConnection

from tests.conformance.conftest import Launch
from tests.conformance.target import Json, Target

pytestmark = pytest.mark.section(14)
NOW: dict[str, Any] = {"from": "now"}
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@asynccontextmanager
async def connected(relay: Target, token: str | None = None, **query: Any) -> AsyncIterator[WebSocketConnection]:
    """A feed, for thirty seconds at most."""
    asked = urlencode({"token": relay.token if token is None else token, **query}, doseq=True)
    target = f"/v1/workspaces/{quote(relay.workspace, safe='')}/fs/ws?{asked}"
    origin = urlsplit(relay.origin)
    secure = origin.scheme == "https"
    host, port = origin.hostname or "", origin.port or (443 if secure else 80)
    with trio.fail_after(30):
        stream = await (trio.open_ssl_over_tcp_stream if secure else trio.open_tcp_stream)(host, port)
        async with stream, trio.open_nursery() as nursery:
            yield await trio_websocket.wrap_client_stream(
                nursery, stream, origin.netloc, target, receive_buffer_size=1 << 16, max_message_size=16 << 20
            )
            nursery.cancel_scope.cancel()


async def told(relay: Target, socket: WebSocketConnection, count: int) -> list[Json]:
    """The next messages about files in the test's own directory."""
    found: list[Json] = []
    while len(found) < count:
        message = json.loads(await socket.get_message())
        if message["type"].startswith("file.") and message["path"].startswith(relay.place + "/"):
            found.append(message)
    return found


async def names(relay: Target, socket: WebSocketConnection, count: int) -> list[str]:
    return [message["path"].removeprefix(relay.place + "/") for message in await told(relay, socket, count)]


async def test_a_change_is_told_with_its_content(relay: Target) -> None:
    async with connected(relay, **NOW) as socket:
        revision = relay.written(relay.at("a"), "héllo")
        deleted = relay.delete(relay.at("a")).json()["targetRevision"]
        created, gone = await told(relay, socket, 2)
    assert (created["type"], created["revision"], created["eventId"] != "") == ("file.created", revision, True)
    assert created["contentHash"] == hashlib.sha256("héllo".encode()).hexdigest()
    if created.get("inlineContent"):
        assert (created["content"], created["contentType"]) == ("héllo", "text/plain")
    assert (gone["type"], gone["revision"]) == ("file.deleted", deleted)
    assert "inlineContent" not in gone


async def test_an_empty_file_is_inline_without_content(relay: Target) -> None:
    async with connected(relay, **NOW) as socket:
        relay.written(relay.at("a"), "")
        (event,) = await told(relay, socket, 1)
    assert event["inlineContent"] is True
    assert "content" not in event


async def test_content_that_is_no_longer_current_stays_out(relay: Target) -> None:
    head = relay.head()
    relay.written(relay.at("a"), "1")
    relay.written(relay.at("a"), "2")
    async with connected(relay, cursor=head) as socket:
        old, new = await told(relay, socket, 2)
    assert ("inlineContent" in old, new.get("content")) == (False, "2")


async def test_catch_up_goes_on_into_what_happens_now(relay: Target) -> None:
    head = relay.head()
    for name in "abc":
        relay.written(relay.at(name))
    async with connected(relay, cursor=head, **NOW) as socket:
        relay.written(relay.at("d"))
        assert await names(relay, socket, 4) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("query", [NOW, {"cursor": "evt_999999999"}, {"cursor": "nonsense"}])
async def test_now_and_an_unknown_cursor_begin_with_what_comes(relay: Target, query: dict[str, Any]) -> None:
    relay.written(relay.at("old"))
    async with connected(relay, **query) as socket:
        relay.written(relay.at("new"))
        assert await names(relay, socket, 1) == ["new"]


async def test_without_a_beginning_the_latest_are_told(relay: Target) -> None:
    for name in "abc":
        relay.written(relay.at(name))
    async with connected(relay) as socket:
        assert await names(relay, socket, 3) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [(["g/**"], ["g/a", "g/b/c"]), (["g/*"], ["g/a"]), (["*/a"], ["g/a", "h/a"]), (["h/a", "g/b/c"], ["g/b/c", "h/a"])],
)
async def test_filters(relay: Target, filters: list[str], wanted: list[str]) -> None:
    head = relay.head()
    for name in ("g/a", "g/b/c", "h/a", "gg"):
        relay.written(relay.at(name))
    async with connected(relay, cursor=head, path=[relay.at(filter_) for filter_ in filters]) as socket:
        assert await names(relay, socket, len(wanted)) == wanted


async def test_pings_of_both_kinds_are_answered(relay: Target) -> None:
    async with connected(relay, **NOW) as socket:
        await socket.ping()
        await socket.send_message('{"type":"ping"}')
        while (message := json.loads(await socket.get_message()))["type"] != "pong":
            pass
    assert message["timestamp"]


def test_errors_before_the_upgrade_are_ordinary_answers(relay: Target) -> None:
    answer = relay.call("GET", "fs/ws", token="", headers={**UPGRADE, "X-Correlation-Id": ""})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


@pytest.mark.parametrize(
    ("scopes", "filters", "status"),
    [
        (["fs:write"], [], 403),
        (["fs:read", "relayfile:fs:read:/mine/**"], [], 403),
        (["fs:read", "relayfile:fs:read:/mine/**"], ["/mine/**", "/other/**"], 403),
        (["fs:read", "relayfile:fs:read:/mine/**"], ["/**"], 403),
    ],
)
def test_every_filter_lies_inside_the_grant(
    relay: Target, signing: Callable[..., str], scopes: list[str], filters: list[str], status: int
) -> None:
    answer = relay.call("GET", "fs/ws", token=signing(scopes=scopes), headers=UPGRADE, path=filters)
    assert answer.status_code == status


async def test_a_narrow_token_follows_what_it_may_read(relay: Target, signing: Callable[..., str]) -> None:
    token = signing(scopes=["fs:read", f"relayfile:fs:read:{relay.place}/mine/**"])
    async with connected(relay, token, path=[relay.at("mine/**")], **NOW) as socket:
        relay.written(relay.at("other"))
        relay.written(relay.at("mine/a"))
        assert await names(relay, socket, 1) == ["mine/a"]


async def test_an_overflow_is_closed_with_1013_and_the_cursor_goes_on(launch: Launch) -> None:
    relay = launch(body_cap=4 << 20)
    relay.written(relay.at("first"))
    head = relay.head()
    async with connected(relay, **NOW) as socket:
        files = [{"path": relay.at(str(number)), "content": ""} for number in range(4097)]
        assert relay.call("POST", "fs/bulk", body={"files": files}).json()["errorCount"] == 0
        with pytest.raises(ConnectionClosed) as caught:
            await told(relay, socket, 4097)
    assert caught.value.reason is not None
    assert (caught.value.reason.code, caught.value.reason.reason) == (
        1013, "event stream overflow; reconnect from cursor",
    )  # fmt: skip
    async with connected(relay, cursor=head) as socket:
        assert await names(relay, socket, 4097) == [str(number) for number in range(4097)]
