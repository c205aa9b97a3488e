"""Many upserts in one request: each with its own precondition, identity and error."""

from typing import Any

import pytest

from tests.unit.server.conftest import Caller


def file(path: str, content: str = "x", **members: Any) -> dict[str, Any]:
    return {"path": path, "content": content, **members}


def identity(key: str, **members: Any) -> dict[str, Any]:
    return {"contentIdentity": {"kind": "k", "key": key, **members}}


def test_an_answer(call: Caller) -> None:
    call.put("/x/there")
    reply = call.bulk(
        file("/github/a", contentType="text/plain", writebackIntent="update", **identity("1", ttlSeconds=5)),
        file("/x/there", ifMatch="rev_7"),
    )
    assert reply.status == 202
    (error,) = reply.json.pop("errors")
    assert reply.json == {
        "written": 1,
        "errorCount": 1,
        "results": [
            {
                "path": "/github/a",
                "revision": "rev_2",
                "contentType": "text/plain",
                "opId": "op_2",
                "contentIdentity": {"kind": "k", "key": "1", "ttlSeconds": 5},
                "writeback": {"provider": "github", "state": "pending"},
            }
        ],
        "correlationId": "c1",
    }
    assert error["status"] == 409
    assert error["body"]["code"] == "revision_conflict"
    assert error["body"]["correlationId"] == "c1"


def test_the_plain_api_says_no_status(plain_call: Caller) -> None:
    plain_call.put("/a")
    plain_call.rules_file.write_text("PUT /ruled 422")
    errors = plain_call.bulk(file("/a", ifMatch="0"), file("/ruled")).json["errors"]
    assert [sorted(error) for error in errors] == [
        ["code", "currentRevision", "expectedRevision", "message", "path"],
        ["code", "message", "path"],
    ]


@pytest.mark.parametrize(
    ("exists", "if_match", "error"),
    [
        (False, None, None),
        (False, "", None),
        (False, "*", None),
        (False, "0", None),
        (False, "rev_1", ("conflict", None, 404, "not_found")),
        (True, None, None),
        (True, "", None),
        (True, "*", None),
        (True, "rev_1", None),
        (True, "0", ("conflict", "rev_1", 409, "revision_conflict")),
        (True, "rev_2", ("conflict", "rev_1", 409, "revision_conflict")),
        (True, '"rev_1"', ("conflict", "rev_1", 409, "revision_conflict")),
    ],
)
def test_the_precondition_table(call: Caller, exists: bool, if_match: str | None, error: Any) -> None:
    if exists:
        call.put("/a", "before")
    reply = call.bulk(file("/a", "after", ifMatch=if_match)).json
    assert reply["written"] == (error is None)
    if error is None:
        assert (reply["errors"], call.get("/a").json["content"]) == ([], "after")
        return
    (found,) = reply["errors"]
    assert (found["code"], found.get("currentRevision"), found["status"], found["body"]["code"]) == error
    assert found["expectedRevision"] == if_match


def test_files_apply_in_order_and_each_on_its_own(call: Caller) -> None:
    reply = call.bulk(
        file("/a", "1", ifMatch="0"),
        file("/a", "2", ifMatch="0"),
        file("/a", "3", ifMatch="rev_1"),
        file("/b", "4"),
    ).json
    assert [row["revision"] for row in reply["results"]] == ["rev_1", "rev_2", "rev_3"]
    assert [row["path"] for row in reply["errors"]] == ["/a"]
    assert call.get("/a").json["content"] == "3"


def test_files_that_cannot_be(call: Caller) -> None:
    reply = call.bulk(
        file(""),
        file("/"),
        file("/a", encoding="latin-1"),
        file("/b", "A", encoding="base64"),
        file("c"),
    ).json
    assert [error["code"] for error in reply["errors"]] == [
        "invalid_path",
        "invalid_path",
        "invalid_encoding",
        "invalid_content",
    ]
    assert {error["status"] for error in reply["errors"]} == {400}
    assert [row["path"] for row in reply["results"]] == ["/c"]


@pytest.mark.parametrize(
    "body", [b"", b"{}", {"files": []}, {"files": None}, {"files": [{"path": 1}]}, b'{"files":', b"[" * 10**5]
)
def test_a_body_without_files(call: Caller, body: Any) -> None:
    assert call("POST", "bulk", body=body).status == 400


def test_one_file_too_many_bytes_refuses_them_all(call: Caller) -> None:
    reply = call("POST", "bulk", oversized=True)
    assert (reply.status, reply.json["code"]) == (413, "payload_too_large")


