"""Ops and their ends, where the answers alone do not show it."""

import pytest

from tests.unit.server.conftest import Caller, Reply

BASE = "/v1/workspaces/local"


def wrote(call: Caller, path: str = "/crm/draft.json", content: str = "x") -> str:
    return str(call.put(path, content).json["opId"])


def ack(call: Caller, op: str, **said: object) -> Reply:
    return call("POST", f"{BASE}/writeback/{op}/ack", body={"success": True, **said})


def events(call: Caller) -> list[tuple[str, str]]:
    return [(event["type"], event["path"]) for event in call("GET", "events").json["events"]]


def test_the_same_ack_again_does_nothing(call: Caller) -> None:
    op = wrote(call)
    assert ack(call, op, externalId="1").json["draft"]["action"] == "renamed"
    before = events(call)
    again = ack(call, op, externalId="1")
    assert (again.status, again.json["draft"]) == (200, {"action": "none"})
    assert events(call) == before
    assert call("GET", f"{BASE}/ops/{op}").json["attemptCount"] == 1


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True)])
def test_another_end_of_a_settled_op_is_refused(call: Caller, first: bool, second: bool) -> None:
    op = wrote(call)
    ack(call, op, success=first)
    assert ack(call, op, success=second).json["code"] == "invalid_state"


def test_a_draft_that_was_saved_again_is_not_removed(call: Caller) -> None:
    call.put("/crm/1.json", "the record")
    op = wrote(call)
    wrote(call, content="newer, and nowhere else")
    assert ack(call, op, externalId="1").json["draft"] == {"action": "none"}
    assert call.get("/crm/draft.json").json["content"] == "newer, and nowhere else"


def test_a_draft_that_was_saved_again_is_renamed_with_what_it_holds_now(call: Caller) -> None:
    op = wrote(call)
    wrote(call, content="newer")
    assert ack(call, op, externalId="1").json["draft"]["to"] == "/crm/1.json"
    assert call.get("/crm/1.json").json["content"] == "newer"


def test_a_rename_keeps_what_is_attached_and_makes_and_ends_directories(call: Caller) -> None:
    op = str(call.put("/crm/drafts/a", semantics={"relations": ["r"]}).json["opId"])
    ack(call, op, externalId="1", canonicalPath="/crm/people/deep/1")
    assert call.listed(depth=9) == [
        ("/crm", "dir"),
        ("/crm/people", "dir"),
        ("/crm/people/deep", "dir"),
        ("/crm/people/deep/1", "file"),
    ]
    assert call.get("/crm/people/deep/1").json["semantics"] == {"relations": ["r"]}
    assert call("GET", "tree").json["totalFiles"] == 1


@pytest.mark.parametrize("external_id", ["", " ", "..", "."])
def test_an_id_that_makes_no_name_renames_nothing(call: Caller, external_id: str) -> None:
    assert ack(call, wrote(call), externalId=external_id).json["draft"] == {"action": "none"}


def test_a_delete_and_a_file_outside_any_provider_have_no_draft(call: Caller) -> None:
    wrote(call, "/crm/a")
    gone = str(call.delete("/crm/a").json["opId"])
    assert ack(call, gone, externalId="1").json["draft"] == {"action": "none"}
    assert ack(call, wrote(call, "/top"), externalId="1").json["draft"] == {"action": "none"}


def test_an_op_of_another_workspace_is_not_there(call: Caller) -> None:
    op = wrote(call)
    call.token = call.issuer.sign(call.issuer.default_claims("other"))
    for route in (f"ops/{op}", "ops/1", "ops/op_", "ops/op_x", "ops/op_" + "9" * 30):
        assert call("GET", f"/v1/workspaces/other/{route}").status == 404
    assert call("GET", "/v1/workspaces/other/ops").json == {"items": [], "nextCursor": None}
    assert call("GET", "/v1/workspaces/other/writeback/pending").json == []


def test_failures_are_counted_by_provider_with_the_newest_error(call: Caller) -> None:
    for path, error in (("/crm/a", "first"), ("/crm/b", "second"), ("/Git/c", "other")):
        ack(call, wrote(call, path), success=False, error=error)
    call.put("/quiet/d")
    told = {row["provider"]: row for row in call("GET", f"{BASE}/sync/status").json["providers"]}
    assert {name: (row["deadLetteredOps"], row.get("lastError")) for name, row in told.items()} == {
        "crm": (2, "second"),
        "git": (1, "other"),
        "quiet": (0, None),
    }
    (only,) = call("GET", f"{BASE}/sync/status", provider="git").json["providers"]
    assert only == told["git"]
