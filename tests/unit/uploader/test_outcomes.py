"""What becomes of an op when the remote says no, says nothing, or holds something else."""

from __future__ import annotations

import errno

import pytest
import trio
from trio.testing import MockClock

from fsmount.errors import InvalidAnswer, Refusal, Unreachable
from fsmount.model import (
    ABSENT,
    Attempt,
    Base,
    Body,
    Claim,
    ConnectionState,
    OpId,
    OpKind,
    Reason,
    RemotePath,
    Revision,
    State,
)
from fsmount.spool import DraftFile
from tests.support.uploading import UploadRig
from tests.support.uploads import digest_of

LARGE = b"x" * 300_000
"""Too large for a batch: sent by a request of its own."""


@pytest.fixture(params=["batch", "alone"])
def content(request: pytest.FixtureRequest) -> bytes:
    return b"mine" if request.param == "batch" else LARGE


# offline, limited, refused


async def test_offline_charges_nothing_and_ends_by_itself(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery, content: bytes
) -> None:
    nursery.start_soon(rig.run)
    await trio.sleep(1)
    rig.remote.online = False
    rig.save("/a", content)
    await trio.sleep(3600)
    pending = rig.the_pending()
    assert pending.attempts == 0
    assert len(pending.history) <= 1
    assert rig.connection.state is ConnectionState.OFFLINE
    rig.remote.online = True
    assert await rig.settled() <= 61
    assert rig.remote.content("/a") == content


