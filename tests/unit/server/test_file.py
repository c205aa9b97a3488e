"""One file: reading, the whole precondition table, encodings, semantics."""

import base64
import hashlib
from typing import Any

import pytest

from tests.unit.server.conftest import Caller


def test_a_file_as_it_is_read(call: Caller, plain_call: Caller) -> None:
    call.put("/github/a.json", '{"a":1}', contentType="application/json")
    reply = call.get("/github/a.json")
    assert reply.headers["ETag"] == "rev_1"
    assert reply.json == {
        "path": "/github/a.json",
        "revision": "rev_1",
        "contentType": "application/json",
        "content": '{"a":1}',
        "contentHash": hashlib.sha256(b'{"a":1}').hexdigest(),
        "provider": "github",
        "lastEditedAt": "2023-11-14T22:13:20Z",
        "byteSize": 7,
        "semantics": {},
    }
    assert "byteSize" not in plain_call.get("/github/a.json").json


def test_the_answer_to_a_write(call: Caller) -> None:
    reply = call.put("/github/a", if_match="0")
    assert (reply.status, reply.json) == (
        202,
        {
            "opId": "op_1",
            "status": "queued",
            "targetRevision": "rev_1",
            "writeback": {"provider": "github", "state": "pending"},
        },
    )
    assert call.delete("/github/a").json["targetRevision"] == "rev_2"
    assert call.put("/b").json["opId"] == "op_3"


@pytest.mark.parametrize("path", ["/none", "/dir", "/dir/file/x"])
def test_what_is_no_file_is_404(call: Caller, path: str) -> None:
    call.put("/dir/file")
    for reply in (call.get(path), call.delete(path), call.delete(path, "rev_1"), call.delete(path, "0")):
        assert (reply.status, reply.json["code"]) == (404, "not_found")


PRESENT, ABSENT = True, False


@pytest.mark.parametrize(
    ("method", "exists", "if_match", "status"),
    [
        ("PUT", ABSENT, "0", 202),
        ("PUT", ABSENT, "*", 202),
        ("PUT", ABSENT, "rev_1", 404),
        ("PUT", PRESENT, "0", 409),
        ("PUT", PRESENT, "*", 202),
        ("PUT", PRESENT, "rev_1", 202),
        ("PUT", PRESENT, '"rev_1"', 202),
        ("PUT", PRESENT, 'W/"rev_1"', 202),
        ("PUT", PRESENT, " rev_1 ", 202),
        ("PUT", PRESENT, '"*"', 202),
        ("PUT", PRESENT, '"0"', 409),
        ("PUT", PRESENT, "rev_2", 409),
        ("PUT", PRESENT, "rev_", 409),
        ("PUT", PRESENT, "", 412),
        ("PUT", PRESENT, "  ", 412),
        ("PUT", PRESENT, '""', 412),
        ("PUT", ABSENT, "", 412),
        ("DELETE", PRESENT, "*", 202),
        ("DELETE", PRESENT, "rev_1", 202),
        ("DELETE", PRESENT, 'W/"rev_1"', 202),
        ("DELETE", PRESENT, "0", 409),
        ("DELETE", PRESENT, "rev_2", 409),
        ("DELETE", PRESENT, "", 412),
        ("DELETE", ABSENT, "", 412),
        ("DELETE", ABSENT, "*", 404),
        ("DELETE", ABSENT, "rev_1", 404),
    ],
)
def test_the_precondition_table(call: Caller, method: str, exists: bool, if_match: str, status: int) -> None:
    if exists:
        call.put("/a", "before")
    events = len(call("GET", "events").json["events"])
    reply = call.put("/a", "after", if_match) if method == "PUT" else call.delete("/a", if_match)
    assert reply.status == status
    left = call.get("/a").json.get("content")
    expected = {"PUT": "after", "DELETE": None}[method] if status == 202 else "before" if exists else None
    assert left == expected
    assert len(call("GET", "events").json["events"]) == events + (status == 202)


