"""Sections 16, 17 and 18: what becomes of a write behind the server.

On a server that is not ours a provider may be at work: then an op may already have ended.
"""

from typing import Any

import pytest

from tests.conformance.target import Target

operations = pytest.mark.section(16)
ingress = pytest.mark.section(17)
queue = pytest.mark.section(18)
STATUSES = {"pending", "running", "succeeded", "failed", "dead_lettered", "canceled", "quarantined"}


def wrote(relay: Target, name: str = "d/draft.json", content: str = "x") -> str:
    """The op of a write."""
    return str(relay.put(relay.at(name), content).json()["opId"])


def ack(relay: Target, op: str, **said: Any) -> dict[str, Any]:
    answer = relay.call("POST", f"writeback/{op}/ack", body={"success": True, **said})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    assert (body["status"], body["id"], body["success"]) == ("acknowledged", op, said.get("success", True))
    return body


def op_of(relay: Target, op: str) -> dict[str, Any]:
    body: dict[str, Any] = relay.call("GET", f"ops/{op}").json()
    return body


def waiting(relay: Target) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = relay.call("GET", "writeback/pending").json()
    return rows


@pytest.fixture
def external(relay: Target) -> Target:
    """A server where ops wait for a consumer, which is the test."""
    if op_of(relay, wrote(relay, "probe"))["status"] != "pending":
        pytest.skip("a provider is at work behind this server")
    return relay


@operations
def test_what_an_op_says(relay: Target) -> None:
    answer = relay.put(relay.at("a")).json()
    body = op_of(relay, answer["opId"])
    assert (body["opId"], body["path"], body["revision"]) == (answer["opId"], relay.at("a"), answer["targetRevision"])
    assert (body["action"], body["provider"]) == ("file_upsert", relay.place[1:])
    assert body["status"] in STATUSES
    assert isinstance(body["attemptCount"], int)
    assert body["createdAt"]
    deleted = relay.delete(relay.at("a")).json()["opId"]
    assert op_of(relay, deleted)["action"] == "file_delete"


@operations
def test_an_op_that_is_not_there_is_404(relay: Target) -> None:
    relay.refuses(relay.call("GET", "ops/op_0"), 404, "not_found")
    relay.refuses(relay.call("POST", "ops/op_0/replay"), 404, "not_found")


@operations
def test_ops_are_listed_newest_first(relay: Target) -> None:
    ops = [wrote(relay, name) for name in "abc"]
    first = relay.call("GET", "ops", provider=relay.place[1:], limit=2).json()
    assert [op["opId"] for op in first["items"]] == [ops[2], ops[1]]
    assert first["nextCursor"] == ops[1]
    second = relay.call("GET", "ops", provider=relay.place[1:], limit=2, cursor=first["nextCursor"]).json()
    assert ([op["opId"] for op in second["items"]], second["nextCursor"]) == ([ops[0]], None)


@operations
def test_ops_are_listed_by_action_and_status(external: Target) -> None:
    provider = external.place[1:]
    kept = wrote(external, "a")
    gone = external.delete(external.at("a")).json()["opId"]
    ack(external, gone)
    for query, expected in (
        ({"action": "file_delete"}, [gone]),
        ({"action": "file_upsert", "limit": 1}, [kept]),
        ({"status": "succeeded"}, [gone]),
        ({"status": "dead_lettered"}, []),
    ):
        listed = external.call("GET", "ops", provider=provider, **query).json()["items"]
        assert [op["opId"] for op in listed] == expected


@operations
def test_a_cursor_that_is_no_op_is_400(relay: Target) -> None:
    relay.refuses(relay.call("GET", "ops", cursor="op_0"), 400, "bad_request")


@operations
def test_only_a_dead_letter_is_replayed(external: Target) -> None:
    op = wrote(external)
    external.refuses(external.call("POST", f"ops/{op}/replay"), 409, "invalid_state")
    ack(external, op, success=False, error="no title")
    answer = external.call("POST", f"ops/{op}/replay")
    assert (answer.status_code, answer.json()["status"], answer.json()["id"]) == (202, "queued", op)
    assert op_of(external, op)["status"] == "pending"
    ack(external, op)
    assert op_of(external, op)["status"] == "succeeded"


