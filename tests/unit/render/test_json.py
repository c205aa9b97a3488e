"""The JSON is the contract with programs: members, their order, and bytes that any parser takes."""

import json as stdlib
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from fsmount.model import (
    ABSENT,
    Base,
    Body,
    Connection,
    ConnectionState,
    Op,
    OpId,
    OpKind,
    Problem,
    Reason,
    Record,
    RemotePath,
    Revision,
    State,
)
from fsmount.render import json
from fsmount.status import snapshot
from tests.support.facts import Mounted

OP_MEMBERS = [
    "opId",
    "path",
    "attempts",
    "lastStatus",
    "lastBody",
    "ts",
    "kind",
    "toPath",
    "state",
    "reason",
    "message",
    "hint",
    "mountPath",
    "provider",
    "baseRevision",
    "remoteOpId",
    "blockedBy",
    "supersededBy",
    "group",
    "contentType",
    "size",
    "sha256",
    "createdAt",
    "firstAttemptAt",
    "lastAttemptAt",
    "nextAttemptAt",
    "history",
]
STATUS_MEMBERS = [
    "schema",
    "name",
    "remote",
    "remotePath",
    "mountpoint",
    "pid",
    "version",
    "startedAt",
    "uptimeSeconds",
    "health",
    "damage",
    "connection",
    "preconditions",
    "providerResults",
    "writes",
    "queue",
    "transfers",
    "failedAttempts",
    "failedWritebacks",
    "deadLetters",
    "lastErrorByProvider",
    "cache",
    "spool",
    "counters",
]
STATE_MEMBERS = [
    "workspaceId",
    "remoteRoot",
    "localRoot",
    "mode",
    "status",
    "pendingWriteback",
    "pendingConflicts",
    "failedWritebacks",
    "deniedPaths",
    "lastEventAt",
    "lastError",
    "outbox",
]
ROOT = RemotePath("/")


def parsed(rendered: bytes) -> dict[str, object]:
    members = stdlib.loads(rendered)
    assert isinstance(members, dict)
    return members


def a_record(state: State = State.DEAD, *, body: bool = True, **more: object) -> Record:
    op = Op(
        op_id=OpId("op_" + "0" * 26),
        seq=1,
        kind=OpKind.PUT if body else OpKind.DELETE,
        path=RemotePath("/github/a b.txt"),
        base=ABSENT,
        body=Body(size=3, digest=None) if body else None,
        created_at=0.0,
    )
    return Record(op=op, state=state, **more)  # type: ignore[arg-type]


@pytest.fixture
def mounted(tmp_path: Path) -> Mounted:
    return Mounted(tmp_path, root="/github")


def test_a_dead_letter_has_every_member_in_order(mounted: Mounted) -> None:
    op_id = mounted.dead("/github/issues/7.json", body='{"code":"schema_violation"}')
    record = mounted.journal.record(op_id)
    assert record is not None
    rendered = json.op(record, RemotePath("/github"), mounted.clock)
    shown = parsed(rendered)
    assert list(shown) == OP_MEMBERS
    assert rendered.endswith(b"\n}\n")
    assert rendered.startswith(b'{\n  "opId"')
    assert shown["mountPath"] == "issues/7.json"
    assert shown["ts"] == "2023-11-14T22:13:20.000Z"
    assert (shown["lastStatus"], shown["attempts"]) == (422, 1)
    assert shown["lastBody"] == '{"code":"schema_violation"}'
    assert shown["history"] == [
        {
            "at": "2023-11-14T22:13:20.000Z",
            "status": 422,
            "error": "422 schema_violation: title is required",
            "durationMs": 12,
            "correlationId": "c1",
        }
    ]


def test_an_op_never_sent_has_every_member_too(mounted: Mounted) -> None:
    record = mounted.journal.record(mounted.save("/github/x"))
    assert record is not None
    shown = parsed(json.op(record, ROOT, mounted.clock))
    assert list(shown) == OP_MEMBERS
    assert (shown["lastStatus"], shown["lastBody"], shown["history"]) == (0, "", [])
    assert shown["nextAttemptAt"] == "2023-11-14T22:13:20.000Z"


def test_without_a_daemon_nothing_is_next(mounted: Mounted) -> None:
    record = mounted.journal.record(mounted.save("/github/x"))
    assert record is not None
    assert parsed(json.op(record, ROOT))["nextAttemptAt"] is None


