"""One client's connection: HTTP/1.1 by h11 on a trio stream, and the manners that spoil an answer.

Invariant: a request that is refused or dropped, or that hangs, puts not one byte on the wire. (A
framework would answer 500 in its place, and a test of a lost answer would show nothing.)
"""

import logging
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import parse_qsl, urlsplit

import h11
import msgspec
import trio

from fsmount.server.messages import Answer, Rejected, Request, rejection
from fsmount.server.rules import Ending, Manner
from fsmount.server.site import Exchange, Site
from fsmount.server.stream import CLOSED, SLICE, STALLED, Gone, send_all

IDLE = 120.0
LINGER = 1.0
MAX_HEAD = 65_536
PACE = 0.05

_log = logging.getLogger("fsmount.server")


class Connection:
    """Serves one stream until either side ends it. `log` gets each request before its answer is sent."""

    def __init__(
        self,
        stream: trio.abc.HalfCloseableStream,
        site: Site,
        *,
        body_cap: int,
        log: Callable[[Request, int | None], None],
    ) -> None:
        self._stream = stream
        self._site = site
        self._body_cap = body_cap
        self._log = log
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)

    async def serve(self) -> None:
        """Answer one request after another, quietly whatever the client does."""
        try:
            while await self._turn():
                self._http.start_next_cycle()
        except (Gone, *CLOSED):
            pass
        except Exception as error:  # noqa: BLE001  one connection's trouble must not end the others
            _complain("a connection", error)
        finally:
            await trio.aclose_forcefully(self._stream)

    async def _turn(self) -> bool:
        """One request; whether another may follow on this connection."""
        try:
            arrived = await self._arrived()
        except h11.RemoteProtocolError as error:
            await self._refuse_protocol(error)
            return False
        if arrived is None:
            return False
        request, exchange = arrived
        try:
            return await self._treat(request, exchange)
        finally:
            exchange.close()

    async def _treat(self, request: Request, exchange: Exchange) -> bool:
        manner = exchange.manner
        await trio.sleep(manner.delay)
        made = _performed(exchange, request) if manner.ending in {Ending.ANSWER, Ending.DROP} else None
        if made is None or manner.ending is Ending.DROP:
            if made is not None:
                made.close()
            self._log(request, None)
            if manner.ending is Ending.HANG:
                await self._outwait()
            return False
        self._log(request, made.status)
        if made.switch is not None:
            await made.switch(self._stream, bytes(self._http.trailing_data[0]))
            return False
        try:
            await self._send(made, manner, request.method)
        finally:
            made.close()
        if self._http.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            return True
        await self._part()
        return False

    async def _receive(self, request: Request) -> Exchange:
        await self._site.ready(request)
        try:
            return self._site.receive(request)
        except Exception as error:  # noqa: BLE001  whatever it is, it ends this request and not the server
            made = _internal(request, error)
            return Exchange(manner=Manner(), perform=lambda: made)

    async def _arrived(self) -> tuple[Request, Exchange] | None:
        """The next request, its body received, and what to do with it; None when there is none."""
        head = await self._event(IDLE)
        if not isinstance(head, h11.Request):
            return None
        request = _parsed(head)
        if self._site.streams(request):
            exchange = await self._receive(request)
            return (request, exchange) if await self._pour(exchange) else None
        whole = await self._whole(request)
        return None if whole is None else (whole, await self._receive(whole))

    async def _whole(self, request: Request) -> Request | None:
        """The request with its body. Bytes of it past the cap are let go."""
        body = bytearray()
        oversized = False
        while isinstance(event := await self._event(STALLED), h11.Data):
            oversized = oversized or len(body) + len(event.data) > self._body_cap
            if oversized:
                body.clear()
            else:
                body += event.data
        if not isinstance(event, h11.EndOfMessage):
            return None
        return msgspec.structs.replace(request, body=bytes(body), oversized=oversized)

    async def _pour(self, exchange: Exchange) -> bool:
        """Brings the body to the exchange's sink; False where it does not come to its end."""
        event: object = None
        try:
            while isinstance(event := await self._event(STALLED), h11.Data):
                if exchange.sink is not None:
                    exchange.sink.write(event.data)
        finally:
            if not isinstance(event, h11.EndOfMessage):
                exchange.close()
        return isinstance(event, h11.EndOfMessage)

    async def _event(self, patience: float) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                await self._write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))
            with trio.move_on_after(patience):
                self._http.receive_data(bytes(await self._stream.receive_some(SLICE)))
                continue
            raise Gone
        return event

    async def _send(self, made: Answer, manner: Manner, method: str) -> None:
        length = made.length
        headers = [("Date", formatdate(usegmt=True)), *made.headers, ("Content-Length", str(length))]
        if made.status in {204, 304}:
            length, headers = 0, headers[:1] if made.status == 204 else headers[:-1]
        if method == "HEAD":
            length = 0
        reason = HTTPStatus(made.status).phrase if made.status in set(HTTPStatus) else ""
        head = self._http.send(h11.Response(status_code=made.status, headers=headers, reason=reason.encode()))
        shown = length // 2 if manner.truncate else length
        # A small answer leaves in one piece, head and body.
        waiting = head or b""
        for piece in _first(made.pieces(), shown):
            content = self._http.send(h11.Data(data=piece)) or b""
            if manner.rate is None:
                await self._write(waiting + content)
            else:
                await self._write(waiting)
                await self._trickle(content, manner.rate)
            waiting = b""
        await self._write(waiting)
        if manner.truncate:
            # The length that was announced is not reached: the client must see a broken transfer.
            raise Gone
        await self._write(self._http.send(h11.EndOfMessage()))

    async def _trickle(self, content: bytes, rate: int) -> None:
        step = max(1, int(rate * PACE))
        for start in range(0, len(content), step):
            await self._write(content[start : start + step])
            await trio.sleep(step / rate)

    async def _write(self, content: bytes | None) -> None:
        await send_all(self._stream, content or b"")

    async def _outwait(self) -> None:
        """Until the client gives up."""
        while await self._stream.receive_some(SLICE):
            pass

    async def _refuse_protocol(self, error: h11.RemoteProtocolError) -> None:
        if self._http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        made = rejection(Rejected(error.error_status_hint, "bad_request", f"not HTTP: {error}"), "")
        closing = Answer(status=made.status, body=made.body, headers=(*made.headers, ("Connection", "close")))
        await self._send(closing, Manner(), "GET")
        await self._part()

    async def _part(self) -> None:
        """Close so that the client gets the answer even if it has more to say: a reset would take it back."""
        await self._stream.send_eof()
        with trio.move_on_after(LINGER):
            await self._outwait()


