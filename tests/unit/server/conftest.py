"""A site in this process, over a real store: routes without sockets."""

import base64
import copy
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fsmount.server.messages import Answer, Request
from fsmount.server.rules import Rules
from fsmount.server.site import Site
from fsmount.server.store import Store
from fsmount.server.tokens import Issuer, issuer


class Reply(msgspec.Struct):
    status: int
    json: Any
    headers: dict[str, str]


class Caller:
    """Sends requests to a site, as a client with a good token unless told otherwise."""

    def __init__(self, folder: Path, own: Issuer) -> None:
        self.folder = folder
        self.issuer = own
        self.now = 1_700_000_000_000_000_000
        self.said: list[str] = []
        self.rules_file = folder / "rules"
        self.store = Store(folder / "store.db", lambda: self.now)
        self.rules = Rules(self.rules_file, self.said.append)
        self.site = Site(self.store, own, self.rules, extensions=True)
        self.token = own.sign(own.default_claims("local"))

    def __call__(
        self,
        method: str,
        route: str,
        *,
        body: object = None,
        headers: dict[str, str] | None = None,
        oversized: bool = False,
        **query: object,
    ) -> Reply:
        given = {"authorization": f"Bearer {self.token}", "x-correlation-id": "c1", **(headers or {})}
        request = Request(
            method=method,
            path=route if route.startswith("/") else f"/v1/workspaces/local/fs/{route}",
            query={name: str(value) for name, value in query.items()},
            headers={name: value for name, value in given.items() if value},
            body=body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode(),
            oversized=oversized,
        )
        return self.reply(self.site.receive(request).perform())

    def raw(self, path: str, content: bytes, meanwhile: Callable[[], object] = lambda: None) -> Reply:
        """`PUT /fs/raw`; `meanwhile` is called when half of the body has come."""
        request = Request(
            method="PUT",
            path="/v1/workspaces/local/fs/raw",
            query={"path": path},
            headers={"authorization": f"Bearer {self.token}", "x-correlation-id": "c1", "if-match": "*"},
        )
        with closing(self.site.receive(request)) as exchange:
            half = len(content) // 2
            for piece, then in ((content[:half], meanwhile), (content[half:], lambda: None)):
                if exchange.sink is not None:
                    exchange.sink.write(piece)
                then()
            return self.reply(exchange.perform())

    @staticmethod
    def reply(answer: Answer) -> Reply:
        parsed = json.loads(answer.body) if answer.body else None
        return Reply(status=answer.status, json=parsed, headers=dict(answer.headers))

    def put(self, path: str, content: str = "x", if_match: str = "*", **body: object) -> Reply:
        return self("PUT", "file", path=path, headers={"if-match": if_match}, body={"content": content, **body})

    def put_bytes(self, path: str, content: bytes) -> Reply:
        return self.put(path, base64.b64encode(content).decode(), encoding="base64")

    def get(self, path: str) -> Reply:
        return self("GET", "file", path=path)

    def delete(self, path: str, if_match: str = "*") -> Reply:
        return self("DELETE", "file", path=path, headers={"if-match": if_match})

    def bulk(self, *files: Mapping[str, object]) -> Reply:
        return self("POST", "bulk", body={"files": list(files)})

    def listed(self, path: str = "/", depth: int = 1) -> list[tuple[str, str]]:
        rows = self("GET", "tree", path=path, depth=depth).json["entries"]
        return [(row["path"], row["type"]) for row in rows]


@pytest.fixture(scope="session")
def own_issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return issuer(tmp_path_factory.mktemp("issuer"))


@pytest.fixture
def call(tmp_path: Path, own_issuer: Issuer) -> Iterator[Caller]:
    caller = Caller(tmp_path, own_issuer)
    yield caller
    caller.store.close()


@pytest.fixture
def plain_call(call: Caller) -> Caller:
    """The same store, seen through a site without extensions."""
    plain = copy.copy(call)
    plain.site = Site(call.store, call.issuer, call.rules, extensions=False)
    return plain
