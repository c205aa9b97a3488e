"""The change log by polling, with all its odd ends."""

from typing import Any

import pytest

from tests.unit.server.conftest import Caller


def numbers(call: Caller, **query: Any) -> tuple[list[int], str | None]:
    reply = call("GET", "events", **query)
    assert reply.status == 200
    found = [int(event["eventId"].removeprefix("evt_")) for event in reply.json["events"]]
    return found, reply.json["nextCursor"]


def test_what_an_event_says(call: Caller) -> None:
    call.put("/github/a", "x")
    call.put("/github/a", "y")
    call.delete("/github/a")
    created, updated, deleted = call("GET", "events").json["events"]
    assert created == {
        "eventId": "evt_1",
        "type": "file.created",
        "path": "/github/a",
        "revision": "rev_1",
        "contentHash": created["contentHash"],
        "origin": "agent_write",
        "provider": "github",
        "correlationId": "c1",
        "timestamp": "2023-11-14T22:13:20Z",
    }
    assert (updated["type"], updated["revision"]) == ("file.updated", "rev_2")
    assert (deleted["type"], deleted["revision"], "contentHash" in deleted) == ("file.deleted", "rev_3", False)


def test_pages(call: Caller) -> None:
    for number in range(5):
        call.put(f"/{number}")
    assert numbers(call) == ([1, 2, 3, 4, 5], None)
    assert numbers(call, limit=2) == ([1, 2], "evt_2")
    assert numbers(call, limit=2, cursor="evt_2") == ([3, 4], "evt_4")
    assert numbers(call, limit=2, cursor="evt_4") == ([5], None)
    assert numbers(call, cursor="evt_5") == ([], None)
    assert numbers(call, limit=5) == ([1, 2, 3, 4, 5], None)
    assert numbers(call, direction="desc", limit=1) == ([5], "evt_5")
    assert numbers(call, direction="desc", limit=3, cursor="evt_4") == ([3, 2, 1], None)
    assert numbers(call, direction="desc", cursor="evt_1") == ([], None)


@pytest.mark.parametrize("cursor", ["evt_99", "evt_", "evt_x", "3", "nonsense", "evt_" + "9" * 40, "evt_²", "evt_-1"])
def test_an_unknown_cursor_starts_again_or_ends(call: Caller, cursor: str) -> None:
    for number in range(3):
        call.put(f"/{number}")
    assert numbers(call, cursor=cursor) == ([1, 2, 3], None)
    assert numbers(call, cursor=cursor, direction="desc") == ([], None)


def test_a_cursor_of_another_workspace_is_unknown(call: Caller) -> None:
    call.put("/a")
    call.put("/b")
    call.token = call.issuer.sign(call.issuer.default_claims("w2"))
    route = "/v1/workspaces/w2/fs/"
    call("PUT", route + "file", path="/c", headers={"if-match": "*"}, body={"content": ""})
    reply = call("GET", route + "events", cursor="evt_2")
    assert [event["eventId"] for event in reply.json["events"]] == ["evt_3"]


@pytest.mark.parametrize(("limit", "count"), [("", 200), ("0", 200), ("-1", 200), ("x", 200), ("7", 7), ("1001", 1000)])
def test_limits(call: Caller, limit: str, count: int) -> None:
    for start in range(0, 1010, 505):
        call.bulk(*({"path": f"/{number}", "content": ""} for number in range(start, start + 505)))
    found, cursor = numbers(call, limit=limit)
    assert (len(found), cursor) == (count, f"evt_{count}")


def test_one_provider(call: Caller) -> None:
    for path in ("/a/1", "/b/1", "/a/2", "/top"):
        call.put(path)
    assert numbers(call, provider="a") == ([1, 3], None)
    assert numbers(call, provider="a", limit=1) == ([1], "evt_1")
    assert numbers(call, provider="c") == ([], None)


def test_the_path_is_ignored_and_the_direction_is_not(call: Caller) -> None:
    call.put("/a")
    assert numbers(call, path="/elsewhere") == ([1], None)
    assert call("GET", "events", direction="up").status == 400
