"""Listings: implied directories, order, depth, pages."""

import bisect
import hashlib
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsmount.server.payload import draft
from fsmount.server.store import Store
from tests.unit.server.conftest import Caller


def test_an_entry(call: Caller, plain_call: Caller) -> None:
    call.now = 1_700_000_000_120_000_000
    call.put("/github/a.txt", "häß", semantics={"properties": {"k": 1}, "relations": ["r", "s"], "comments": ["c"]})
    (entry,) = call("GET", "tree", path="/github").json["entries"]
    assert entry == {
        "path": "/github/a.txt",
        "type": "file",
        "revision": "rev_1",
        "contentHash": hashlib.sha256("häß".encode()).hexdigest(),
        "provider": "github",
        "size": 5,
        "updatedAt": "2023-11-14T22:13:20.12Z",
        "propertyCount": 1,
        "relationCount": 2,
        "commentCount": 1,
        "byteSize": 5,
        "encoding": "utf-8",
    }
    (plain,) = plain_call("GET", "tree", path="/github").json["entries"]
    assert plain == {name: value for name, value in entry.items() if name not in {"byteSize", "encoding"}}


def test_size_is_of_the_stored_text_and_byte_size_of_the_bytes(call: Caller) -> None:
    call.put_bytes("/binary", b"\x00\xff\x00\xff")
    call.put("/empty", "")
    binary, empty = call("GET", "tree").json["entries"]
    assert (binary["size"], binary["byteSize"], binary["encoding"]) == (8, 4, "base64")
    assert ("size" in empty, empty["byteSize"]) == (False, 0)


def test_directories_are_implied(call: Caller) -> None:
    call.put("/a/b/c.txt")
    assert call("GET", "tree").json == {
        "path": "/",
        "entries": [
            {"path": "/a", "type": "dir", "revision": "dir"},
            {"path": "/a/b", "type": "dir", "revision": "dir"},
            call("GET", "tree", path="/a/b").json["entries"][0],
        ],
        "nextCursor": None,
        "totalFiles": 1,
    }
    call.delete("/a/b/c.txt")
    assert call("GET", "tree").json == {"path": "/", "entries": [], "nextCursor": None}


def test_order_is_bytewise_over_all_levels(call: Caller) -> None:
    for path in ("/a/x", "/a-b", "/a.txt", "/B", "/é", "/z"):
        call.put(path)
    assert [path for path, _ in call.listed(depth=2)] == ["/B", "/a", "/a-b", "/a.txt", "/a/x", "/z", "/é"]


def test_a_file_and_a_directory_of_one_name(call: Caller) -> None:
    call.put("/a")
    call.put("/a/b")
    assert call.listed(depth=1) == [("/a", "file")]
    assert call.listed(depth=2) == [("/a", "file"), ("/a/b", "file")]
    assert call.listed("/a") == [("/a/b", "file")]
    call.delete("/a")
    assert call.listed(depth=1) == [("/a", "dir")]


def test_paths_are_keys_that_nothing_collapses(call: Caller) -> None:
    for path in ("/a/../b", "/a//c", "x/", "/a/./d"):
        assert call.put(path, path).status == 202
        assert call.get(path).json["content"] == path
    assert ("/x", "file") in call.listed()
    assert call.listed("/a") == [("/a/", "dir"), ("/a/.", "dir"), ("/a/..", "dir")]


@pytest.mark.parametrize("path", ["/none", "/file", "/file/below"])
def test_a_base_that_is_no_directory_is_empty(call: Caller, path: str) -> None:
    call.put("/file")
    assert call("GET", "tree", path=path).json == {"path": path, "entries": [], "nextCursor": None}


def test_names_that_begin_alike_are_not_below(call: Caller) -> None:
    for path in ("/dir/x", "/dir2/y", "/dir-/z", "/dir0"):
        call.put(path)
    assert call.listed("/dir", depth=9) == [("/dir/x", "file")]
    assert call("GET", "tree", path="/dir").json["totalFiles"] == 1