@ingress
def test_the_status_names_the_providers(relay: Target) -> None:
    relay.written(relay.at("a"))
    body = relay.call("GET", "sync/status").json()
    assert body["workspaceId"] == relay.workspace
    assert all(row["status"] in {"healthy", "lagging", "error", "paused"} for row in body["providers"])
    assert relay.call("GET", "sync/status", provider="nobody-at-all").json()["providers"] in ([], None)


@ingress
def test_a_refresh_needs_provider_and_reason(relay: Target) -> None:
    answer = relay.call("POST", "sync/refresh", body={"provider": "github", "reason": "conformance"})
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    relay.refuses(relay.call("POST", "sync/refresh"), 400, "bad_request")
    relay.refuses(relay.call("POST", "sync/refresh", body={"provider": "github"}), 400, "bad_request")


@ingress
def test_the_ingress_can_be_looked_at(relay: Target) -> None:
    body = relay.call("GET", "sync/ingress").json()
    assert body["workspaceId"] == relay.workspace
    counts = (
        "queueDepth", "queueCapacity", "queueUtilization", "pendingTotal", "oldestPendingAgeSeconds", "deadLetterTotal",
        "acceptedTotal", "droppedTotal", "dedupedTotal", "coalescedTotal", "dedupeRate", "coalesceRate",
        "suppressedTotal", "staleTotal",
    )  # fmt: skip
    assert all(isinstance(body[name], int | float) for name in counts)
    assert all(isinstance(body[name], dict) for name in ("deadLetterByProvider", "ingressByProvider"))


@ingress
def test_dead_letters_that_are_not_there(relay: Target) -> None:
    body = relay.call("GET", "sync/dead-letter", provider="nobody-at-all").json()
    assert (body["items"], body["nextCursor"]) == ([], None)
    relay.refuses(relay.call("GET", "sync/dead-letter", cursor="env_0"), 400, "bad_request")
    relay.refuses(relay.call("GET", "sync/dead-letter/env_0"), 404, "not_found")
    relay.refuses(relay.call("POST", "sync/dead-letter/env_0/replay"), 404, "not_found")
    relay.refuses(relay.call("POST", "sync/dead-letter/env_0/ack"), 404, "not_found")


@queue
def test_a_write_waits_until_it_is_acknowledged(external: Target) -> None:
    answer = external.put(external.at("a")).json()
    (row,) = [row for row in waiting(external) if row["id"] == answer["opId"]]
    assert (row["workspaceId"], row["path"]) == (external.workspace, external.at("a"))
    assert (row["revision"], bool(row["correlationId"])) == (answer["targetRevision"], True)
    head = external.head()
    ack(external, answer["opId"], providerResult={"providerRevision": "7"})
    body = op_of(external, answer["opId"])
    assert (body["status"], body["providerResult"]) == ("succeeded", {"providerRevision": "7"})
    assert body["completedAt"]
    assert external.since(head) == []


@queue
def test_a_refusal_is_a_dead_letter_at_once_and_told(external: Target) -> None:
    answer = external.put(external.at("a")).json()
    head = external.head()
    ack(external, answer["opId"], success=False, error="title is required")
    body = op_of(external, answer["opId"])
    assert (body["status"], body["lastError"]) == ("dead_lettered", "title is required")
    assert body["attemptCount"] >= 1
    (event,) = external.since(head)
    assert (event["type"], event["path"], event["origin"]) == ("writeback.failed", external.at("a"), "system")
    assert event["revision"] == answer["targetRevision"]
    assert external.get(external.at("a")).status_code == 200


@queue
def test_an_ack_says_whether_it_succeeded(external: Target) -> None:
    op = wrote(external)
    external.refuses(external.call("POST", f"writeback/{op}/ack", body={}), 400, "bad_request")
    external.refuses(external.call("POST", f"writeback/{op}/ack"), 400, "bad_request")
    external.refuses(external.call("POST", "writeback/op_0/ack", body={"success": True}), 404, "not_found")
    assert op_of(external, op)["status"] == "pending"


