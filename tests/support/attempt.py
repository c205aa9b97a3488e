"""One command line that has to be refused: what it said, how long it took, and what it left behind."""

from __future__ import annotations

import os
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fsmount.mounttable import mounts

DEADLINE = 20.0
"""Seconds after which the command counts as hung."""
PATIENCE = 3.0
"""Seconds beyond ``--timeout`` that a command may take here, where other tests run too."""


class Attempt:
    """A folder with homes of its own, an empty mount point ``m``, and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.point = folder / "m"
        self.point.mkdir()
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("FSMOUNT_")}
        for kind in ("STATE", "CACHE", "CONFIG"):
            home = folder / f"xdg-{kind.lower()}"
            home.mkdir()
            self.environment[f"XDG_{kind}_HOME"] = str(home)

    def run(
        self, *argv: str | bytes, before: Sequence[str] = (), **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        """``fsmount ARGV`` here; ``before`` stands before it, such as ``unshare -m``."""
        return subprocess.run(
            [*before, sys.executable, "-m", "fsmount", *argv], cwd=self.folder, stdin=subprocess.DEVNULL,
            capture_output=True, check=False, timeout=DEADLINE, env={**self.environment, **environment},
        )  # fmt: skip

    def refused(
        self,
        *argv: str | bytes,
        code: int,
        says: str | Sequence[str],
        within: float = 10.0,
        before: Sequence[str] = (),
        **environment: str,
    ) -> str:
        """It fails so, says why and what to do, in time, and leaves all as it was; what it said."""
        left, began = self.left(), time.monotonic()
        done = self.run(*argv, before=before, **environment)
        took = time.monotonic() - began
        said = done.stderr.decode()
        assert done.returncode == code, said
        assert done.stdout == b"", done.stdout
        for words in [says] if isinstance(says, str) else says:
            assert words in said, said
        check_shown(said)
        assert took < within + PATIENCE, said
        assert self.left() == left, said
        assert not [line for line in mounts() if line.mountpoint.startswith(str(self.folder)) and line.ours]
        return said

    def left(self) -> dict[str, bytes | None]:
        """Everything below the folder, files with their bytes."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes() if path.is_file() else None
            for path in sorted(self.folder.rglob("*"))
            if not path.is_relative_to(self.point)
        }


def check_shown(said: str) -> None:
    """One error, at most one line more, nothing that steers a terminal, no traceback."""
    lines = said.splitlines()
    assert lines, "it says nothing"
    assert lines[0].startswith("fsmount: error: "), said
    assert all(line.startswith("fsmount: ") for line in lines), said
    assert len(lines) == 2, f"an error, and what to do about it: {said}"
    assert "Traceback" not in said
    assert "error: unexpected: " not in said
    assert not [char for char in said if char != "\n" and not char.isprintable()], ascii(said)


Speech = Callable[[socket.socket], None]


@contextmanager
def speaking(speech: Speech, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """A port of this machine that speaks so to whoever comes; ``127.0.0.1:PORT``."""

    class Speaker(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            stream: socket.socket = self.request
            stream.settimeout(5)
            try:
                speech(context.wrap_socket(stream, server_side=True) if context else stream)
            except OSError:
                pass  # the other end has had enough

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_: object) -> None:
            pass

    with Server(("127.0.0.1", 0), Speaker) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def saying(text: bytes) -> Speech:
    """Says it, once something was asked or at once, and hangs up."""

    def speech(stream: socket.socket) -> None:
        stream.sendall(text)
        stream.recv(4096)

    return speech


def answering(text: bytes) -> Speech:
    """Answers each request so; hangs up where nothing else tells where the answer ends."""
    has_an_end = b"content-length:" in text.lower()

    def speech(stream: socket.socket) -> None:
        while stream.recv(65536):
            stream.sendall(text)
            if not has_an_end:
                return

    return speech


def endless_headers(stream: socket.socket) -> None:
    """An answer whose headers never end."""
    stream.recv(65536)
    stream.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        stream.sendall(b"X-More: " + b"x" * 1000 + b"\r\n")


def silent(stream: socket.socket) -> None:
    """Takes everything and says nothing."""
    while stream.recv(65536):
        pass
