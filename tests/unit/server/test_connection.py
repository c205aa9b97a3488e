"""Bytes on a real socket: what is sent, and above all what is not."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Self

import httpx
import pytest

from tests.support.server import RelayServer, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayServer]:
    with serving(tmp_path_factory.mktemp("connection"), body_cap=4096) as started:
        yield started


@pytest.fixture(autouse=True)
def _no_rules(server: RelayServer) -> None:
    server.rules("")


class Wire:
    """One raw connection with a deadline."""

    def __init__(self, server: RelayServer) -> None:
        self.server = server
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, request: str, body: bytes = b"", *headers: str) -> None:
        lines = [
            f"{request} HTTP/1.1",
            "Host: x",
            f"Authorization: Bearer {self.server.token}",
            "X-Correlation-Id: raw",
            *([f"Content-Length: {len(body)}"] if body else []),
            *headers,
        ]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    def until_closed(self) -> bytes:
        received = b""
        while chunk := self.socket.recv(65536):
            received += chunk
        return received

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        received = b""
        while b"\r\n\r\n" not in received:
            chunk = self.socket.recv(65536)
            assert chunk, received
            received += chunk
        head, _, body = received.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        while len(body) < int(headers["content-length"]):
            body += self.socket.recv(65536)
        return int(status.split()[1]), headers, body


FILE = "/v1/workspaces/local/fs/file?path="
PUT = b'{"content":"after"}'


@pytest.mark.parametrize(("action", "left"), [("refuse", b"before"), ("drop", b"after"), ("delay=10ms drop", b"after")])
def test_refuse_and_drop_send_not_one_byte(server: RelayServer, action: str, left: bytes) -> None:
    server.put("/a", "before")
    server.rules(f"PUT /a {action}")
    with Wire(server) as wire:
        wire.send(f"PUT {FILE}/a", PUT, "If-Match: *")
        assert wire.until_closed() == b""
    assert server.get("/a") == left
    assert f"PUT {FILE}/a -" in server.requests()


@pytest.mark.parametrize(("action", "left"), [("refuse", None), ("drop", b"after")])
def test_neither_does_a_bulk(server: RelayServer, action: str, left: bytes | None) -> None:
    if server.get("/new") is not None:
        server.delete("/new")
    server.rules(f"PUT /new {action}")
    body = json.dumps({"files": [{"path": "/new", "content": "after"}]}).encode()
    with Wire(server) as wire:
        wire.send("POST /v1/workspaces/local/fs/bulk", body)
        assert wire.until_closed() == b""
    assert server.get("/new") == left


@pytest.mark.parametrize(
    "request_line", [f"GET {FILE}/a", "GET /v1/workspaces/local/fs/tree", "GET /v1/workspaces/local/fs/events"]
)
def test_nor_do_reads_on_a_connection_in_use(server: RelayServer, request_line: str) -> None:
    server.put("/a", "before")
    with Wire(server) as wire:
        wire.send(request_line)
        assert wire.answer()[0] == 200
        server.rules("* /** refuse")
        wire.send(request_line)
        assert wire.until_closed() == b""


def test_hang_never_answers_and_does_nothing(server: RelayServer) -> None:
    server.put("/a", "before")
    server.rules("PUT /a hang")
    with Wire(server) as wire:
        wire.send(f"PUT {FILE}/a", PUT, "If-Match: *")
        wire.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            wire.socket.recv(1)
        assert server.get("/a") == b"before", "others are served meanwhile"
        wire.socket.settimeout(10)
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.until_closed() == b""
    assert server.get("/a") == b"before"


def test_truncate_sends_half_of_what_it_announces(server: RelayServer) -> None:
    server.put("/a", "0123456789" * 20)
    with Wire(server) as wire:
        wire.send(f"GET {FILE}/a")
        whole = wire.answer()[2]
        server.rules("GET /a truncate")
        wire.send(f"GET {FILE}/a")
        head, _, body = wire.until_closed().partition(b"\r\n\r\n")
    assert f"content-length: {len(whole)}".encode() in head.lower()
    assert body == whole[: len(whole) // 2]
    with pytest.raises(httpx.RemoteProtocolError):
        server.get("/a")


def test_slow_keeps_to_its_rate(server: RelayServer) -> None:
    server.put("/a", "x")
    length = len(server.http.get("file", params={"path": "/a"}).content)
    server.rules(f"GET /a slow={length * 2}/s")
    start = time.monotonic()
    assert server.get("/a") == b"x"
    assert 0.4 < time.monotonic() - start < 5


def test_delay_comes_before_the_deed(server: RelayServer) -> None:
    server.put("/a", "before")
    server.rules("PUT /a delay=400ms")
    start = time.monotonic()
    with Wire(server) as wire:
        wire.send(f"PUT {FILE}/a", PUT, "If-Match: *")
        assert server.get("/a") == b"before"
        assert wire.answer()[0] == 202
    assert time.monotonic() - start >= 0.4
    assert server.get("/a") == b"after"


def test_a_status_and_its_headers(server: RelayServer) -> None:
    server.rules("GET /a 429 retry-after=5\nGET /b 204\nGET /c 299 []")
    with Wire(server) as wire:
        wire.send(f"GET {FILE}/a")
        status, headers, body = wire.answer()
        assert (status, headers["retry-after"], json.loads(body)["correlationId"]) == (429, "5", "raw")
    assert server.http.get("file", params={"path": "/b"}).content == b""
    assert server.http.get("file", params={"path": "/c"}).status_code == 299


def test_a_connection_is_kept_and_requests_may_queue_on_it(server: RelayServer) -> None:
    server.put("/a", "1")
    with Wire(server) as wire:
        for _ in range(3):
            wire.send(f"GET {FILE}/a")
            assert wire.answer()[0] == 200
        wire.send("GET /health")
        wire.send("GET /health", b"", "Connection: close")
        assert wire.until_closed().count(b'{"status":"ok"') == 2


def test_http_1_0_and_the_absolute_form(server: RelayServer) -> None:
    with Wire(server) as wire:
        wire.socket.sendall(b"GET http://x/health HTTP/1.0\r\n\r\n")
        assert wire.until_closed().endswith(b'"raw"]}')


def test_head_has_no_body(server: RelayServer) -> None:
    with Wire(server) as wire:
        wire.send(f"HEAD {FILE}/a", b"", "Connection: close")
        head, _, body = wire.until_closed().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404")
    assert body == b""


def test_a_body_past_the_cap_is_refused_and_the_connection_kept(server: RelayServer) -> None:
    with Wire(server) as wire:
        for size, status in ((4096, 202), (4097, 413), (3_000_000, 413), (100, 202)):
            body = json.dumps({"content": ""}).encode()
            body = body.replace(b'""', b'"' + b"x" * (size - len(body)) + b'"')
            assert len(body) == size
            wire.send(f"PUT {FILE}/big", body, "If-Match: *")
            answered, _, text = wire.answer()
            assert answered == status
            if status == 413:
                assert json.loads(text)["code"] == "payload_too_large"
    assert len(server.get("/big") or b"") == 100 - len('{"content": ""}')


def test_a_chunked_body_and_expect_continue(server: RelayServer) -> None:
    with Wire(server) as wire:
        wire.send(f"PUT {FILE}/c", b"", "If-Match: *", "Transfer-Encoding: chunked", "Expect: 100-continue")
        assert wire.socket.recv(65536).startswith(b"HTTP/1.1 100")
        wire.socket.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(PUT), PUT))
        assert wire.answer()[0] == 202
    assert server.get("/c") == b"after"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET /health?path=%ff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://[/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 70_000, 431),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 tls\r\n\r\n", 400),
    ],
)
def test_what_is_not_http_gets_an_error_body(server: RelayServer, sent: bytes, status: int) -> None:
    with Wire(server) as wire:
        wire.socket.sendall(sent)
        head, _, body = wire.until_closed().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), head
    assert json.loads(body)["code"] == "bad_request"


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"])
def test_a_client_that_goes_away_leaves_no_trace(server: RelayServer, sent: bytes) -> None:
    with Wire(server) as wire:
        wire.socket.sendall(sent)
    with Wire(server) as wire:
        wire.socket.sendall(sent)
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    assert server.http.get("/health").status_code in {200, 404}
    assert server.stderr() == ""


def test_the_access_log_shows_no_secret(server: RelayServer) -> None:
    before = len(server.requests())
    server.http.get("tree", params={"path": "/ä b", "token": "secret", "cursor": "x"})
    assert server.requests()[before:] == ["GET /v1/workspaces/local/fs/tree?path=/%C3%A4%20b 400"]
