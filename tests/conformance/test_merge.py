"""Section 11: POST /fs/merge. A server may have no merge for text, which it says with 422."""

from typing import Any

import pytest

from tests.conformance.target import Target

pytestmark = pytest.mark.section(11)
BASE = "one\ntwo\nthree\nfour\nfive\n"


def merge(relay: Target, revision: str, content: str, **changed: Any) -> Any:
    body = {
        "strategy": "three-way-lines-v1",
        "content": content,
        "baseRevision": revision,
        "baseContent": BASE,
        **changed,
    }
    answer = relay.call("POST", "fs/merge", path=relay.at("a"), body=body)
    known = body["strategy"] == "three-way-lines-v1"
    if known and answer.status_code == 422 and answer.json().get("reason") in {"unknown_strategy", "unsupported"}:
        pytest.skip("this server merges no text")
    return answer


def test_both_sides_go_in(relay: Target) -> None:
    base = relay.written(relay.at("a"), BASE)
    theirs = relay.written(relay.at("a"), BASE.replace("five", "FIVE"))
    answer = merge(relay, base, BASE.replace("one", "ONE"))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["strategy"], body["baseRevision"], body["mergedAgainstRevision"]) == (
        "three-way-lines-v1",
        base,
        theirs,
    )
    now = relay.get(relay.at("a")).json()
    assert (now["revision"], now["content"]) == (body["targetRevision"], "ONE\ntwo\nthree\nfour\nFIVE\n")


def test_nothing_changed_there_is_a_plain_write(relay: Target) -> None:
    base = relay.written(relay.at("a"), BASE)
    assert merge(relay, base, "mine\n").status_code == 200
    assert relay.get(relay.at("a")).json()["content"] == "mine\n"


def test_a_conflict_changes_nothing_and_shows_the_three(relay: Target) -> None:
    base = relay.written(relay.at("a"), BASE)
    theirs = relay.written(relay.at("a"), BASE.replace("three", "theirs"))
    body = relay.refuses(merge(relay, base, BASE.replace("three", "mine")), 409, "merge_conflict")
    assert body["currentRevision"] == theirs
    (conflict,) = body["conflicts"]
    assert conflict["unit"]
    assert conflict["reason"]
    assert relay.get(relay.at("a")).json()["revision"] == theirs


def test_a_base_that_was_not_is_refused(relay: Target) -> None:
    base = relay.written(relay.at("a"), BASE)
    relay.refuses(merge(relay, base, "mine\n", baseContent="other\n"), 409, "merge_base_unavailable")
    relay.refuses(merge(relay, "rev_0", "mine\n"), 409, "merge_base_unavailable")


def test_what_cannot_be_merged_is_422_with_a_reason(relay: Target) -> None:
    base = relay.written(relay.at("a"), BASE)
    assert relay.refuses(merge(relay, base, "x", strategy="none-v0"), 422, "merge_ineligible")["reason"]
    relay.delete(relay.at("a"))
    assert relay.refuses(merge(relay, base, "x"), 422, "merge_ineligible")["reason"]


def test_a_text_beyond_512_kib_is_422(relay: Target) -> None:
    base = relay.written(relay.at("a"), BASE)
    relay.refuses(merge(relay, base, "x" * (512 * 1024 + 1)), 422, "merge_ineligible")


def test_the_same_identity_merges_once(relay: Target) -> None:
    base = relay.written(relay.at("a"), BASE)
    identity = {"kind": "conformance-merge", "key": relay.place}
    first = merge(relay, base, "mine\n", contentIdentity=identity).json()
    assert merge(relay, base, "mine\n", contentIdentity=identity).json()["targetRevision"] == first["targetRevision"]
