"""A body may take long, as long as it moves."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path

import pytest
import trio

from fsmount.config import Credentials
from fsmount.remote.credentials import TokenSource
from fsmount.remote.http import Call, Client
from fsmount.remote.pieces import PIECE, SLOWEST, SMALLEST, size_within
from tests.support.notes import Notes
from tests.support.raw import response
from tests.support.uploads import Bytes

BODY = bytes(2 * 1024 * 1024)
RATE = 1024 * 1024
"""Bytes a second that the server takes: the body needs two timeouts."""


async def slow(stream: trio.SocketStream) -> None:
    """Takes one request at ``RATE``, and answers with how it was announced."""
    head, _, begun = (await stream.receive_some(64 * 1024)).partition(b"\r\n\r\n")
    left = len(BODY) - len(begun)
    while left > 0:
        left -= len(await stream.receive_some(RATE // 50))
        await trio.sleep(1 / 50)
    await stream.send_all(response(202, head))


async def test_a_body_that_takes_longer_than_the_timeout_arrives_as_long_as_it_moves(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("t")
    tokens = TokenSource(Credentials(token_file=tmp_path / "token"), warn=lambda _: None)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    nursery.start_soon(partial(trio.serve_listeners, slow, [listener]))
    client = Client(f"http://127.0.0.1:{listener.socket.getsockname()[1]}", tokens, timeout=1.0, log=Notes())

    async def send(call: Call) -> None:
        answer = await client.request(call)
        assert answer.status == 202
        assert f"content-length: {len(BODY)}".encode() in answer.body.lower()
        assert b"chunked" not in answer.body.lower()

    with trio.fail_after(30):
        async with trio.open_nursery() as sending:
            sending.start_soon(send, Call(method="PUT", target="/json", content=BODY))
            sending.start_soon(send, Call(method="PUT", target="/raw", source=Bytes(BODY)))
    await client.aclose()


@pytest.mark.parametrize("timeout", [1.0, 30.0, 60.0])
def test_at_the_slowest_pace_a_piece_takes_half_the_timeout(timeout: float) -> None:
    assert size_within(timeout) / SLOWEST <= timeout / 2
    assert SMALLEST <= size_within(timeout) <= PIECE
    assert size_within(0.001) == SMALLEST
