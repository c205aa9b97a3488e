"""Sections 2, 3 and 23: what an error looks like, what a path is, and what a write does besides."""

import pytest

from tests.conformance.target import Target

errors = pytest.mark.section(2)
paths = pytest.mark.section(3)
effects = pytest.mark.section(23)


@errors
@pytest.mark.parametrize(
    ("status", "code", "method", "route"),
    [
        (400, "bad_request", "GET", "fs/file"),
        (400, "bad_request", "PUT", "fs/file"),
        (400, "bad_request", "DELETE", "fs/file"),
        (404, "not_found", "GET", "ops/op_0"),
        (404, "not_found", "GET", "fs/no-such-route"),
    ],
)
def test_an_error_has_code_message_and_the_correlation_id(
    relay: Target, status: int, code: str, method: str, route: str
) -> None:
    answer = relay.call(method, route, headers={"X-Correlation-Id": "corr-7", "If-Match": "*"}, body={"content": "x"})
    assert relay.refuses(answer, status, code)["correlationId"] == "corr-7"


@errors
@pytest.mark.parametrize("body", [b"{", b"[]", b"", b'{"content":1}'])
def test_a_body_that_is_not_the_json_expected_is_400(relay: Target, body: bytes) -> None:
    answer = relay.call("PUT", "fs/file", path=relay.at("a"), headers={"If-Match": "*"}, body=body)
    relay.refuses(answer, 400, "bad_request")


@paths
@pytest.mark.parametrize("name", ["sp ace", "Ünïcode/é", "e\u0301", "a*b?c", "line\nbreak", "co:lon", "x" * 300, "%2F"])
def test_names_are_kept_byte_by_byte(relay: Target, name: str) -> None:
    relay.written(relay.at(name), "content")
    assert relay.get(relay.at(name)).json()["path"] == relay.at(name)
    assert f"f {name}" in relay.listed()


@paths
def test_names_that_differ_in_case_or_normal_form_are_different_files(relay: Target) -> None:
    for name in ("Straße", "straße", "\u00e9", "e\u0301"):
        relay.written(relay.at(name), name)
    assert [relay.get(relay.at(name)).json()["content"] for name in ("Straße", "straße")] == ["Straße", "straße"]
    assert len(relay.listed()) == 4


@paths
def test_a_trailing_slash_and_a_missing_leading_one_are_mended(relay: Target) -> None:
    relay.written(relay.at("a"))
    assert relay.get(relay.at("a") + "/").status_code == 200
    assert relay.get(relay.at("a")[1:]).json()["path"] == relay.at("a")


@paths
def test_directories_exist_while_they_hold_a_file(relay: Target) -> None:
    relay.written(relay.at("d/e/f"))
    assert relay.listed() == ["d d", "d d/e", "f d/e/f"]
    assert relay.get(relay.at("d/e")).status_code == 404
    relay.delete(relay.at("d/e/f"))
    assert relay.listed() == []


@paths
def test_a_file_and_a_file_below_it_can_stand_together(relay: Target) -> None:
    relay.written(relay.at("a"), "above")
    relay.written(relay.at("a/b"), "below")
    assert relay.listed() == ["f a", "f a/b"]


@paths
def test_the_directory_marker_is_an_ordinary_file(relay: Target) -> None:
    relay.written(relay.at("d/.relayfile.acl"), "{}")
    assert relay.listed() == ["d d", "f d/.relayfile.acl"]


@effects
def test_the_provider_is_the_first_segment_in_lower_case(relay: Target) -> None:
    answer = relay.put("/ConFormance" + relay.at("a"))
    assert answer.json()["writeback"]["provider"] == "conformance"
    relay.delete("/ConFormance" + relay.at("a"))


@effects
def test_the_content_type_is_markdown_unless_said(relay: Target) -> None:
    body = {"content": "x"}
    for name, given in (("a", {}), ("b", {"contentType": "application/json"})):
        relay.call("PUT", "fs/file", path=relay.at(name), headers={"If-Match": "0"}, body={**body, **given})
    assert [relay.get(relay.at(name)).json()["contentType"] for name in "ab"] == ["text/markdown", "application/json"]


@effects
def test_the_time_of_a_file_is_that_of_its_last_write(relay: Target) -> None:
    relay.written(relay.at("a"), "1")
    first = relay.get(relay.at("a")).json()["lastEditedAt"]
    relay.written(relay.at("a"), "2")
    body, (entry,) = relay.get(relay.at("a")).json(), relay.tree()
    assert body["lastEditedAt"] == entry["updatedAt"]
    assert body["lastEditedAt"] >= first