async def test_what_was_claimed_and_not_begun_is_pending_again_when_the_remote_goes_away(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    nursery.start_soon(rig.run)
    await trio.sleep(1)
    rig.remote.hold("put", times=4)
    for number in range(9):
        rig.save(f"/{number}", LARGE)
    await trio.sleep(1)
    assert rig.journal.counts().sending == 9
    rig.remote.online = False
    rig.connection.suspect()
    await trio.sleep(1)
    counts = rig.journal.counts()
    assert (counts.sending, counts.pending) == (4, 5)


async def test_an_op_that_fails_alone_is_charged_while_others_go_on(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    path = RemotePath("/bad")
    rig.remote.fail("put", Refusal(503, retry_after=5), path=path, times=2)
    nursery.start_soon(rig.run)
    rig.save("/bad", b"x")
    rig.save("/good", b"x")
    await trio.sleep(0.5)
    assert rig.remote.content("/good") == b"x"
    assert rig.the_pending().attempts == 1
    await rig.settled()
    assert rig.remote.content("/bad") == b"x"
    assert not rig.dead()
    assert rig.journal.totals().failed_attempts == 2


@pytest.mark.parametrize(
    "error", [Refusal(500), Refusal(503), Unreachable("reset"), InvalidAnswer("a portal")], ids=str
)
async def test_attempts_run_out(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery, content: bytes, error: Refusal
) -> None:
    method = "put_many" if len(content) < 1000 else "put"
    rig.remote.fail(method, error, times=99)
    nursery.start_soon(rig.run)
    rig.save("/a", content)
    await rig.settled()
    dead = rig.the_dead()
    assert (dead.reason, dead.attempts, len(dead.history)) == (Reason.EXHAUSTED, 8, 8)
    assert rig.remote.calls[method] == 8


async def test_a_redriven_op_has_a_new_budget(autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery) -> None:
    rig.remote.fail("put", Refusal(500), times=12)
    nursery.start_soon(rig.run)
    op_id = rig.save("/a", LARGE)
    await rig.settled()
    rig.journal.retry(op_id)
    await rig.settled()
    assert rig.remote.content("/a") == LARGE
    assert rig.remote.calls["put"] == 13


async def test_retry_after_is_waited_for(autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery) -> None:
    rig.remote.fail("put", Refusal(503, retry_after=40))
    nursery.start_soon(rig.run)
    rig.save("/a", LARGE)
    assert 40 <= await rig.settled() < 41


async def test_a_limit_of_the_whole_remote_is_waited_for_uncharged(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    nursery.start_soon(rig.run)
    await trio.sleep(1)
    rig.remote.fail("put_many", Refusal(429, retry_after=40))
    rig.remote.fail("probe", Refusal(429, retry_after=40))
    rig.save("/a", b"x")
    await trio.sleep(20)
    assert rig.connection.state is ConnectionState.LIMITED
    assert rig.the_pending().attempts == 0
    assert 20 <= await rig.settled() < 21


async def test_a_refused_credential_pauses_without_charging(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery, content: bytes
) -> None:
    nursery.start_soon(rig.run)
    await trio.sleep(1)
    rig.remote.authorized = False
    rig.save("/a", content)
    rig.save("/b", content)
    await trio.sleep(30)
    assert rig.connection.state is ConnectionState.AUTH
    assert [record.attempts for record in rig.journal.records(State.PENDING)] == [0, 0]
    assert rig.remote.calls["put"] + rig.remote.calls["put_many"] <= 2
    rig.remote.renew()
    assert await rig.settled() < 3
    assert set(rig.remote.files) == {"/a", "/b"}


# batches


async def test_a_batch_that_fails_as_a_whole_is_split_and_charges_only_the_culprit(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    true = rig.remote.put_many

    async def poisoned(uploads):  # type: ignore[no-untyped-def]
        if any(upload.path == "/poison" for upload in uploads):
            rig.remote.calls["put_many"] += 1
            raise Refusal(500, message="internal error")
        return await true(uploads)

    rig.remote.put_many = poisoned  # type: ignore[method-assign]
    for number in range(31):
        rig.save(f"/{number}", b"x")
    rig.save("/poison", b"x")
    nursery.start_soon(rig.run)
    await rig.settled()
    assert len(rig.remote.files) == 31
    dead = rig.the_dead()
    assert (dead.op.path, dead.reason, dead.attempts) == ("/poison", Reason.EXHAUSTED, 8)
    assert rig.journal.totals().failed_attempts == 8


async def test_a_file_that_hangs_costs_those_beside_it_one_timeout(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    true = rig.remote.put_many

    async def hanging(uploads):  # type: ignore[no-untyped-def]
        if any(upload.path == "/hangs" for upload in uploads):
            await trio.sleep(30)
            raise Unreachable("no answer within 30 s", timed_out=True)
        return await true(uploads)

    rig.remote.put_many = hanging  # type: ignore[method-assign]
    for number in range(63):
        rig.save(f"/{number}", b"x")
    rig.save("/hangs", b"x")
    nursery.start_soon(rig.run)
    await trio.sleep(32)
    assert len(rig.remote.files) == 63
    await rig.settled()
    assert (rig.the_dead().op.path, len(rig.remote.files)) == ("/hangs", 63)


@pytest.mark.parametrize("status", [403, 404, 405, 501])
async def test_where_batches_are_refused_files_go_one_by_one(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery, status: int
) -> None:
    rig.remote.fail("put_many", Refusal(status), times=99)
    nursery.start_soon(rig.run)
    for number in range(5):
        rig.save(f"/{number}", b"x")
    await rig.settled()
    rig.save("/later", b"x")
    await rig.settled()
    assert len(rig.remote.files) == 6
    assert rig.remote.calls["put_many"] == 1, "the closed route is not knocked at for every file"
    assert rig.journal.totals().failed_attempts == 0


async def test_a_batch_too_large_for_the_remote_is_halved(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.remote.fail("put_many", Refusal(413), times=3)
    nursery.start_soon(rig.run)
    for number in range(4):
        rig.save(f"/{number}", b"x")
    await rig.settled()
    assert len(rig.remote.files) == 4
    assert rig.remote.batches[:3] == [4, 2, 2]
    assert rig.remote.batches[3:].count(1) >= 2
    assert rig.journal.totals().failed_attempts == 0


async def test_a_single_file_whose_batch_is_refused_goes_by_itself(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.remote.fail("put_many", Refusal(400, message="no"), times=99)
    rig.remote.hold("put")
    nursery.start_soon(rig.run)
    op_id = rig.save("/a", b"a")
    await trio.sleep(5)
    record = rig.journal.record(op_id)
    assert record is not None
    assert (record.attempts, [attempt.status for attempt in record.history]) == (0, [400])
    rig.remote.faults.clear()
    assert (rig.remote.calls["put"], rig.remote.calls["put_many"]) == (1, 1)


async def test_what_a_batch_was_told_to_wait_for_waits_as_pending(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.remote.fail("put_many", Refusal(503, retry_after=60.0, message="later"))
    nursery.start_soon(rig.run)
    ops = [rig.save(f"/{number}", b"x") for number in range(8)]
    await trio.sleep(10)
    assert (rig.journal.counts().pending, rig.journal.counts().sending) == (8, 0)
    for op_id in ops:
        record = rig.journal.record(op_id)
        assert record is not None
        assert (record.attempts, [attempt.status for attempt in record.history]) == (0, [503])
    rig.save("/other", b"o")
    await trio.sleep(5)
    assert rig.remote.content("/other") == b"o", "others need not wait"
    assert 40 < await rig.settled() < 60
    assert rig.remote.batches[0] == 8
    assert max(rig.remote.batches[1:]) <= 4
    assert len(rig.remote.files) == 9


async def test_the_remote_goes_away_in_mid_batch(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    nursery.start_soon(rig.run)
    await trio.sleep(1)
    rig.remote.lose_answer("put_many")
    rig.remote.fail("probe", Unreachable("away"), times=1)
    for number in range(9):
        rig.save(f"/{number}", b"x")
    await rig.settled()
    assert len(rig.remote.files) == 9
    assert not rig.dead()
    assert {record.revision for record in rig.remote.files.values()} == {f"rev_{n}" for n in range(1, 10)}, (
        "written once"
    )
    assert rig.journal.totals().failed_attempts == 0


# rejected


@pytest.mark.parametrize(
    ("status", "reason"),
    [(400, Reason.REJECTED), (422, Reason.REJECTED), (403, Reason.FORBIDDEN), (413, Reason.TOO_LARGE)],
)
async def test_a_rejected_op_is_a_dead_letter_at_once(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery, content: bytes, status: int, reason: Reason
) -> None:
    body = '{"code":"schema_violation","message":"title is required"}' + "ä" * 1000
    refusal = Refusal(status, code="schema_violation", message="title is required", body=body, correlation_id="corr-1")
    rig.remote.fail("put", refusal)
    nursery.start_soon(rig.run)
    op_id = rig.save("/github/7.json", content)
    await rig.settled()
    dead = rig.the_dead()
    assert (dead.op.op_id, dead.reason, dead.attempts) == (op_id, reason, 1)
    (attempt,) = dead.history
    assert (attempt.status, attempt.correlation_id) == (status, "corr-1")
    assert body.startswith(attempt.body)
    assert 1020 < len(attempt.body.encode()) <= 1024
    assert [op.op_id for op in rig.overlay.changes] == [op_id]
    (line,) = rig.log.of("op.dead")
    for told in ("PUT", "/github/7.json", str(status), "title is required", "corr-1", f"dead-letter/{op_id}.json"):
        assert told in line.message
    assert rig.journal.totals().failed_writebacks == 1


async def test_a_save_that_succeeds_supersedes_the_dead_letter(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.remote.fail("put", Refusal(422))
    nursery.start_soon(rig.run)
    first = rig.save("/a", b"bad")
    await rig.settled()
    second = rig.save("/a", b"good")
    await rig.settled()
    record = rig.journal.record(first)
    assert record is not None
    assert (record.state, record.superseded_by) == (State.DISCARDED, second)
    assert rig.log.of("op.superseded")


# preconditions


async def test_a_lost_answer_is_no_conflict(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery, content: bytes
) -> None:
    rig.remote.lose_answer("put_many" if len(content) < 1000 else "put")
    nursery.start_soon(rig.run)
    rig.save("/a", content)
    await rig.settled()
    assert not rig.dead()
    assert rig.remote.base("/a").revision == "rev_1"
    ((_, receipt),) = rig.overlay.acks
    assert receipt.revision == "rev_1"


async def test_a_foreign_change_is_a_conflict_with_theirs_kept(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery, content: bytes
) -> None:
    rig.remote.write("/a", b"before")
    rig.save("/a", content)
    rig.remote.write("/a", b"theirs")
    nursery.start_soon(rig.run)
    await rig.settled()
    dead = rig.the_dead()
    assert dead.reason is Reason.CONFLICT
    assert rig.remote.content("/a") == b"theirs", "nobody's work was overwritten"
    assert dead.theirs is not None
    assert dead.theirs.base == rig.remote.base("/a")
    assert dead.theirs.body == Body(size=6, digest=digest_of(b"theirs"))
    source = rig.spool.open(dead.theirs.body)
    assert source.read(0, 100) == b"theirs"
    source.close()


async def test_a_new_revision_of_the_same_content_is_no_conflict(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery, content: bytes
) -> None:
    rig.remote.write("/a", b"before")
    rig.save("/a", content)
    rig.remote.write("/a", b"before")
    nursery.start_soon(rig.run)
    await rig.settled()
    assert rig.remote.content("/a") == content
    assert not rig.dead()
    assert not list((rig.folder / "spool" / "drafts").iterdir()), "what was fetched to compare is gone"


async def test_rebasing_ends(autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery) -> None:
    rig.remote.write("/a", b"before")
    rig.remote.fail("put", Refusal(409, code="revision_conflict"), times=99)
    rig.save("/a", LARGE)
    nursery.start_soon(rig.run)
    await rig.settled()
    dead = rig.the_dead()
    assert dead.reason is Reason.CONFLICT
    assert rig.remote.calls["put"] == 4
    assert dead.attempts == 1, "re-basing charges nothing"


async def test_a_body_of_ours_that_was_sent_since_is_no_conflict(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    base = Base(rig.remote.write("/a", b"before"), digest_of(b"before"))
    rig.remote.fail("put", Refusal(422, message="applied all the same"), applied=True)
    nursery.start_soon(rig.run)
    first = rig.save("/a", b"first", base=base)
    await rig.settled()
    assert rig.the_dead().op.op_id == first
    rig.save("/a", b"second", base=base)
    await rig.settled()
    assert rig.remote.content("/a") == b"second"


async def test_an_update_of_a_deleted_file(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery, content: bytes
) -> None:
    rig.remote.write("/a", b"before")
    rig.save("/a", content)
    rig.remote.remove("/a")
    nursery.start_soon(rig.run)
    await rig.settled()
    assert rig.the_dead().reason is Reason.REMOTE_DELETED


async def test_a_conflict_in_a_batch_that_names_no_revision_is_a_deleted_file(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.remote.write("/a", b"before")
    rig.save("/a", b"mine")
    rig.remote.remove("/a")
    rig.remote.fail("put", Refusal(409, code="conflict"))
    nursery.start_soon(rig.run)
    await rig.settled()
    assert rig.the_dead().reason is Reason.REMOTE_DELETED


@pytest.mark.parametrize(("status", "reason"), [(409, Reason.PARENT_MISSING), (404, Reason.PARENT_MISSING)])
async def test_a_create_without_a_parent(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery, status: int, reason: Reason
) -> None:
    rig.remote.fail("put", Refusal(status), times=99)
    rig.save("/no/parent", LARGE, base=ABSENT)
    nursery.start_soon(rig.run)
    await rig.settled()
    assert rig.the_dead().reason is reason


async def test_a_comparison_that_fails_decides_nothing(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.remote.write("/a", b"before")
    rig.save("/a", LARGE)
    rig.remote.write("/a", LARGE)
    rig.remote.fail("read", Refusal(503), times=2)
    nursery.start_soon(rig.run)
    await rig.settled()
    assert not rig.dead()
    assert rig.remote.calls["put"] == 3


async def test_what_may_not_be_read_is_a_conflict_without_bytes(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.remote.write("/a", b"before")
    rig.save("/a", LARGE)
    current = rig.remote.write("/a", b"theirs")
    rig.remote.fail("read", Refusal(403))
    nursery.start_soon(rig.run)
    await rig.settled()
    dead = rig.the_dead()
    assert dead.reason is Reason.CONFLICT
    assert dead.theirs is None or (dead.theirs.body is None and dead.theirs.base.revision == current)


# deletes


async def test_a_delete_of_what_is_gone_is_done(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.remote.write("/a", b"x")
    rig.delete("/a")
    rig.remote.remove("/a")
    nursery.start_soon(rig.run)
    await rig.settled()
    assert not rig.dead()
    assert rig.journal.totals().acknowledged == 1


async def test_a_delete_of_what_changed_is_a_conflict(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.remote.write("/a", b"x")
    rig.delete("/a")
    rig.remote.write("/a", b"theirs")
    nursery.start_soon(rig.run)
    await rig.settled()
    dead = rig.the_dead()
    assert dead.reason is Reason.CONFLICT
    assert dead.theirs is not None
    assert rig.remote.content("/a") == b"theirs"


async def test_a_delete_whose_answer_was_lost(autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery) -> None:
    rig.remote.write("/a", b"x")
    rig.delete("/a")
    rig.remote.lose_answer("delete")
    nursery.start_soon(rig.run)
    await rig.settled()
    assert not rig.dead()
    assert rig.remote.content("/a") is None


async def test_a_delete_storm_holds_back_all_deletes(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    for number in range(10):
        rig.remote.write(f"/{number}", b"x")
        rig.delete(f"/{number}")
    rig.remote.fail("delete", Refusal(429, code="delete_storm_rejected", retry_after=60), nth=3, times=8)
    nursery.start_soon(rig.run)
    await trio.sleep(30)
    asked = rig.remote.calls["delete"]
    assert asked <= 6
    rig.delete("/0", base=Base(Revision("rev_x")))
    rig.save("/put", b"x")
    await trio.sleep(25)
    assert rig.remote.content("/put") == b"x", "only deletes wait"
    assert rig.remote.calls["delete"] == asked
    assert {record.attempts for record in rig.journal.records(State.PENDING)} == {0}


# moves


async def test_a_move_resumes_after_its_first_step(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.remote.write("/old", b"content")
    rig.rename("/old", "/new")
    rig.remote.fail("delete", Refusal(500), times=2)
    nursery.start_soon(rig.run)
    await rig.settled()
    assert set(rig.remote.files) == {"/new"}
    assert rig.remote.calls["copy_metadata"] == 1, "the new name is not put again"


async def test_a_move_whose_answers_are_lost(autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery) -> None:
    rig.remote.write("/old", b"content")
    rig.rename("/old", "/new")
    rig.remote.lose_answer("copy_metadata")
    rig.remote.lose_answer("delete")
    nursery.start_soon(rig.run)
    await rig.settled()
    assert set(rig.remote.files) == {"/new"}
    assert not rig.dead()


async def test_a_move_that_somebody_made_already(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.remote.write("/old", b"content")
    rig.rename("/old", "/new")
    rig.remote.remove("/old")
    rig.remote.write("/new", b"content")
    nursery.start_soon(rig.run)
    await rig.settled()
    assert not rig.dead()
    assert rig.overlay.acks[0][1].revision == rig.remote.base("/new").revision


async def test_a_move_of_what_is_gone(autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery) -> None:
    rig.remote.write("/old", b"content")
    rig.rename("/old", "/new")
    rig.remote.remove("/old")
    nursery.start_soon(rig.run)
    await rig.settled()
    assert rig.the_dead().reason is Reason.REMOTE_DELETED
    assert not rig.remote.files


async def edited_and_moved_then_deleted_there(rig: UploadRig, nursery: trio.Nursery) -> OpId:
    """The op of a file that was saved and renamed here, and deleted on the remote before either was sent."""
    rig.remote.write("/old", b"content", metadata=("deny:agent:x",))
    rig.save("/old", b"mine")
    rig.rename("/old", "/new")
    rig.remote.remove("/old")
    nursery.start_soon(rig.run)
    await rig.settled()
    (record,) = rig.journal.records()
    return record.op.op_id


async def test_unsent_bytes_of_a_moved_file_that_is_gone_are_kept_and_not_created_without_permissions(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    op_id = await edited_and_moved_then_deleted_there(rig, nursery)
    dead = rig.the_dead()
    assert (dead.op.op_id, dead.op.kind, dead.reason) == (op_id, OpKind.MOVE, Reason.REMOTE_DELETED)
    assert dead.op.body is not None
    assert dead.op.body.digest == digest_of(b"mine")
    assert not rig.remote.files


async def test_a_person_may_force_it_to_be_created_all_the_same(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.journal.force(await edited_and_moved_then_deleted_there(rig, nursery))
    await rig.settled()
    assert rig.remote.content("/new") == b"mine"
    assert rig.journal.records() == []


async def test_a_move_whose_bytes_arrived_before_its_old_name_was_deleted_there_is_done(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.remote.write("/old", b"content")
    rig.save("/old", b"mine")
    rig.rename("/old", "/new")
    rig.remote.write("/new", b"mine")
    rig.remote.remove("/old")
    nursery.start_soon(rig.run)
    await rig.settled()
    assert (set(rig.remote.files), rig.journal.records()) == ({"/new"}, [])


async def test_a_move_of_what_changed(autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery) -> None:
    rig.remote.write("/old", b"content")
    rig.rename("/old", "/new")
    rig.remote.write("/old", b"theirs")
    nursery.start_soon(rig.run)
    await rig.settled()
    assert rig.the_dead().reason is Reason.CONFLICT
    assert set(rig.remote.files) == {"/old"}, "nothing was created"


async def test_a_move_whose_old_name_changes_in_between(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.remote.write("/old", b"content")
    rig.rename("/old", "/new")
    gate = rig.remote.hold("delete")
    nursery.start_soon(rig.run)
    with trio.fail_after(10):
        while rig.remote.content("/new") is None:
            await trio.sleep(0.1)
    rig.remote.write("/old", b"theirs")
    gate.set()
    await rig.settled()
    assert rig.the_dead().reason is Reason.CONFLICT
    assert rig.remote.content("/old") == b"theirs"
    assert rig.remote.content("/new") == b"content"


async def test_a_move_that_may_not_carry_its_metadata(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.remote.write("/old", b"content")
    rig.rename("/old", "/new")
    rig.remote.fail("copy_metadata", Refusal(403))
    nursery.start_soon(rig.run)
    await rig.settled()
    assert rig.the_dead().reason is Reason.FORBIDDEN
    assert set(rig.remote.files) == {"/old"}


# many dead letters, and errors of this program


async def test_many_dead_letters_in_a_row_slow_down_to_one_a_minute(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.remote.fail("put", Refusal(422), times=22)
    nursery.start_soon(rig.run)
    for number in range(20):
        rig.save(f"/{number}", b"x")
    await rig.settled()
    assert rig.uploader.failing
    assert len([line for line in rig.log.of("connection") if "in a row" in line.message]) == 1
    for number in range(20, 30):
        rig.save(f"/{number}", b"x")
    await trio.sleep(59)
    assert len(rig.dead()) == 20
    await trio.sleep(62)
    assert len(rig.dead()) == 22
    assert await rig.settled() < 61
    assert len(rig.remote.files) == 8
    assert not rig.uploader.failing


async def test_bytes_that_this_disk_lost_slow_nothing_else_down(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    for number in range(30):
        rig.save(f"/{number}", b"x")
    for draft in (rig.folder / "spool" / "drafts").iterdir():
        draft.unlink()
    rig.save("/intact", b"fine")
    nursery.start_soon(rig.run)
    await rig.settled()
    assert {dead.reason for dead in rig.dead()} == {Reason.CORRUPT_SPOOL}
    assert set(rig.remote.files) == {"/intact"}
    assert not rig.uploader.failing


async def test_an_error_of_this_program_concerns_one_op(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery, content: bytes
) -> None:
    true = rig.spool.open
    raised: list[Body] = []

    def broken(body: Body):  # type: ignore[no-untyped-def]
        if body.digest == digest_of(content) and len(raised) < 2:
            raised.append(body)
            raise ZeroDivisionError("a mistake")
        return true(body)

    rig.spool.open = broken  # type: ignore[method-assign]
    nursery.start_soon(rig.run)
    rig.save("/unlucky", content)
    rig.save("/other", b"x")
    await trio.sleep(0.5)
    assert rig.remote.content("/other") == b"x"
    await rig.settled()
    assert len(raised) == 2
    assert rig.remote.content("/unlucky") == content
    assert any("ZeroDivisionError" in line.message for line in rig.log.of("op.retrying"))
    assert {line.level for line in rig.log.of("traceback")} == {"debug"}


async def test_a_disk_without_room_is_no_fault_of_the_op(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.remote.write("/old", b"x" * 10)
    true = rig.spool.create
    refused: list[str] = []

    def full() -> DraftFile:
        if len(refused) < 3:
            refused.append("a draft")
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        return true()

    rig.spool.create = full  # type: ignore[method-assign]
    nursery.start_soon(rig.run)
    rig.rename("/old", "/new")
    await trio.sleep(15)
    assert (rig.the_pending().attempts, rig.connection.state) == (0, ConnectionState.ONLINE)
    assert await rig.settled() < 30
    assert set(rig.remote.files) == {"/new"}
    assert rig.journal.totals().failed_attempts == 0


async def test_a_journal_that_fails_for_a_while_leaves_nothing_claimed(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    true_bury, true_postpone, failures = rig.journal.bury, rig.journal.postpone, []

    def full(*arguments: object, **how: object) -> None:
        failures.append(1)
        raise OSError("no space left on device")

    def postpone(claim: Claim, until: float, attempt: Attempt | None, *, charged: bool, shared: bool = False) -> None:
        if len(failures) < 3:
            full()
        true_postpone(claim, until, attempt, charged=charged, shared=shared)

    rig.journal.bury = full  # type: ignore[method-assign]
    rig.journal.postpone = postpone  # type: ignore[method-assign]
    rig.remote.fail("put", Refusal(422), times=9)
    nursery.start_soon(rig.run)
    rig.save("/a", LARGE)
    await trio.sleep(12)
    assert len(failures) >= 3
    rig.journal.bury = true_bury  # type: ignore[method-assign]
    await rig.settled()
    assert rig.the_dead().reason is Reason.REJECTED
