"""A relayfile server that says what ours says as servers built on relayfile's TypeScript core do.

It has no extensions, no live feed and no direction of the log; names no digests and, after a batch, no results; counts
its events in another way; says null where we say nothing; and calls a write that its provider refused `failed`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx

from tests.support.server import RelayServer

UNSAID = {"contentHash", "totalFiles", "results", "features", "byteSize"}
HOP_BY_HOP = {"host", "connection", "content-length", "accept-encoding"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behind: httpx.Client

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        target = urlsplit(self.path)
        query = dict(parse_qsl(target.query))
        query.pop("direction", None)
        if target.path.endswith("/fs/ws") or query.get("status") == "dead_lettered":
            self._answer(404 if target.path.endswith("/fs/ws") else 200, {"items": [], "nextCursor": None})
            return
        asked = urlencode(query).replace("cursor=e-", "cursor=evt_").replace("status=failed", "status=dead_lettered")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        answer = self.behind.request(self.command, f"{target.path}?{asked}", content=body, headers=headers)
        self._answer(answer.status_code, _in_other_words(answer.json()))

    def _answer(self, status: int, said: Any) -> None:
        body = json.dumps(said).replace('"evt_', '"e-').replace('"dead_lettered"', '"failed"').encode()
        self.send_response(status)
        self.send_header("content-type", "application/json; charset=UTF-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_DELETE = _forward  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        """Nothing: the server behind has a log."""


def _in_other_words(said: Any) -> Any:
    if isinstance(said, list):
        return [_in_other_words(each) for each in said]
    if not isinstance(said, dict):
        return said
    kept = {name: _in_other_words(member) for name, member in said.items() if name not in UNSAID}
    return {**kept, "revision": None, "correlationId": None} if kept.get("type") == "file.deleted" else kept


@contextmanager
def speaking_otherwise(server: RelayServer) -> Iterator[str]:
    """The remote to mount, while this is open."""
    with httpx.Client(base_url=server.base, trust_env=False) as behind:
        handler = type("Handler", (_Handler,), {"behind": behind})
        front = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = Thread(target=front.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server.remote.replace(server.base, f"http://127.0.0.1:{front.server_address[1]}")
        finally:
            front.shutdown()
            front.server_close()