def test_a_conflict_shows_what_is_there(call: Caller) -> None:
    call.put("/a", "ä" * 3000)
    reply = call.put("/a", "mine", 'W/"rev_9"')
    assert reply.status == 409
    preview = reply.json.pop("currentContentPreview")
    assert preview == "ä" * 2000
    assert reply.json == {
        "code": "revision_conflict",
        "message": "file revision mismatch",
        "correlationId": "c1",
        "expectedRevision": "rev_9",
        "currentRevision": "rev_1",
    }
    call.put("/odd", "x" + "ä" * 3000)
    assert call.put("/odd", "", "0").json["currentContentPreview"].endswith("�")
    call.put("/empty", "")
    assert "currentContentPreview" not in call.put("/empty", "", "0").json


@pytest.mark.parametrize(
    ("content", "encoding", "decoded"),
    [
        ("a\x00<&>\u2028é", "utf-8", "a\x00<&>\u2028é".encode()),
        ("x", "", b"x"),
        ("x", "UTF8", b"x"),
        ("AP8=", "base64", b"\x00\xff"),
        ("AP8", "base64", b"\x00\xff"),
        ("AA\r\nD/", "Base64", b"\x00\x00\xff"),
        ("", "base64", b""),
    ],
)
def test_encodings(call: Caller, content: str, encoding: str, decoded: bytes) -> None:
    assert call.put("/a", content, encoding=encoding).status == 202
    stored = call.get("/a").json
    assert stored["content"] == content
    assert stored.get("encoding") == ("base64" if encoding.lower() == "base64" else None)
    assert stored["contentHash"] == hashlib.sha256(decoded).hexdigest()
    assert stored["byteSize"] == len(decoded)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"[]",
        b"null",
        b'{"content": 1}',
        b'{"content": "\xff"}',
        b'{"content": "\\ud800"}',
        {"content": "x", "encoding": "utf-16"},
        {"content": "A", "encoding": "base64"},
        {"content": "AA_A", "encoding": "base64"},
        {"content": "é", "encoding": "base64"},
        {"content": "x", "semantics": []},
    ],
)
def test_a_body_that_is_not_understood(call: Caller, body: Any) -> None:
    reply = call("PUT", "file", path="/a", headers={"if-match": "*"}, body=body)
    assert (reply.status, reply.json["code"]) == (400, "bad_request")
    assert call.get("/a").status == 404


def test_paths_that_name_no_file(call: Caller) -> None:
    assert call("GET", "file").json["message"] == "missing path"
    assert call.get("").json["message"] == "missing path"
    assert call.put("/").status == 400
    assert call.delete("/").status == 400


def test_the_default_type_comes_back_with_every_write(call: Caller) -> None:
    call.put("/a", contentType="text/plain")
    call.put("/a")
    assert call.get("/a").json["contentType"] == "text/markdown"


def test_semantics_stay_until_others_come(call: Caller) -> None:
    given = {"properties": {"s": "x", "n": 1, "t": True, "o": {"a": [1]}}, "relations": ["r"], "permissions": ["any"]}
    call.put("/a", semantics=given)
    stored = {**given, "properties": {"s": "x", "n": "1", "t": "true", "o": '{"a":[1]}'}}
    for kept in (None, {}, {"properties": {}, "relations": [], "unknown": 1}):
        call.put("/a", "again", semantics=kept)
        assert call.get("/a").json["semantics"] == stored
    call.put("/a", semantics={"comments": ["c"]})
    assert call.get("/a").json["semantics"] == {"comments": ["c"]}


def test_a_file_made_again_is_a_new_one(call: Caller) -> None:
    call.put("/a", semantics={"comments": ["c"]})
    call.delete("/a")
    call.put("/a", if_match="0")
    assert call.get("/a").json["semantics"] == {}
    assert call.get("/a").json["revision"] == "rev_3"


def test_a_large_binary_round_trips(call: Caller) -> None:
    content = bytes(range(256)) * 2000
    call.put_bytes("/big", content)
    assert base64.b64decode(call.get("/big").json["content"]) == content
