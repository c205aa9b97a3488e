"""Section 12: GET /fs/query."""

from typing import Any

import pytest

from tests.conformance.target import Target

pytestmark = pytest.mark.section(12)


@pytest.fixture
def filled(relay: Target) -> Target:
    relay.written(relay.at("d/a"), "grün", semantics={"properties": {"state": "open", "n": 1}, "relations": ["r"]})
    relay.written(relay.at("d/b"), "x", semantics={"properties": {"state": "closed"}, "comments": ["c"]})
    relay.written(relay.at("d/e/f"), "x", semantics={"permissions": ["public"], "relations": ["r", "s"]})
    relay.written(relay.at("top"), "x")
    return relay


def found(relay: Target, **query: Any) -> list[str]:
    answer = relay.call("GET", "fs/query", **{"path": relay.place, **query})
    assert answer.status_code == 200, answer.text
    return [item["path"][len(relay.place) + 1 :] for item in answer.json()["items"]]


def test_what_an_item_says(filled: Target) -> None:
    item = filled.call("GET", "fs/query", path=filled.at("d")).json()["items"][0]
    assert (
        item.items()
        >= {
            "path": filled.at("d/a"),
            "revision": filled.get(filled.at("d/a")).json()["revision"],
            "contentType": "text/plain",
            "provider": filled.place[1:],
            "size": 5,
            "properties": {"state": "open", "n": "1"},
            "relations": ["r"],
        }.items()
    )
    assert item["lastEditedAt"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({}, ["d/a", "d/b", "d/e/f", "top"]),
        ({"relation": "r"}, ["d/a", "d/e/f"]),
        ({"relation": "s"}, ["d/e/f"]),
        ({"comment": "c"}, ["d/b"]),
        ({"permission": "public"}, ["d/e/f"]),
        ({"property.state": "open"}, ["d/a"]),
        ({"property.state": "open", "property.n": "2"}, []),
        ({"property.state": "open", "relation": "r"}, ["d/a"]),
        ({"provider": "nobody"}, []),
        ({"limit": 2}, ["d/a", "d/b"]),
        ({"limit": 0}, ["d/a", "d/b", "d/e/f", "top"]),
    ],
)
def test_parameters_narrow_it_together(filled: Target, query: dict[str, Any], names: list[str]) -> None:
    assert found(filled, **query) == names


def test_files_come_flat_from_below_a_path(filled: Target) -> None:
    assert found(filled, path=filled.at("d")) == ["d/a", "d/b", "d/e/f"]
    assert found(filled, path=filled.at("nothing")) == []


def test_pages(filled: Target) -> None:
    first = filled.call("GET", "fs/query", path=filled.place, limit=3).json()
    assert first["nextCursor"] == filled.at("d/e/f")
    second = filled.call("GET", "fs/query", path=filled.place, limit=3, cursor=first["nextCursor"]).json()
    assert ([item["path"] for item in second["items"]], second["nextCursor"]) == ([filled.at("top")], None)


def test_a_cursor_that_is_gone_is_400(filled: Target) -> None:
    answer = filled.call("GET", "fs/query", path=filled.place, cursor=filled.at("gone"))
    filled.refuses(answer, 400, "bad_request")
