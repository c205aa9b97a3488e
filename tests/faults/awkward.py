"""Servers that answer so that a careless client waits, or fills its memory, for ever."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

PIECE = b"x" * 65_536
JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


def silent(_: socket.socket, over: threading.Event) -> None:
    """Takes the request and says nothing."""
    over.wait()


def trickle(peer: socket.socket, over: threading.Event) -> None:
    """A byte a second."""
    peer.sendall(JSON + b"content-length: 100000\r\n\r\n")
    while not over.wait(1.0):
        peer.sendall(b" ")


def half(peer: socket.socket, over: threading.Event) -> None:
    """Half of what it announced, and then nothing."""
    peer.sendall(JSON + b'content-length: 1000\r\n\r\n{"entries": [')
    over.wait()


def headers(peer: socket.socket, over: threading.Event) -> None:
    """Headers without end."""
    peer.sendall(b"HTTP/1.1 200 OK\r\n")
    while not over.is_set():
        peer.sendall(b"x-more: " + PIECE[:4000] + b"\r\n")


def document(peer: socket.socket, over: threading.Event) -> None:
    """A JSON document without end."""
    peer.sendall(JSON + b'transfer-encoding: chunked\r\n\r\nc\r\n{"entries":"\r\n')
    while not over.is_set():
        peer.sendall(b"%x\r\n%s\r\n" % (len(PIECE), PIECE))


def circle(peer: socket.socket, _: threading.Event) -> None:
    """Sends the client on to where it is."""
    peer.sendall(
        b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /again\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )


BEHAVIOURS: dict[str, Callable[[socket.socket, threading.Event], None]] = {
    each.__name__: each for each in (silent, trickle, half, headers, document, circle)
}


@contextlib.contextmanager
def serving(port: int, behave: Callable[[socket.socket, threading.Event], None]) -> Iterator[None]:
    """Such a server on a port of this machine; every connection has a thread."""
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", port), reuse_port=False)

    def answer(peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            peer.settimeout(20)
            while not over.is_set() and peer.recv(65_536):
                behave(peer, over)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listener.accept()
                threading.Thread(target=answer, args=(peer,), daemon=True).start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield
    finally:
        over.set()
        # close(2) alone does not wake who waits in accept(2).
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join(5)