def test_an_op_without_a_body_has_no_size_and_no_digest(mounted: Mounted) -> None:
    mounted.journal.delete(RemotePath("/github/x"), Base(Revision("r1")))
    (record,) = mounted.journal.records(State.PENDING)
    shown = parsed(json.op(record, ROOT, mounted.clock))
    assert (shown["size"], shown["sha256"], shown["baseRevision"]) == (None, None, "r1")


def test_a_damaged_record_is_shown_with_its_raw_text() -> None:
    shown = parsed(json.op(a_record(malformed="kind='\ud800zap'", message="this record is damaged"), ROOT))
    assert list(shown) == [*OP_MEMBERS, "raw"]
    assert shown["state"] == "malformed"
    assert "zap" in str(shown["raw"])


def test_a_body_is_cut_at_a_character() -> None:
    assert json.cut("é" * 1000) == "é" * 512
    assert json.cut("x" + "é" * 1000) == "x" + "é" * 511


def test_names_of_any_bytes_make_json_that_jq_reads() -> None:
    rendered = json.encode({"path": b"/a\xff\x9b\x1b\n".decode("utf-8", "surrogateescape") + "\x9b\u2028"})
    rendered.decode("utf-8")
    assert not [byte for byte in rendered if byte < 32 and byte != 10]
    assert b"\xc2\x9b" not in rendered
    assert "\u202e" not in json.encode({"path": "txt.\u202eexe"}).decode()
    subprocess.run(["python3", "-m", "json.tool"], input=rendered, check=True, capture_output=True, timeout=20)


@pytest.mark.parametrize("reason", list(Reason))
@pytest.mark.parametrize("body", [True, False])
def test_every_reason_says_what_to_do_in_commands_that_are_there(reason: Reason, body: bool) -> None:
    hint = str(parsed(json.op(a_record(reason=reason, body=body), ROOT))["hint"])
    assert "op_000" in hint or "save" in hint
    assert "{" not in hint


@pytest.mark.parametrize(
    ("reason", "body", "ways"),
    [
        (Reason.CONFLICT, True, ("diff .relay/conflict/OP/theirs .relay/conflict/OP/mine", "discarded/", "force/")),
        (Reason.CONFLICT, False, (".relay/conflict/OP/theirs", "discarded/", "force/")),
        (Reason.REMOTE_DELETED, True, ("discarded/", "force/")),
        (Reason.REMOTE_DELETED, False, ("discarded/",)),
        (Reason.REJECTED, True, ("retry/",)),
    ],
)
def test_theirs_is_taken_by_discarding_and_mine_wins_by_force(
    reason: Reason, body: bool, ways: tuple[str, ...]
) -> None:
    record = a_record(reason=reason, body=body)
    hint = str(parsed(json.op(record, ROOT))["hint"])
    for way in ways:
        wanted = way if " " in way or way.startswith(".") else f"mv .relay/dead-letter/OP.json .relay/{way}"
        assert wanted.replace("OP", record.op.op_id) in hint
    assert ("force/" in hint) == ("force/" in ways)


def test_a_held_op_says_how_to_let_it_go_and_how_to_undo_it(mounted: Mounted) -> None:
    op_id = mounted.hold("/github/x")
    record = mounted.journal.record(op_id)
    assert record is not None
    shown = parsed(json.op(record, RemotePath("/github"), mounted.clock))
    assert shown["state"] == "held"
    assert "held" in str(shown["message"]) or "delete" in str(shown["message"])
    for command in (
        f"mv .relay/held/{op_id}.json .relay/retry/",
        f"mv .relay/held/{op_id}.json .relay/discarded/",
        "mv .relay/held/* .relay/retry/",
        "mv .relay/held/* .relay/discarded/",
    ):
        assert command in str(shown["hint"])


def test_the_moves_of_one_directory_rename_share_a_group() -> None:
    record = a_record()
    shown = parsed(json.op(replace(record, op=replace(record.op, group="g1")), ROOT))
    assert shown["group"] == "g1"


def test_problems_are_a_line_each() -> None:
    odd = [
        Problem(path="/a\nb", shown_as="/a\\nb", why="a newline in its name"),
        Problem(path=b"/c\xff".decode("utf-8", "surrogateescape"), why="found beneath the mount point"),
    ]
    lines = json.problems(odd).splitlines()
    assert [list(parsed(line)) for line in lines] == [["path", "shownAs", "why"]] * 2
    assert parsed(lines[0])["path"] == "/a\nb"
    assert parsed(lines[1])["shownAs"] is None
    assert json.problems([]) == b""


