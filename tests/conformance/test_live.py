"""Section 14: the WebSocket /fs/ws, by a client that is not ours."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
import trio
import trio_websocket
from trio_websocket import WebSocketConnection

from tests.conformance.target import Json, Target

pytestmark = pytest.mark.section(14)
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@asynccontextmanager
async def feed(relay: Target, **query: Any) -> AsyncIterator[WebSocketConnection]:
    """An open socket; by default nothing of the past is told."""
    asked = urlencode({"token": relay.token, "from": "now", **query}, doseq=True)
    url = urlsplit(relay.origin)
    at = f"{'wss' if url.scheme == 'https' else 'ws'}://{url.netloc}/v1/workspaces/{quote(relay.workspace, safe='')}"
    with trio.fail_after(30):
        async with trio_websocket.open_websocket_url(f"{at}/fs/ws?{asked}", max_message_size=16 << 20) as socket:
            yield socket


async def told(socket: WebSocketConnection, relay: Target, count: int) -> list[Json]:
    """The next `count` messages about changes of the test's own files."""
    found: list[Json] = []
    while len(found) < count:
        message = json.loads(await socket.get_message())
        if message.get("path", "").startswith(relay.place + "/") and message["type"].startswith("file."):
            found.append(message)
    return found


async def told_until_the_end(socket: WebSocketConnection, relay: Target) -> list[str]:
    """The names that are told of before one that is written now: events keep their order."""
    relay.written(relay.at("end"))
    names: list[str] = []
    while (name := (await told(socket, relay, 1))[0]["path"][len(relay.place) + 1 :]) != "end":
        names.append(name)
    return names


async def test_a_ping_is_answered(relay: Target) -> None:
    async with feed(relay) as socket:
        await socket.send_message('{"type":"ping"}')
        while (message := json.loads(await socket.get_message()))["type"] != "pong":
            pass
        assert message["timestamp"]


async def test_a_change_is_told_as_the_log_has_it_with_its_content(relay: Target) -> None:
    async with feed(relay) as socket:
        head = relay.head()
        relay.written(relay.at("a"), "grün <&>")
        relay.written(relay.at("b"), "AAE=", encoding="base64")
        relay.written(relay.at("empty"), "")
        relay.delete(relay.at("a"))
        messages = await told(socket, relay, 4)
    logged = [event for event in relay.since(head) if event["type"].startswith("file.")]
    for message, event in zip(messages, logged, strict=True):
        assert {name: message[name] for name in event if name in message} == {
            name: value for name, value in event.items() if name in message
        }
    _, binary, empty, deleted = messages
    assert (binary["content"], binary["encoding"], binary["inlineContent"]) == ("AAE=", "base64", True)
    assert (empty["inlineContent"], "content" in empty) == (True, False)
    assert not deleted.get("inlineContent")


async def test_content_goes_along_while_it_is_current(relay: Target) -> None:
    head = relay.head()
    relay.written(relay.at("a"), "old")
    relay.written(relay.at("a"), "new")
    async with feed(relay, cursor=head) as socket:
        old, new = await told(socket, relay, 2)
    assert (old.get("inlineContent", False), new["content"]) == (False, "new")


async def test_a_cursor_is_caught_up_with_and_wins_over_from(relay: Target) -> None:
    relay.written(relay.at("before"))
    head = relay.head()
    for name in ("a", "b"):
        relay.written(relay.at(name))
    async with feed(relay, cursor=head) as socket:
        relay.written(relay.at("c"))
        messages = await told(socket, relay, 3)
    assert [message["path"] for message in messages] == [relay.at(name) for name in "abc"]
    assert len({message["eventId"] for message in messages}) == 3


async def test_from_now_tells_nothing_of_the_past(relay: Target) -> None:
    relay.written(relay.at("before"))
    async with feed(relay) as socket:
        assert await told_until_the_end(socket, relay) == []


async def test_an_unknown_cursor_is_caught_up_with_nothing(relay: Target) -> None:
    relay.written(relay.at("before"))
    async with feed(relay, cursor="evt_999999999999") as socket:
        assert await told_until_the_end(socket, relay) == []


async def test_without_from_and_cursor_the_last_hundred_are_told(relay: Target) -> None:
    relay.bulk(*({"path": relay.at(f"{number:03}"), "content": ""} for number in range(150)))
    events = relay.call("GET", "fs/events", direction="desc", limit=100).json()["events"]
    async with feed(relay, **{"from": ""}) as socket:
        first = json.loads(await socket.get_message())
    assert first["eventId"] == events[-1]["eventId"]


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (["{}/d/**"], ["d/a", "d/e/b"]),
        (["{}/d/*"], ["d/a"]),
        (["{}/*/e/b"], ["d/e/b"]),
        (["{}/c", "{}/d/a"], ["d/a", "c"]),
        (["{}/d"], []),
    ],
)
async def test_filters_go_segment_by_segment(relay: Target, filters: list[str], names: list[str]) -> None:
    async with feed(relay, path=[relay.at("end"), *(text.format(relay.place) for text in filters)]) as socket:
        for name in ("d/a", "d/e/b", "c"):
            relay.written(relay.at(name))
        assert await told_until_the_end(socket, relay) == names


def refused(relay: Target, status: int, code: str, **query: Any) -> None:
    route = f"/v1/workspaces/{quote(relay.workspace, safe='')}/fs/ws"
    relay.refuses(relay.http.get(route, headers=HANDSHAKE, params=query), status, code)


def test_errors_before_the_upgrade_are_ordinary_ones(relay: Target) -> None:
    refused(relay, 401, "unauthorized", token="nonsense")
    refused(relay, 401, "unauthorized")


def test_a_scoped_token_needs_filters_inside_its_grant(relay: Target, signing: Callable[..., str]) -> None:
    token = signing(scopes=[f"relayfile:fs:read:{relay.place}/**"])
    refused(relay, 403, "forbidden", token=token)
    refused(relay, 403, "forbidden", token=token, path=["/elsewhere/**", relay.at("d/**")])


async def test_a_scoped_token_may_listen_inside_its_grant(relay: Target, signing: Callable[..., str]) -> None:
    token = signing(scopes=[f"relayfile:fs:read:{relay.place}/**"])
    async with feed(relay, token=token, path=f"{relay.place}/**") as socket:
        relay.written(relay.at("d/a"))
        (message,) = await told(socket, relay, 1)
    assert message["path"] == relay.at("d/a")


async def test_rules_do_not_keep_events_back(relay: Target, signing: Callable[..., str]) -> None:
    async with feed(relay, token=signing(sub="alice")) as socket:
        relay.written(relay.at("a"), "shown", semantics={"permissions": ["agent:bob"]})
        (message,) = await told(socket, relay, 1)
    assert message["content"] == "shown"
