"""One connection in virtual time: how long the server waits, and what an internal error becomes."""

import logging

import h11
import pytest
import trio
import trio.testing

from fsmount.server.connection import IDLE, Connection
from fsmount.server.messages import Request
from fsmount.server.stream import STALLED
from tests.unit.server.conftest import Caller


class Talk:
    """A connection served in the background, and the client's end of it."""

    def __init__(self, call: Caller, nursery: trio.Nursery) -> None:
        self.client, server = trio.testing.memory_stream_pair()
        self.logged: list[tuple[str, int | None]] = []
        nursery.start_soon(Connection(server, call.site, body_cap=4096, log=self._log).serve)

    def _log(self, request: Request, status: int | None) -> None:
        self.logged.append((request.path, status))

    async def until_closed(self) -> bytes:
        received = b""
        while chunk := await self.client.receive_some(65536):
            received += chunk
        return received


@pytest.mark.parametrize(
    ("sent", "patience"),
    [
        (b"", IDLE),
        (b"GET /health HTTP/1.1\r\n", IDLE),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na", STALLED),
    ],
)
async def test_a_silent_client_is_left(
    call: Caller, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, sent: bytes, patience: float
) -> None:
    talk = Talk(call, nursery)
    await talk.client.send_all(sent)
    assert await talk.until_closed() == b""
    assert trio.current_time() == pytest.approx(patience)
    assert talk.logged == []


async def test_a_kept_connection_is_left_after_the_same_time(
    call: Caller, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    talk = Talk(call, nursery)
    await talk.client.send_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await talk.until_closed()).startswith(b"HTTP/1.1 200")
    assert trio.current_time() == pytest.approx(IDLE)


async def test_a_slow_answer_takes_its_time(
    call: Caller, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    call.put("/a", "x" * 1000)
    length = len(call.site.receive(file_request(call)).perform().body)
    call.rules_file.write_text("GET /a delay=1m slow=10/s")
    talk = Talk(call, nursery)
    with trio.fail_after(3600):
        await talk.client.send_all(on_the_wire(file_request(call)))
        assert (await talk.until_closed()).endswith(b'"semantics":{}}')
    assert trio.current_time() == pytest.approx(60 + length / 10, abs=2)


async def test_hang_waits_as_long_as_the_client(
    call: Caller, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    call.rules_file.write_text("GET /a hang")
    talk = Talk(call, nursery)
    await talk.client.send_all(on_the_wire(file_request(call)))
    with trio.move_on_after(86_400) as day:
        await talk.client.receive_some(1)
    assert day.cancelled_caught
    await talk.client.send_eof()
    assert await talk.until_closed() == b""
    assert [status for _, status in talk.logged] == [None]


async def test_an_internal_error_ends_one_request(
    call: Caller, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    call.store.close()
    talk = Talk(call, nursery)
    await talk.client.send_all(on_the_wire(file_request(call)))
    received = await talk.until_closed()
    assert received.startswith(b"HTTP/1.1 500 Internal Server Error")
    assert b'"code":"internal_error"' in received
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert not record.exc_info
    assert "GET /v1/workspaces/local/fs/file" in record.getMessage()
    assert call.token not in record.getMessage()


def file_request(call: Caller) -> Request:
    return Request(
        method="GET",
        path="/v1/workspaces/local/fs/file",
        query={"path": "/a"},
        headers={"authorization": f"Bearer {call.token}", "x-correlation-id": "x", "host": "x", "connection": "close"},
    )


def on_the_wire(request: Request) -> bytes:
    target = f"{request.path}?path={request.query['path']}"
    sent = h11.Connection(h11.CLIENT).send(
        h11.Request(method=request.method, target=target, headers=list(request.headers.items()))
    )
    assert sent is not None
    return sent