def test_the_configuration_is_an_object_of_its_own_names() -> None:
    assert parsed(json.config({"settle": 0.3, "token_command": "***"})) == {"settle": 0.3, "token_command": "***"}


def test_a_path_in_a_command_is_quoted() -> None:
    hint = parsed(json.op(a_record(reason=Reason.INTERRUPTED), ROOT))["hint"]
    assert "cp .relay/content/op_00000000000000000000000000 'github/a b.txt'" in str(hint)


def test_a_superseded_op_is_not_said_to_be_retryable() -> None:
    shown = parsed(json.op(a_record(State.DISCARDED, superseded_by=OpId("op_new")), ROOT))
    assert "retry/" not in str(shown["hint"])
    assert shown["supersededBy"] == "op_new"


def test_a_blocked_op_names_what_it_waits_for() -> None:
    shown = parsed(json.op(a_record(State.PENDING, blocked_by=OpId("op_first")), ROOT))
    assert shown["blockedBy"] == "op_first"
    assert "op_first" in str(shown["hint"])
    assert "op_first" in str(shown["message"])


def test_the_status_has_every_member_in_order(mounted: Mounted) -> None:
    mounted.dead("/github/x")
    shown = parsed(json.status(snapshot(mounted)))
    assert list(shown) == STATUS_MEMBERS
    assert shown["connection"] == {
        "state": "online",
        "feed": "polling",
        "lastContactAt": "2023-11-14T22:13:20.000Z",
        "offlineSince": None,
        "nextProbeAt": None,
    }
    assert shown["queue"] == {
        "pending": 0,
        "sending": 0,
        "blocked": 0,
        "held": 0,
        "deadLetter": 1,
        "discarded": 0,
        "bytes": 0,
        "oldestAt": None,
    }
    assert list(shown["deadLetters"][0]) == ["opId", "path", "reason", "attempts", "lastStatus", "ts"]  # type: ignore[index]
    assert list(shown["lastErrorByProvider"]["github"]) == ["opId", "path", "status", "message", "at"]  # type: ignore[index]


def state_of(mounted: Mounted) -> dict[str, object]:
    return parsed(json.state(snapshot(mounted)))


def test_the_state_has_the_members_of_relayfile(mounted: Mounted) -> None:
    shown = state_of(mounted)
    assert list(shown) == STATE_MEMBERS
    assert (shown["status"], shown["lastError"], shown["mode"]) == ("ready", None, "fuse")


def test_the_state_counts_and_names_the_last_error(mounted: Mounted) -> None:
    mounted.dead("/github/x")
    mounted.save("/github/y")
    shown = state_of(mounted)
    assert shown["status"] == "writeback-needs-attention"
    assert shown["outbox"] == {"pending": 1, "needsAttention": 1, "failed": 1, "acked": 0}
    error = shown["lastError"]
    assert isinstance(error, dict)
    assert (error["kind"], error["statusCode"], error["code"]) == ("http", 422, "schema_violation")


def test_the_state_words(mounted: Mounted) -> None:
    mounted.save("/github/y")
    assert state_of(mounted)["status"] == "writeback-pending"
    mounted.dead("/github/x", reason=Reason.CONFLICT)
    assert (state_of(mounted)["status"], state_of(mounted)["pendingConflicts"]) == ("conflict", 1)
    mounted.way = Connection(state=ConnectionState.OFFLINE, offline_since=mounted.now())
    assert state_of(mounted)["status"] == "offline"


def test_what_waits_for_a_person_is_said_though_uploads_are_paused(mounted: Mounted) -> None:
    mounted.pausing = True
    assert state_of(mounted)["status"] == "ready"
    mounted.hold("/github/x")
    assert state_of(mounted)["status"] == "writeback-needs-attention"
    assert state_of(mounted)["outbox"] == {"pending": 0, "needsAttention": 1, "failed": 0, "acked": 0}
    assert parsed(json.status(snapshot(mounted)))["health"] == "paused"


def test_a_mount_that_has_not_met_its_remote_is_syncing(mounted: Mounted) -> None:
    mounted.way = Connection()
    assert state_of(mounted)["status"] == "syncing"
