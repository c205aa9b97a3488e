"""A server without forks lets nobody take the live tree for one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.server import RelayServer


@pytest.mark.parametrize(
    ("method", "route", "body"),
    [
        ("GET", "tree", None),
        ("GET", "file", None),
        ("PUT", "file", {"content": "mine"}),
        ("DELETE", "file", None),
        ("POST", "bulk", {"files": [{"path": "/a", "content": "mine"}]}),
        ("GET", "query", None),
    ],
)
def test_a_fork_that_is_not_there_is_404(
    relay_server: RelayServer, method: str, route: str, body: dict[str, Any] | None
) -> None:
    relay_server.put("/a", "theirs")
    query = {"path": "/a", "forkId": "fork_1"}
    answer = relay_server.http.request(method, route, params=query, json=body, headers={"If-Match": "*"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "fork_1" in answer.json()["message"]
    assert relay_server.get("/a") == b"theirs"


def test_an_export_is_of_the_live_tree(relay_server: RelayServer) -> None:
    relay_server.put("/a", "theirs")
    (file,) = relay_server.http.get("export", params={"forkId": "fork_1"}).json()
    assert file["content"] == "theirs"
