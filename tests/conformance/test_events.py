"""Section 13: GET /fs/events."""

import hashlib

import pytest

from tests.conformance.target import Target

pytestmark = pytest.mark.section(13)


def test_what_an_event_says(relay: Target) -> None:
    head = relay.head()
    created = relay.written(relay.at("a"), "1")
    updated = relay.written(relay.at("a"), "2")
    deleted = relay.delete(relay.at("a")).json()["targetRevision"]
    events = [event for event in relay.since(head) if event["type"].startswith("file.")]
    assert [(event["type"], event["revision"]) for event in events] == [
        ("file.created", created),
        ("file.updated", updated),
        ("file.deleted", deleted),
    ]
    assert [event.get("contentHash") for event in events] == [
        hashlib.sha256(content).hexdigest() for content in (b"1", b"2")
    ] + [None]
    assert {(event["origin"], event["provider"]) for event in events} == {("agent_write", relay.place[1:])}
    assert all(event["eventId"] and event["timestamp"] and event["correlationId"] for event in events)


def test_at_the_head_the_next_cursor_is_null(relay: Target) -> None:
    relay.written(relay.at("a"))
    body = relay.call("GET", "fs/events", cursor=relay.head()).json()
    assert body == {"events": [], "nextCursor": None}


def test_pages_from_the_oldest(relay: Target) -> None:
    head = relay.head()
    for name in "abcd":
        relay.written(relay.at(name))
    paths: list[str] = []
    cursor: str | None = head
    while cursor:
        body = relay.call("GET", "fs/events", cursor=cursor, limit=3).json()
        assert len(body["events"]) <= 3
        paths += [event["path"] for event in body["events"] if event["type"] == "file.created"]
        cursor = body["nextCursor"]
    assert [path for path in paths if path.startswith(relay.place)] == [relay.at(name) for name in "abcd"]


def test_newest_first(relay: Target) -> None:
    for name in "abc":
        relay.written(relay.at(name))
    body = relay.call("GET", "fs/events", direction="desc", limit=1).json()
    older = relay.call("GET", "fs/events", direction="desc", cursor=body["nextCursor"], limit=1000).json()["events"]
    ids = [event["eventId"] for event in body["events"] + older]
    oldest_first = relay.call("GET", "fs/events", limit=1000).json()
    if oldest_first["nextCursor"] is None and len(ids) < 1000:
        assert ids[::-1] == [event["eventId"] for event in oldest_first["events"]]
    assert len(set(ids)) == len(ids)


def test_an_unknown_cursor_starts_again_or_ends(relay: Target) -> None:
    relay.written(relay.at("a"))
    first = relay.call("GET", "fs/events", limit=1).json()["events"]
    assert relay.call("GET", "fs/events", cursor="evt_0", limit=1).json()["events"] == first
    assert relay.call("GET", "fs/events", cursor="evt_0", direction="desc").json()["events"] == []


def test_one_provider(relay: Target) -> None:
    head = relay.head()
    relay.written(relay.at("a"))
    for provider, count in ((relay.place[1:], 1), ("nobody", 0)):
        events = relay.call("GET", "fs/events", cursor=head, provider=provider).json()["events"]
        assert len([event for event in events if event["type"] == "file.created"]) == count


def test_the_path_is_ignored(relay: Target) -> None:
    head = relay.head()
    relay.written(relay.at("a"))
    events = relay.call("GET", "fs/events", cursor=head, path="/elsewhere").json()["events"]
    assert relay.at("a") in [event["path"] for event in events]


def test_a_direction_that_is_none_is_400(relay: Target) -> None:
    relay.refuses(relay.call("GET", "fs/events", direction="up"), 400, "bad_request")
