"""Section 25, the extension `raw`: bytes as they are, both ways."""

import hashlib
from typing import Any

import httpx
import pytest

from tests.conformance.target import Target

pytestmark = pytest.mark.section(25)
BYTES = bytes(range(256)) * 40


@pytest.fixture
def raw(relay: Target) -> Target:
    if "raw" not in relay.features:
        pytest.skip("this server does not announce raw")
    return relay


def send(relay: Target, content: bytes = BYTES, if_match: str = "*", **headers: str) -> httpx.Response:
    given = {"Content-Type": "application/octet-stream", "If-Match": if_match, **headers}
    return relay.call("PUT", "fs/raw", path=relay.at("a"), headers=given, body=content)


def fetch(relay: Target, method: str = "GET", **headers: str) -> httpx.Response:
    return relay.call(method, "fs/raw", path=relay.at("a"), headers=headers)


def test_a_write_is_the_same_change_as_any_other(raw: Target) -> None:
    head = raw.head()
    answer = send(raw, if_match="0").json()
    (event,) = [event for event in raw.since(head) if event["type"].startswith("file.")]
    assert (event["revision"], event["contentHash"]) == (answer["targetRevision"], hashlib.sha256(BYTES).hexdigest())
    assert raw.call("GET", f"ops/{answer['opId']}").json()["path"] == raw.at("a")
    body = raw.get(raw.at("a")).json()
    assert (body["revision"], body["contentHash"]) == (event["revision"], event["contentHash"])


def test_a_read_gives_bytes_length_and_the_quoted_revision(raw: Target) -> None:
    revision = send(raw).json()["targetRevision"]
    for method, content in (("GET", BYTES), ("HEAD", b"")):
        answer = fetch(raw, method)
        assert (answer.status_code, answer.content) == (200, content)
        assert (answer.headers["etag"], answer.headers["content-length"]) == (f'"{revision}"', str(len(BYTES)))


@pytest.mark.parametrize(
    ("asked", "status", "shown"),
    [
        ("bytes=0-9", 206, BYTES[:10]),
        ("bytes=10000-", 206, BYTES[10000:]),
        ("bytes=-5", 206, BYTES[-5:]),
        ("bytes=10-99999", 206, BYTES[10:]),
        ("bytes=99999-", 416, None),
    ],
)
def test_ranges(raw: Target, asked: str, status: int, shown: bytes | None) -> None:
    send(raw)
    answer = fetch(raw, Range=asked)
    assert answer.status_code == status
    assert shown is None or answer.content == shown


def test_preconditions(raw: Target) -> None:
    revision = send(raw).json()["targetRevision"]
    assert fetch(raw, **{"If-None-Match": f'"{revision}"'}).status_code == 304
    assert fetch(raw, **{"If-None-Match": '"another"'}).status_code == 200
    raw.refuses(send(raw, if_match="0"), 409, "revision_conflict")
    raw.refuses(send(raw, if_match='"rev_0"'), 409, "revision_conflict")
    assert send(raw, b"next", if_match=f'"{revision}"').status_code == 202


def test_what_arrived_is_held_against_the_announced_digest(raw: Target) -> None:
    for announced, status, names in ((b"other", 400, []), (BYTES, 202, ["f a"])):
        headers: dict[str, Any] = {"X-Content-SHA256": hashlib.sha256(announced).hexdigest()}
        assert send(raw, **headers).status_code == status
        assert raw.listed() == names


def test_more_than_a_json_body_could_carry_goes_through(raw: Target) -> None:
    content = BYTES * 300
    assert send(raw, content).status_code == 202
    assert fetch(raw).content == content
    (row,) = raw.tree()
    assert (row["byteSize"], row["contentHash"]) == (len(content), hashlib.sha256(content).hexdigest())


def test_a_long_draft_gets_its_name_too(raw: Target) -> None:
    content = BYTES * 300
    op = send(raw, content).json()["opId"]
    said = {"success": True, "externalId": "17", "canonicalPath": raw.at("b")}
    if raw.call("POST", f"writeback/{op}/ack", body=said).json()["draft"]["action"] != "renamed":
        pytest.skip("a provider is at work behind this server")
    assert raw.call("GET", "fs/raw", path=raw.at("b")).content == content
    assert raw.listed() == ["f b"]


def test_an_absent_file_is_404(raw: Target) -> None:
    raw.refuses(fetch(raw), 404, "not_found")


def test_without_the_extension_there_is_no_such_route(relay: Target) -> None:
    if "raw" in relay.features:
        pytest.skip("this server announces raw")
    relay.refuses(fetch(relay), 404, "not_found")
