"""The live feed without sockets: changes at every moment of its way to sleep."""

from __future__ import annotations

import trio
import trio.testing

from fsmount.server.feed import Live
from fsmount.server.messages import Request
from fsmount.server.rules import Rules
from tests.unit.server.conftest import Caller

HANDSHAKE = {
    "host": "x", "connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}  # fmt: skip
MOMENTS = 12
"""Checkpoints after an event was told, within which the feed has gone to sleep."""


async def test_a_change_while_the_feed_goes_to_sleep_is_told_as_well(call: Caller) -> None:
    live = Live(call.store, Rules(None, print))
    accepted = live.accept(Request(method="GET", path="/", query={"from": "now"}, headers=HANDSHAKE), "local")
    client, server = trio.testing.memory_stream_pair()
    assert accepted.switch is not None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accepted.switch, server, b"")
        for moment in range(MOMENTS):
            call.put(f"/first/{moment}")
            await told(client, f"/first/{moment}")
            for _ in range(moment):
                await trio.lowlevel.checkpoint()
            call.put(f"/second/{moment}")
            await told(client, f"/second/{moment}")
        nursery.cancel_scope.cancel()


async def told(client: trio.abc.ReceiveStream, path: str) -> None:
    """Returns when the event has come; no other change may be needed for it."""
    heard = b""
    with trio.fail_after(5):
        while f'"{path}"'.encode() not in heard:
            heard += await client.receive_some()
