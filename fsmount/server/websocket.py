"""One WebSocket on the server's side: frames by wsproto (RFC 6455) on the stream that HTTP gave away.

Invariant: frames go out whole and one after another; after a frame that was cut off by a cancellation nothing more is
sent.
"""

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    TextMessage,
)
from wsproto.utilities import RemoteProtocolError

from fsmount.server.messages import Rejected, Request
from fsmount.server.stream import CLOSED, SLICE, Gone, send_all

LONGEST = 65_536
"""Characters of one message of a client."""
TOO_BIG = 1009


def handshake(request: Request) -> tuple[WSConnection, bytes]:
    """The protocol after a good opening handshake, and the bytes that accept it. Raises Rejected (400, 426)."""
    frames = WSConnection(ConnectionType.SERVER)
    headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in request.headers.items()]
    try:
        frames.initiate_upgrade_connection(headers, request.path)
    except RemoteProtocolError as error:
        hint = error.event_hint
        status = hint.status_code if isinstance(hint, RejectConnection) and hint.status_code else 400
        raise Rejected(status, "bad_request", f"no WebSocket handshake: {error}") from error
    next(frames.events())
    return frames, frames.send(AcceptConnection())


class Socket:
    """Text messages over one stream. One task may receive while others send."""

    def __init__(self, stream: trio.abc.Stream, frames: WSConnection) -> None:
        self._stream = stream
        self._frames = frames
        self._sending = trio.Lock()
        self._torn = False
        self._message = ""
        self.mute = False
        """While it is set nothing is answered, not even a ping: a connection that looks dead."""

    async def greet(self, accepted: bytes, trailing: bytes) -> None:
        """Send what accepts the handshake; `trailing` is what the client has said since. Raises Gone."""
        await self._write(accepted)
        if trailing:
            self._frames.receive_data(trailing)

    async def send(self, *texts: str) -> None:
        """A text message each, at one go. Raises Gone. A checkpoint."""
        async with self._sending:
            await self._say(*(TextMessage(data=text) for text in texts))

    async def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake unless it has begun; quiet where the client is gone. A checkpoint."""
        async with self._sending:
            if self._frames.state is ConnectionState.OPEN and not self._torn:
                await self._say(CloseConnection(code=code, reason=reason))

    async def receive(self) -> str | None:
        """The next message; None when the client has closed or gone. Answers pings meanwhile. A checkpoint."""
        while True:
            for event in self._frames.events():
                if isinstance(event, CloseConnection):
                    await self._close_as_asked(event)
                    return None
                if isinstance(event, Ping) and not self.mute:
                    await self._answer(event.response())
                if isinstance(event, TextMessage | BytesMessage) and self._is_whole(event):
                    message, self._message = self._message, ""
                    return message
            if len(self._message) > LONGEST:
                await self.close(TOO_BIG, f"a message is at most {LONGEST} characters")
                return None
            if not await self._read():
                return None

    def _is_whole(self, event: TextMessage | BytesMessage) -> bool:
        """Takes a piece of a message; of one in binary, nothing."""
        if isinstance(event, TextMessage):
            self._message += event.data
        return event.message_finished

    async def _read(self) -> bool:
        try:
            received = await self._stream.receive_some(SLICE)
        except CLOSED:
            return False
        if received:
            self._frames.receive_data(bytes(received))
        return bool(received)

    async def _close_as_asked(self, event: CloseConnection) -> None:
        """Answers the client's close, or closes because what it sent was no frame."""
        if self._frames.state in {ConnectionState.REMOTE_CLOSING, ConnectionState.OPEN}:
            await self._answer(event.response())

    async def _answer(self, event: Event) -> None:
        async with self._sending:
            await self._say(event)

    async def _say(self, *events: Event) -> None:
        if self._torn or self._frames.state not in {ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING}:
            raise Gone
        await self._write(b"".join(self._frames.send(event) for event in events))

    async def _write(self, content: bytes) -> None:
        self._torn = True
        try:
            await send_all(self._stream, content)
        except CLOSED as error:
            raise Gone from error
        self._torn = False
