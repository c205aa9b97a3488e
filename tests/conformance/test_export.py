"""Section 15: GET /fs/export."""

import base64
import io
import tarfile
from datetime import datetime

import pytest

from tests.conformance.target import Target

pytestmark = pytest.mark.section(15)


@pytest.fixture
def filled(relay: Target) -> Target:
    relay.written(relay.at("d/text"), "one\ntwo\n")
    relay.written(relay.at("d/binary"), base64.b64encode(b"\0\xff").decode(), encoding="base64")
    relay.written(relay.at("empty"), "")
    relay.written(relay.at("open"), "no end of line")
    return relay


def test_json_is_an_array_of_files_sorted_by_path(filled: Target) -> None:
    answer = filled.call("GET", "fs/export", path=filled.place)
    names = ["d/binary", "d/text", "empty", "open"]
    assert answer.json() == [filled.get(filled.at(name)).json() for name in names]
    assert filled.call("GET", "fs/export", path=filled.place, format="json").json() == answer.json()


def test_a_tar_holds_the_decoded_bytes(filled: Target) -> None:
    answer = filled.call("GET", "fs/export", path=filled.place, format="tar")
    assert answer.headers["content-type"] == "application/gzip"
    assert "workspace-export.tar.gz" in answer.headers["content-disposition"]
    with tarfile.open(fileobj=io.BytesIO(answer.content), mode="r:gz") as archive:
        members = archive.getmembers()
        contents = {member.name: file.read() for member in members if (file := archive.extractfile(member))}
    start = filled.place[1:]
    assert contents == {
        f"{start}/d/binary": b"\0\xff",
        f"{start}/d/text": b"one\ntwo\n",
        f"{start}/empty": b"",
        f"{start}/open": b"no end of line",
    }
    assert {member.mode for member in members} == {0o644}
    for member in members:
        edited = filled.get("/" + member.name).json()["lastEditedAt"]
        assert member.mtime == int(datetime.fromisoformat(edited).timestamp())


def test_a_patch_adds_every_text(filled: Target) -> None:
    answer = filled.call("GET", "fs/export", path=filled.place, format="patch")
    assert answer.headers["content-type"].startswith("text/x-diff")
    added = [line[1:] for line in answer.text.splitlines() if line.startswith("+") and not line.startswith("+++")]
    assert added == ["one", "two", "no end of line"]
    assert "d/binary" not in answer.text


def test_a_path_without_files_is_an_empty_array(relay: Target) -> None:
    assert relay.call("GET", "fs/export", path=relay.place).json() == []


def test_a_format_that_is_none_is_400(relay: Target) -> None:
    relay.refuses(relay.call("GET", "fs/export", path=relay.place, format="zip"), 400, "bad_request")