def test_a_resent_request_gets_the_first_answer(call: Caller) -> None:
    files = [file("/a", "1", ifMatch="0", **identity("1")), file("/b", "1", ifMatch="0", **identity("2"))]
    first = call.bulk(*files).json
    call.put("/a", "newer")
    again = call.bulk(*files).json
    assert again["results"] == first["results"]
    assert (first["written"], again["written"], again["errorCount"]) == (2, 0, 0)
    assert call.get("/a").json["content"] == "newer"


def test_only_kind_and_key_are_compared(call: Caller) -> None:
    call.bulk(file("/a", "1", **identity("1")))
    (found,) = call.bulk(file("/other", "2", **identity("1"))).json["results"]
    assert (found["path"], found["revision"]) == ("/a", "rev_1")
    assert call.get("/other").status == 404
    other_kind = {"contentIdentity": {"kind": "k2", "key": "1"}}
    assert call.bulk(file("/other", "2", **other_kind)).json["written"] == 1


def test_a_refused_write_leaves_its_identity_free(call: Caller) -> None:
    call.put("/a")
    assert call.bulk(file("/a", ifMatch="0", **identity("1"))).json["errorCount"] == 1
    assert call.bulk(file("/a", ifMatch="rev_1", **identity("1"))).json["written"] == 1


def test_an_identity_runs_out(call: Caller) -> None:
    call.bulk(file("/a", "1", **identity("1", ttlSeconds=60)))
    call.now += 59_999_999_999
    assert call.bulk(file("/a", "2", **identity("1"))).json["written"] == 0
    call.now += 1
    assert call.bulk(file("/a", "3", **identity("1"))).json["written"] == 1
    call.now += 10**18
    assert call.bulk(file("/a", "4", **identity("1"))).json["written"] == 0


@pytest.mark.parametrize("ttl", [None, 0, -5, 10**15])
def test_an_identity_without_a_sensible_end_lasts(call: Caller, ttl: int | None) -> None:
    call.bulk(file("/a", "1", **identity("1", ttlSeconds=ttl)))
    call.now += 10**18
    assert call.bulk(file("/a", "2", **identity("1"))).json["written"] == 0


def test_the_events_of_a_bulk_carry_no_correlation_id(call: Caller) -> None:
    call.bulk(file("/a"), file("/a"))
    found = call("GET", "events").json["events"]
    assert [(event["type"], event["correlationId"]) for event in found] == [("file.created", ""), ("file.updated", "")]


def test_a_rule_refuses_single_files(call: Caller) -> None:
    call.rules_file.write_text(
        'PUT /no/** 422 {"code":"schema_violation","message":"title is required"}\nPUT /odd 418\nPUT /list 400 [1]'
    )
    reply = call.bulk(file("/no/1"), file("/yes"), file("/odd"), file("/list")).json
    assert reply["written"] == 1
    first, second, third = reply["errors"]
    assert first == {
        "path": "/no/1",
        "code": "schema_violation",
        "message": "title is required",
        "status": 422,
        "body": {"code": "schema_violation", "message": "title is required"},
    }
    assert (second["code"], second["status"], second["body"]["correlationId"]) == ("refused", 418, "c1")
    assert (third["code"], third["body"]) == ("refused", [1])


def test_any_other_status_concerns_the_whole_request(call: Caller) -> None:
    call.rules_file.write_text("PUT /no/** 422\nPUT /flaky/** 503 retry-after=7 times=2")
    for _ in range(2):
        reply = call.bulk(file("/no/1"), file("/yes"), file("/flaky/1"), file("/flaky/2"))
        assert (reply.status, reply.json["code"], reply.headers["Retry-After"]) == (503, "unavailable", "7")
        assert call.get("/yes").status == 404
    reply = call.bulk(file("/no/1"), file("/yes"), file("/flaky/1"))
    assert (reply.status, reply.json["written"], reply.json["errorCount"]) == (202, 2, 1)


def test_a_4xx_is_used_up_file_by_file(call: Caller) -> None:
    call.rules_file.write_text("PUT /** 429 retry-after=3 times=2")
    reply = call.bulk(*(file(f"/{number}") for number in range(4)))
    assert [error["path"] for error in reply.json["errors"]] == ["/0", "/1"]
    assert reply.headers["Retry-After"] == "3"
    assert "Retry-After" not in call.bulk(file("/0")).headers