def _performed(exchange: Exchange, request: Request) -> Answer:
    try:
        return exchange.perform()
    except Exception as error:  # noqa: BLE001  whatever it is, it ends this request and not the server
        return _internal(request, error)


def _internal(request: Request, error: Exception) -> Answer:
    _complain(f"{request.method} {request.path}", error)
    rejected = Rejected(500, "internal_error", "internal error; the server's stderr says more")
    return rejection(rejected, request.headers.get("x-correlation-id", ""))


def _complain(where: str, error: Exception) -> None:
    _log.error("internal error at %s: %r", where, error, exc_info=_log.isEnabledFor(logging.DEBUG))


def _first(pieces: Iterator[bytes], length: int) -> Iterator[bytes]:
    """The first `length` bytes."""
    while length > 0 and (piece := next(pieces, b"")):
        yield piece[:length]
        length -= len(piece)


def _parsed(head: h11.Request) -> Request:
    target = head.target.decode("ascii")
    path, _, query = target.partition("?")
    try:
        if not target.startswith("/"):
            parts = urlsplit(target)
            path, query = parts.path, parts.query
        values = tuple(parse_qsl(query, keep_blank_values=True, errors="strict"))
    except ValueError as error:
        raise h11.RemoteProtocolError("the target is no URL with a query in UTF-8") from error
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
    return Request(
        method=head.method.decode("ascii"), path=path, query=dict(reversed(values)), values=values, headers=headers
    )