@queue
@pytest.mark.parametrize(
    ("said", "to"),
    [
        ({"externalId": "17"}, "d/17.json"),
        ({"externalId": "a/b c"}, "d/a_b_c.json"),
        ({"externalId": "17", "canonicalPath": "{}/issues/17.json"}, "issues/17.json"),
        ({"externalId": "17", "canonicalPath": "/elsewhere/17.json"}, "d/17.json"),
    ],
)
def test_an_ack_gives_a_draft_its_name(external: Target, said: dict[str, str], to: str) -> None:
    op = wrote(external, content="the draft")
    external.delete(external.at("probe"))
    before = external.get(external.at("d/draft.json")).json()
    head = external.head()
    body = ack(external, op, **{name: value.format(external.place) for name, value in said.items()})
    assert body["draft"] == {"action": "renamed", "from": external.at("d/draft.json"), "to": external.at(to)}
    deleted, created = external.since(head)
    assert (deleted["type"], deleted["path"]) == ("file.deleted", external.at("d/draft.json"))
    assert (created["type"], created["path"]) == ("file.created", external.at(to))
    assert (deleted["origin"], created["origin"]) == ("system", "system")
    after = external.get(external.at(to)).json()
    assert (after["content"], after["providerObjectId"]) == ("the draft", said["externalId"])
    assert created["contentHash"] == after["contentHash"] == before["contentHash"]
    assert after["revision"] == created["revision"] != before["revision"]
    assert external.get(external.at("d/draft.json")).status_code == 404


@queue
def test_a_draft_whose_record_is_there_already_goes(external: Target) -> None:
    external.written(external.at("d/17.json"), "the record")
    op = wrote(external)
    head = external.head()
    assert ack(external, op, externalId="17")["draft"] == {"action": "removed", "from": external.at("d/draft.json")}
    (event,) = external.since(head)
    assert (event["type"], event["path"], event["origin"]) == ("file.deleted", external.at("d/draft.json"), "system")
    assert external.get(external.at("d/17.json")).json()["content"] == "the record"


@queue
def test_a_file_that_has_its_name_keeps_it(external: Target) -> None:
    assert ack(external, wrote(external), externalId="17")["draft"]["action"] == "renamed"
    again = wrote(external, "d/17.json", "edited")
    assert ack(external, again, externalId="17")["draft"]["action"] == "none"
    assert external.get(external.at("d/17.json")).json()["content"] == "edited"


@queue
def test_what_the_server_does_itself_makes_no_op(external: Target) -> None:
    ack(external, wrote(external), externalId="17")
    assert not [row for row in waiting(external) if row["path"] == external.at("d/17.json")]


@queue
def test_drafts_are_swept_by_their_names(external: Target) -> None:
    draft = "d/messages 0e89a031-65f0-480e-a823-ab1d94b324ea.json"
    for name in (draft, "d/wb-1.json", "d/kept.json", "d/waits 15250fcf-de54-44b0-a808-c8e514480647.json"):
        op = wrote(external, name)
        if "waits" not in name:
            ack(external, op)
    ack(external, wrote(external, "d/wb-2.json"), externalId="wb-3")
    asked = {"pathPrefix": external.at("d"), "patterns": ["wb-*.json"]}
    dry = external.call("POST", "writeback/sweep-drafts", body=asked).json()
    assert (dry["dryRun"], dry["scanned"]) == (True, 5)
    assert dry["removed"] == [
        {"path": external.at(draft), "reason": "space-uuid-draft"},
        {"path": external.at("d/wb-1.json"), "reason": "pattern"},
    ]
    assert {row["reason"] for row in dry["skipped"]} == {"pending-writeback", "provider-linked"}
    head, waits = external.head(), len(waiting(external))
    done = external.call("POST", "writeback/sweep-drafts", body={**asked, "apply": True}).json()
    assert {**done, "dryRun": True} == dry
    assert [(event["type"], event["origin"]) for event in external.since(head)] == [("file.deleted", "system")] * 2
    assert len(waiting(external)) == waits
