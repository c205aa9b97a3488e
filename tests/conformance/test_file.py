"""Sections 7, 8 and 9: one file, read, written and deleted."""

import base64
import hashlib
from typing import Any

import pytest

from tests.conformance.conftest import Launch
from tests.conformance.target import Target

reading = pytest.mark.section(7)
writing = pytest.mark.section(8)
deleting = pytest.mark.section(9)


def hash_of(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


@reading
def test_what_a_file_says(relay: Target) -> None:
    revision = relay.written(relay.at("a"), "grün\n")
    answer = relay.get(relay.at("a"))
    body = answer.json()
    assert answer.headers["etag"] == revision
    assert (
        body.items()
        >= {
            "path": relay.at("a"),
            "revision": revision,
            "contentHash": hash_of("grün\n"),
            "contentType": "text/plain",
            "content": "grün\n",
            "provider": relay.place[1:],
            "semantics": {},
        }.items()
    )
    assert "encoding" not in body
    assert body["lastEditedAt"]


@reading
def test_an_absent_file_is_404(relay: Target) -> None:
    relay.refuses(relay.get(relay.at("a")), 404, "not_found")


@reading
def test_there_is_no_range_and_no_304(relay: Target) -> None:
    revision = relay.written(relay.at("a"), "0123456789")
    for headers in ({"If-None-Match": revision}, {"Range": "bytes=0-1"}):
        answer = relay.call("GET", "fs/file", path=relay.at("a"), headers=headers)
        assert (answer.status_code, answer.json()["content"]) == (200, "0123456789")


@writing
def test_what_a_write_answers(relay: Target) -> None:
    answer = relay.put(relay.at("a"), if_match="0")
    body = answer.json()
    assert answer.status_code == 202
    assert (body["status"], body["writeback"]["state"]) == ("queued", "pending")
    assert body["opId"]
    assert relay.get(relay.at("a")).json()["revision"] == body["targetRevision"]


@writing
@pytest.mark.parametrize("form", ["{}", '"{}"', 'W/"{}"'])
def test_each_form_of_if_match(relay: Target, form: str) -> None:
    revision = relay.written(relay.at("a"))
    assert relay.put(relay.at("a"), "y", if_match=form.format(revision)).status_code == 202
    relay.refuses(relay.put(relay.at("a"), "z", if_match=form.format(revision)), 409, "revision_conflict")
    assert relay.put(relay.at("b"), if_match=form.format("0")).status_code == 202
    assert relay.put(relay.at("b"), if_match=form.format("*")).status_code == 202


@writing
@pytest.mark.parametrize("value", ["", '""', "W/"])
def test_a_missing_if_match_is_412(relay: Target, value: str) -> None:
    relay.refuses(relay.put(relay.at("a"), if_match=value), 412, "precondition_failed")
    assert relay.listed() == []


@writing
def test_create_only_refuses_an_existing_file(relay: Target) -> None:
    revision = relay.written(relay.at("a"), "first")
    body = relay.refuses(relay.put(relay.at("a"), "second", if_match="0"), 409, "revision_conflict")
    assert body["currentRevision"] == revision
    assert relay.get(relay.at("a")).json()["content"] == "first"


@writing
def test_a_revision_of_an_absent_file_is_404(relay: Target) -> None:
    relay.refuses(relay.put(relay.at("a"), if_match="rev_1"), 404, "not_found")


@writing
def test_a_conflict_tells_both_revisions_and_shows_what_is_there(relay: Target) -> None:
    first = relay.written(relay.at("a"), "1")
    second = relay.written(relay.at("a"), "2" * 5000)
    body = relay.refuses(relay.put(relay.at("a"), "3", if_match=first), 409, "revision_conflict")
    assert (body["expectedRevision"], body["currentRevision"]) == (first, second)
    assert body["currentContentPreview"] == "2" * 4000


@writing
def test_a_write_that_was_sent_twice_conflicts_with_itself(relay: Target) -> None:
    first = relay.written(relay.at("a"))
    second = relay.put(relay.at("a"), "y", if_match=first).json()["targetRevision"]
    body = relay.refuses(relay.put(relay.at("a"), "y", if_match=first), 409, "revision_conflict")
    assert body["currentRevision"] == second


@writing
@pytest.mark.parametrize("name", ["", "utf-8", "utf8"])
def test_text_encodings(relay: Target, name: str) -> None:
    relay.written(relay.at("a"), "é\0\n", encoding=name)
    assert relay.get(relay.at("a")).json()["content"] == "é\0\n"


@writing
@pytest.mark.parametrize("content", ["AAE=", "AAE"])
def test_base64_with_and_without_padding(relay: Target, content: str) -> None:
    relay.written(relay.at("a"), content, encoding="base64")
    body = relay.get(relay.at("a")).json()
    assert (body["encoding"], body["contentHash"]) == ("base64", hash_of(b"\0\1"))
    assert base64.b64decode(body["content"] + "=" * (-len(body["content"]) % 4)) == b"\0\1"


@writing
@pytest.mark.parametrize("body", [{"encoding": "latin-1"}, {"encoding": "base64", "content": "!!"}])
def test_content_that_cannot_be_decoded_is_400(relay: Target, body: dict[str, Any]) -> None:
    content = body.pop("content", "x")
    relay.refuses(relay.put(relay.at("a"), content, **body), 400, "bad_request")
    assert relay.listed() == []


@writing
def test_semantics_stay_until_others_come(relay: Target) -> None:
    attached = {"properties": {"state": "open", "n": 7}, "relations": ["r"], "comments": ["c"]}
    relay.written(relay.at("a"), semantics=attached)
    kept = {**attached, "properties": {"state": "open", "n": "7"}}
    assert relay.get(relay.at("a")).json()["semantics"] == kept
    relay.written(relay.at("a"), "again")
    empty: tuple[Any, ...] = ({}, None)
    for nothing in empty:
        relay.written(relay.at("a"), "again", semantics=nothing)
        assert relay.get(relay.at("a")).json()["semantics"] == kept
    relay.written(relay.at("a"), semantics={"relations": ["s"]})
    assert relay.get(relay.at("a")).json()["semantics"] == {"relations": ["s"]}


@writing
def test_revisions_never_come_back(relay: Target) -> None:
    seen = [relay.written(relay.at("a"), "same") for _ in range(3)]
    seen.append(relay.delete(relay.at("a")).json()["targetRevision"])
    seen.append(relay.written(relay.at("a"), "same"))
    assert len(set(seen)) == 5


@deleting
def test_a_delete_has_a_revision_of_its_own(relay: Target) -> None:
    revision = relay.written(relay.at("a"))
    answer = relay.delete(relay.at("a"), if_match=revision)
    assert answer.status_code == 202
    assert answer.json()["status"] == "queued"
    assert answer.json()["targetRevision"] != revision
    relay.refuses(relay.get(relay.at("a")), 404, "not_found")


@deleting
def test_the_preconditions_of_a_delete(relay: Target) -> None:
    first = relay.written(relay.at("a"))
    second = relay.written(relay.at("a"))
    relay.refuses(relay.delete(relay.at("a"), if_match=""), 412, "precondition_failed")
    relay.refuses(relay.delete(relay.at("a"), if_match="0"), 409, "revision_conflict")
    body = relay.refuses(relay.delete(relay.at("a"), if_match=first), 409, "revision_conflict")
    assert body["currentRevision"] == second
    assert relay.delete(relay.at("a"), if_match="*").status_code == 202


@deleting
@pytest.mark.parametrize("if_match", ["*", "rev_1", "0"])
def test_deleting_what_is_not_there_is_404(relay: Target, if_match: str) -> None:
    relay.refuses(relay.delete(relay.at("a"), if_match=if_match), 404, "not_found")


@deleting
def test_a_directory_is_not_deleted(relay: Target) -> None:
    relay.written(relay.at("d/a"))
    relay.refuses(relay.delete(relay.at("d")), 404, "not_found")


@deleting
def test_a_storm_of_deletes_is_held_up(launch: Launch) -> None:
    relay = launch(delete_storm=2)
    for name in "abc":
        relay.written(relay.at(name))
    assert [relay.delete(relay.at(name)).status_code for name in "ab"] == [202, 202]
    for _ in range(2):
        answer = relay.delete(relay.at("c"))
        relay.refuses(answer, 429, "delete_storm_rejected")
        assert answer.headers["retry-after"] == "60"
    assert relay.get(relay.at("c")).status_code == 200
