"""The server that the conformance test speaks to, over HTTP and nothing else."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import httpx

Json = dict[str, Any]
_RUN = f"{os.getpid():x}-{os.urandom(3).hex()}"
_PLACES = itertools.count(1)


class Target:
    """One workspace of one server. `sign` makes tokens with other claims, None where nobody can.

    What a test writes lies below `place`, a directory of its own: the workspace may be shared.
    """

    def __init__(self, origin: str, workspace: str, token: str, sign: Callable[..., str] | None = None) -> None:
        self.origin = origin
        self.workspace = workspace
        self.token = token
        self.sign = sign
        self.place = ""
        self.http = httpx.Client(base_url=origin, trust_env=False, timeout=30)
        health = self.http.get("/health").json()
        self.features: tuple[str, ...] = tuple(health.get("features") or ())

    def move(self) -> None:
        """Go to a directory that nobody has used."""
        self.place = f"/conformance-{_RUN}-{next(_PLACES)}"

    def at(self, name: str) -> str:
        """A path in the test's own directory."""
        return f"{self.place}/{name}"

    def call(
        self,
        method: str,
        route: str,
        *,
        token: str | None = None,
        body: object = None,
        headers: dict[str, str] | None = None,
        **query: Any,
    ) -> httpx.Response:
        """Any request to a route below the workspace; an empty header is left out, and so is an empty token."""
        bearer = self.token if token is None else token
        given = {
            "Authorization": f"Bearer {bearer}" if bearer else "",
            "X-Correlation-Id": f"conformance-{_RUN}",
            **(headers or {}),
        }
        return self.http.request(
            method,
            f"/v1/workspaces/{quote(self.workspace, safe='')}/{route}",
            params=query,
            headers={name: value for name, value in given.items() if value},
            **_payload(body),
        )

    def put(
        self, path: str, content: str = "x", if_match: str = "*", token: str | None = None, **body: object
    ) -> httpx.Response:
        """PUT /fs/file."""
        made = {"content": content, "contentType": "text/plain", **body}
        return self.call("PUT", "fs/file", path=path, token=token, headers={"If-Match": if_match}, body=made)

    def written(self, path: str, content: str = "x", **body: Any) -> str:
        """The revision of a file after a PUT that must succeed."""
        answer = self.put(path, content, **body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["targetRevision"])

    def get(self, path: str, token: str | None = None) -> httpx.Response:
        """GET /fs/file."""
        return self.call("GET", "fs/file", path=path, token=token)

    def delete(self, path: str, if_match: str = "*", token: str | None = None) -> httpx.Response:
        """DELETE /fs/file."""
        return self.call("DELETE", "fs/file", path=path, token=token, headers={"If-Match": if_match})

    def bulk(self, *files: Mapping[str, object], token: str | None = None) -> httpx.Response:
        """POST /fs/bulk."""
        return self.call("POST", "fs/bulk", body={"files": list(files)}, token=token)

    def tree(self, path: str | None = None, token: str | None = None, **query: Any) -> list[Json]:
        """The entries of one page of GET /fs/tree; of the test's own directory unless told otherwise."""
        answer = self.call("GET", "fs/tree", path=self.place if path is None else path, token=token, **query)
        assert answer.status_code == 200, answer.text
        entries: list[Json] = answer.json()["entries"]
        return entries

    def listed(self, path: str | None = None, token: str | None = None, **query: Any) -> list[str]:
        """The names below the test's own directory, ten levels deep, each with the first letter of its type."""
        start, query = len(self.place) + 1, {"depth": 10, **query}
        return [f"{entry['type'][0]} {entry['path'][start:]}" for entry in self.tree(path, token=token, **query)]

    def head(self) -> str:
        """The id of the newest event; empty where there is none."""
        events = self.call("GET", "fs/events", direction="desc", limit=1).json()["events"]
        return str(events[0]["eventId"]) if events else ""

    def since(self, cursor: str) -> list[Json]:
        """Events after `cursor` of the test's own directory, with the bookkeeping of a provider left out."""
        events = self.call("GET", "fs/events", cursor=cursor, limit=1000).json()["events"]
        return [event for event in events if event["path"].startswith(self.place + "/")]

    def changes(self, cursor: str) -> list[tuple[str, str]]:
        """Type and name of each change of a file since `cursor`."""
        start = len(self.place) + 1
        return [
            (event["type"], event["path"][start:]) for event in self.since(cursor) if event["type"].startswith("file.")
        ]

    def refuses(self, answer: httpx.Response, status: int, code: str) -> Json:
        """The error body, which must have the shape of section 2."""
        assert answer.status_code == status, answer.text
        body: Json = answer.json()
        assert body["code"] == code
        assert isinstance(body["message"], str)
        assert body["message"]
        assert isinstance(body["correlationId"], str)
        return body

    def clean(self) -> None:
        """Remove what the test left, as far as the token may."""
        while files := [entry["path"] for entry in self.tree(depth=100) if entry["type"] == "file"]:
            statuses = {self.delete(path).status_code for path in files}
            if statuses != {202}:
                return


def _payload(body: object) -> dict[str, Any]:
    if body is None:
        return {}
    return {"content": body} if isinstance(body, bytes) else {"json": body}
