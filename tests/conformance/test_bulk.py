"""Sections 10 and 22: many files in one request, and the same request twice."""

from typing import Any

import pytest

from tests.conformance.target import Target

bulk = pytest.mark.section(10)
idempotency = pytest.mark.section(22)


def sent(relay: Target, *files: dict[str, Any]) -> dict[str, Any]:
    """The answer to a bulk of these files, whose paths are names in the test's directory."""
    answer = relay.bulk(*({"contentType": "text/plain", **file, "path": relay.at(file["path"])} for file in files))
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    assert body["errorCount"] == len(body["errors"])
    return body


@bulk
def test_what_a_bulk_answers(relay: Target) -> None:
    body = sent(relay, {"path": "a", "content": "1"}, {"path": "b", "content": "AA==", "encoding": "base64"})
    assert (body["written"], body["errors"]) == (2, [])
    assert body["correlationId"]
    assert [row["path"] for row in body["results"]] == [relay.at("a"), relay.at("b")]
    for row in body["results"]:
        assert relay.get(row["path"]).json()["revision"] == row["revision"]
        assert row["opId"]


@bulk
@pytest.mark.parametrize("files", [[], None])
def test_an_empty_bulk_is_400(relay: Target, files: object) -> None:
    relay.refuses(relay.call("POST", "fs/bulk", body={"files": files}), 400, "bad_request")


@bulk
@pytest.mark.parametrize(("if_match", "written"), [(None, 1), ("", 1), ("*", 1), ("0", 0), ("rev_0", 0)])
def test_the_precondition_on_an_existing_file(relay: Target, if_match: str | None, written: int) -> None:
    revision = relay.written(relay.at("a"))
    body = sent(relay, {"path": "a", "content": "2", **({} if if_match is None else {"ifMatch": if_match})})
    assert body["written"] == written
    if not written:
        (error,) = body["errors"]
        assert (error["path"], error["code"], error["currentRevision"]) == (relay.at("a"), "conflict", revision)


@bulk
def test_a_revision_of_an_absent_file_is_a_conflict_without_one(relay: Target) -> None:
    (error,) = sent(relay, {"path": "a", "content": "x", "ifMatch": "rev_0"})["errors"]
    assert (error["code"], error.get("currentRevision")) == ("conflict", None)


@bulk
def test_a_revision_is_compared(relay: Target) -> None:
    revision = relay.written(relay.at("a"))
    assert sent(relay, {"path": "a", "content": "2", "ifMatch": revision})["written"] == 1
    assert sent(relay, {"path": "a", "content": "3", "ifMatch": revision})["errorCount"] == 1


@bulk
def test_each_file_stands_for_itself(relay: Target) -> None:
    body = sent(
        relay,
        {"path": "a", "content": "x"},
        {"path": "b", "content": "x", "encoding": "rot13"},
        {"path": "c", "content": "!!", "encoding": "base64"},
        {"path": "d", "content": "x"},
    )
    assert [error["code"] for error in body["errors"]] == ["invalid_encoding", "invalid_content"]
    assert (body["written"], relay.listed()) == (2, ["f a", "f d"])


@bulk
def test_a_path_that_is_none_is_invalid(relay: Target) -> None:
    body = relay.bulk({"path": "", "content": "x"}).json()
    assert [error["code"] for error in body["errors"]] == ["invalid_path"]


@bulk
def test_the_same_path_twice_is_two_writes_in_order(relay: Target) -> None:
    body = sent(relay, {"path": "a", "content": "1", "ifMatch": "0"}, {"path": "a", "content": "2"})
    assert body["written"] == 2
    assert relay.get(relay.at("a")).json()["content"] == "2"


@bulk
def test_events_of_a_bulk_have_no_correlation_id(relay: Target) -> None:
    head = relay.head()
    sent(relay, {"path": "a", "content": "x"})
    assert [event["correlationId"] for event in relay.since(head)] == [""]


@idempotency
def test_the_same_identity_is_the_same_write(relay: Target) -> None:
    identity = {"kind": "conformance", "key": relay.place}
    first = sent(relay, {"path": "a", "content": "1", "ifMatch": "0", "contentIdentity": identity})
    again = sent(relay, {"path": "a", "content": "1", "ifMatch": "0", "contentIdentity": identity})
    assert (first["written"], again["written"], again["errors"]) == (1, 0, [])
    assert [(row["revision"], row["opId"]) for row in again["results"]] == [
        (row["revision"], row["opId"]) for row in first["results"]
    ]
    other = sent(relay, {"path": "b", "content": "2", "contentIdentity": identity})
    assert (other["written"], other["results"][0]["path"]) == (0, relay.at("a"))
    assert relay.listed() == ["f a"]


@idempotency
def test_another_kind_or_key_is_another_write(relay: Target) -> None:
    for kind, key in (("k", relay.place), ("k", relay.place + "2"), ("l", relay.place)):
        body = sent(relay, {"path": "a", "content": "x", "contentIdentity": {"kind": kind, "key": key}})
        assert body["written"] == 1


@idempotency
def test_the_correlation_id_is_told_and_decides_nothing(relay: Target) -> None:
    head = relay.head()
    headers = {"If-Match": "*", "X-Correlation-Id": "the-same"}
    written = [
        relay.call("PUT", "fs/file", path=relay.at("a"), headers=headers, body={"content": content}).json()["opId"]
        for content in ("1", "2")
    ]
    changes = [event for event in relay.since(head) if event["type"].startswith("file.")]
    ops = [relay.call("GET", f"ops/{op}").json() for op in written]
    assert [said["correlationId"] for said in (*changes, *ops)] == ["the-same"] * 4
