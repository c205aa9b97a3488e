"""A server that answers each request with bytes of the test's choice, for answers that no sound server gives."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import h11
import trio
from msgspec import Struct

Script = Callable[["Asked", trio.SocketStream], Awaitable[None]]


class Asked(Struct, frozen=True):
    """One request as it arrived; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class RawServer:
    """``script`` answers every request; afterwards the connection is closed. ``asked`` lists what came."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self.origin = ""

    async def serve(self, stream: trio.SocketStream) -> None:
        try:
            request = await _request(stream)
            self.asked.append(request)
            await self.script(request, stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            pass  # the client has had enough: that is often the point
        finally:
            with trio.move_on_after(0.1, shield=True):
                await stream.aclose()


async def _request(stream: trio.SocketStream) -> Asked:
    connection = h11.Connection(h11.SERVER)
    head, body = None, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some())
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            break
        else:
            raise trio.BrokenResourceError
    assert head is not None
    headers = {name.decode(): value.decode() for name, value in head.headers}
    return Asked(head.method.decode(), head.target.decode(), headers, bytes(body))


@asynccontextmanager
async def raw_server(script: Script) -> AsyncIterator[RawServer]:
    """A running server; ends with its connections, whatever they wait for."""
    server = RawServer(script)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, server.serve, 0, host="127.0.0.1"))
        server.origin = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        yield server
        nursery.cancel_scope.cancel()


def response(status: int, body: object = b"", **headers: str) -> bytes:
    """A whole HTTP answer; a body that is not bytes is sent as JSON. ``retry_after`` names ``retry-after``."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"content-type": "application/json", "content-length": str(len(content))}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Odd\r\n{head}\r\n".encode() + content


def always(*answers: bytes) -> Script:
    """The n-th request gets the n-th answer; the last one stays."""
    waiting = list(answers)

    async def script(asked: Asked, stream: trio.SocketStream) -> None:
        await stream.send_all(waiting.pop(0) if len(waiting) > 1 else waiting[0])

    return script


def routed(routes: dict[str, bytes]) -> Script:
    """The first route whose ``METHOD /part/of/the/target`` fits answers; 404 otherwise."""

    async def script(asked: Asked, stream: trio.SocketStream) -> None:
        for route, answer in routes.items():
            method, _, part = route.partition(" ")
            if asked.method == method and part in asked.target:
                await stream.send_all(answer)
                return
        await stream.send_all(response(404, {"code": "not_found", "message": "no route"}))

    return script