@pytest.mark.parametrize(
    ("depth", "levels"), [("1", 1), ("2", 2), ("", 10), ("0", 10), ("-3", 10), ("x", 10), ("999", 12)]
)
def test_depth(call: Caller, depth: str, levels: int) -> None:
    call.put("/1/2/3/4/5/6/7/8/9/10/11/12")
    assert len(call("GET", "tree", depth=depth).json["entries"]) == levels


def test_pages_of_a_thousand(call: Caller) -> None:
    names = [*sorted(f"/d/{number}" for number in range(2000)), "/e/1"]
    for start in range(0, len(names), 500):
        call.bulk(*({"path": name, "content": ""} for name in names[start : start + 500]))
    for depth in (1, 10):
        pages: list[list[str]] = []
        cursor: str | None = ""
        while cursor is not None:
            page = call("GET", "tree", path="/d", depth=depth, cursor=cursor).json
            assert page["totalFiles"] == 2000
            pages.append([entry["path"] for entry in page["entries"]])
            cursor = page["nextCursor"]
        assert [len(page) for page in pages] == [1000, 1000]
        assert list(chain(*pages)) == names[:-1]


def test_a_cursor_that_is_no_entry_any_more(call: Caller) -> None:
    for path in ("/d/1", "/d/2", "/d/s/3", "/e"):
        call.put(path)
    assert call("GET", "tree", path="/d", depth=1, cursor="/d/s").json["entries"] == []
    call.delete("/d/1")
    for cursor in ("/d/1", "/e", "/d", "/d/s/3", "x", "/"):
        reply = call("GET", "tree", path="/d", depth=1, cursor=cursor)
        assert (reply.status, reply.json["code"]) == (400, "bad_request"), cursor


PATHS = st.lists(st.sampled_from(["a", "b", "a-", "a0", "é"]), min_size=1, max_size=3).map(
    lambda parts: "/" + "/".join(parts)
)


@settings(max_examples=60, deadline=None)
@given(
    writes=st.lists(st.tuples(st.booleans(), PATHS), max_size=14),
    base=st.just("/") | PATHS,
    depth=st.integers(1, 3),
    limit=st.integers(1, 4),
)
def test_a_listing_is_what_the_files_imply(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[bool, str]], base: str, depth: int, limit: int
) -> None:
    store = Store(fresh(tmp_path_factory), lambda: 0)
    files: set[str] = set()
    for is_put, path in writes:
        with store.transaction():
            if is_put:
                store.put("w", draft(path, "", None, None), expected="*")
                files.add(path)
            elif path in files:
                store.delete("w", path, expected="*")
                files.remove(path)
    expected = implied(files, base, depth)
    listed: list[tuple[str, bool]] = []
    after = None
    while True:
        rows = store.listings.tree("w", base, depth=depth, after=after, limit=limit)
        listed += [(row.path, row.revision is None) for row in rows]
        if len(rows) < limit:
            break
        after = rows[-1].path
    assert listed == expected
    assert store.listings.total("w", base) == sum(path.startswith(base.rstrip("/") + "/") for path in files)
    store.close()


def implied(files: set[str], base: str, depth: int) -> list[tuple[str, bool]]:
    """The rows below `base` as (path, is a directory), by the definition."""
    prefix = base.rstrip("/") + "/"
    rows: list[tuple[str, bool]] = []
    for path in files:
        if path.startswith(prefix):
            parts = path[len(prefix) :].split("/")
            for end in range(1, min(depth, len(parts)) + 1):
                above = prefix + "/".join(parts[:end])
                row = (above, above not in files)
                if row not in rows:
                    bisect.insort(rows, row, key=lambda row: row[0].encode())
    return rows


def fresh(factory: pytest.TempPathFactory) -> Path:
    return factory.mktemp("store") / "store.db"
