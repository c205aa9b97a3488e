"""Sections 21 and 25: limits, and what only our own server has."""

import base64
from typing import Any

import pytest

from tests.conformance.conftest import Launch
from tests.conformance.target import Target

limits = pytest.mark.section(21)
extensions = pytest.mark.section(25)


@limits
def test_a_body_beyond_the_cap_is_413(launch: Launch) -> None:
    relay = launch(body_cap=200)
    files = [{"path": "/a", "content": "x" * 200}, {"path": "/b", "content": "x"}]
    bodies: dict[str, Any] = {"PUT fs/file": {"content": "x" * 200}, "POST fs/bulk": {"files": files}}
    for route, body in {**bodies, "POST fs/merge": {"content": "x" * 200}}.items():
        answer = relay.call(*route.split(), path=relay.at("a"), headers={"If-Match": "*"}, body=body)
        relay.refuses(answer, 413, "payload_too_large")
    assert relay.tree("/") == []
    assert relay.put(relay.at("a"), "x").status_code == 202


@limits
def test_requests_are_counted_by_subject(launch: Launch) -> None:
    relay = launch(rate_limit=3)
    assert relay.sign is not None
    answers = [relay.call("GET", "fs/tree", token=relay.sign(sub="alice")) for _ in range(8)]
    statuses = [answer.status_code for answer in answers]
    # A window may end in between; each lets three through.
    assert statuses[:3] == [200] * 3
    assert 429 in statuses
    refused = answers[statuses.index(429)]
    relay.refuses(refused, 429, "rate_limited")
    assert refused.headers["retry-after"] == "60"
    assert relay.call("GET", "fs/tree", token=relay.sign(sub="bob")).status_code == 200


@limits
@pytest.mark.parametrize("route", ["fs/events", "fs/query", "ops"])
def test_a_page_holds_at_most_a_thousand(relay: Target, route: str) -> None:
    for half in range(2):
        relay.bulk(*({"path": relay.at(f"{half}{number}"), "content": ""} for number in range(505)))
    answer = relay.call("GET", route, limit=5000).json()
    (rows,) = [value for value in answer.values() if isinstance(value, list)]
    assert len(rows) == 1000
    assert answer["nextCursor"]


@pytest.fixture
def extended(relay: Target) -> Target:
    if not relay.features:
        pytest.skip("this server announces no extensions")
    return relay


@extensions
def test_sizes_of_decoded_bytes(extended: Target) -> None:
    if "byte-size" not in extended.features:
        pytest.skip("this server does not announce byte-size")
    extended.written(extended.at("a"), "grün")
    extended.written(extended.at("b"), base64.b64encode(bytes(10)).decode(), encoding="base64")
    expected = [(5, "utf-8"), (10, "base64")]
    assert [(row["byteSize"], row["encoding"]) for row in extended.tree()] == expected
    items = extended.call("GET", "fs/query", path=extended.place).json()["items"]
    assert [(row["byteSize"], row["encoding"]) for row in items] == expected
    assert extended.get(extended.at("b")).json()["byteSize"] == 10


@extensions
def test_a_bulk_says_what_a_single_write_would_have_got(extended: Target) -> None:
    if "bulk-status" not in extended.features:
        pytest.skip("this server does not announce bulk-status")
    extended.written(extended.at("a"))
    body = extended.bulk({"path": extended.at("a"), "content": "y", "ifMatch": "0"}).json()
    (error,) = body["errors"]
    single = extended.put(extended.at("a"), "y", if_match="0")
    assert (error["status"], error["body"]) == (single.status_code, single.json())


@extensions
def test_without_extensions_nothing_of_them_is_seen(relay: Target) -> None:
    if relay.features:
        pytest.skip("this server announces extensions")
    relay.written(relay.at("a"))
    (row,) = relay.tree()
    assert not {"byteSize", "encoding"} & row.keys()
    assert "byteSize" not in relay.get(relay.at("a")).json()
    (error,) = relay.bulk({"path": relay.at("a"), "content": "y", "ifMatch": "0"}).json()["errors"]
    assert not {"status", "body"} & error.keys()
