"""Section 6: GET /fs/tree."""

import base64
import hashlib

import pytest

from tests.conformance.target import Target

pytestmark = pytest.mark.section(6)


@pytest.fixture
def grown(relay: Target) -> Target:
    for name in ("a", "d/b", "d/e/c", "d/e/f/g", "d-x"):
        relay.written(relay.at(name), name)
    return relay


@pytest.mark.parametrize(
    ("depth", "count"), [(1, 3), (2, 5), (3, 7), (4, 8), (100, 8), (101, 8), (0, 8), (-1, 8), ("x", 8)]
)
def test_depth_is_counted_from_the_path(grown: Target, depth: int, count: int) -> None:
    rows = grown.listed(depth=depth)
    assert len(rows) == count
    assert rows[:1] == ["f a"]


def test_ten_levels_are_listed_unless_told_otherwise(grown: Target) -> None:
    assert len(grown.tree()) == 8


def test_rows_are_sorted_bytewise_by_path(grown: Target) -> None:
    assert grown.listed() == ["f a", "d d", "f d-x", "f d/b", "d d/e", "f d/e/c", "d d/e/f", "f d/e/f/g"]


def test_the_path_itself_is_not_listed_and_siblings_are_not_either(grown: Target) -> None:
    assert grown.listed(grown.at("d")) == ["f d/b", "d d/e", "f d/e/c", "d d/e/f", "f d/e/f/g"]


@pytest.mark.parametrize("name", ["a", "nothing", "d/e/c"])
def test_a_base_that_is_no_directory_is_empty(grown: Target, name: str) -> None:
    answer = grown.call("GET", "fs/tree", path=grown.at(name))
    assert answer.status_code == 200
    assert (answer.json()["entries"], answer.json()["nextCursor"]) == ([], None)
    assert "totalFiles" not in answer.json()


def test_what_an_entry_says(relay: Target) -> None:
    revision = relay.written(relay.at("a"), "grün", semantics={"properties": {"k": 1}, "relations": ["r", "s"]})
    relay.written(relay.at("d/b"), base64.b64encode(b"\0\1").decode(), encoding="base64")
    relay.written(relay.at("empty"), "")
    a, d, b, empty = relay.tree()
    assert (a["type"], a["revision"], a["size"]) == ("file", revision, 5)
    assert a["contentHash"] == hashlib.sha256("grün".encode()).hexdigest()
    assert (a["propertyCount"], a["relationCount"], "commentCount" in a) == (1, 2, False)
    assert (d["type"], d["path"], d["revision"]) == ("dir", relay.at("d"), "dir")
    assert b["contentHash"] == hashlib.sha256(b"\0\1").hexdigest()
    assert b["size"] == 4
    assert "size" not in empty


def test_the_total_counts_files_however_deep(grown: Target) -> None:
    assert grown.call("GET", "fs/tree", path=grown.place, depth=1).json()["totalFiles"] == 5


def test_pages_of_a_thousand(relay: Target) -> None:
    names = [f"{number:04}" for number in range(1001)]
    for start in range(0, len(names), 501):
        relay.bulk(*({"path": relay.at(name), "content": ""} for name in names[start : start + 501]))
    first = relay.call("GET", "fs/tree", path=relay.place).json()
    assert (len(first["entries"]), first["nextCursor"], first["totalFiles"]) == (1000, relay.at("0999"), 1001)
    second = relay.call("GET", "fs/tree", path=relay.place, cursor=first["nextCursor"]).json()
    assert ([row["path"] for row in second["entries"]], second["nextCursor"]) == ([relay.at("1000")], None)
    relay.delete(relay.at("0999"))
    answer = relay.call("GET", "fs/tree", path=relay.place, cursor=first["nextCursor"])
    relay.refuses(answer, 400, "bad_request")
