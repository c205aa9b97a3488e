"""What a person decides while ops are on their way: pause, resume, force; and what programs are told of each op."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from fsmount.errors import Refusal
from fsmount.model import ABSENT, OpId, OpKind, Reason, State
from fsmount.retry import Breaker
from tests.support.uploading import UploadRig

LARGE = b"x" * 300_000


# pause and resume


async def test_pause_claims_nothing_more_and_lets_what_is_under_way_end(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    nursery.start_soon(rig.run)
    held = rig.remote.hold("put")
    rig.save("/under-way", LARGE)
    await trio.sleep(1)
    rig.uploader.pause()
    rig.save("/later", LARGE)
    rig.save("/small", b"x")
    await trio.sleep(60)
    assert (rig.journal.counts().sending, rig.journal.counts().pending) == (1, 2)
    held.set()
    await trio.sleep(60)
    assert set(rig.remote.files) == {"/under-way"}
    rig.uploader.resume()
    await rig.settled()
    assert len(rig.remote.files) == 3


async def test_what_was_claimed_and_not_begun_can_be_changed_while_paused(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    nursery.start_soon(rig.run)
    rig.remote.hold("put", times=4)
    for number in range(9):
        rig.save(f"/{number}", LARGE)
    await trio.sleep(1)
    rig.uploader.pause()
    await trio.sleep(1)
    assert (rig.journal.counts().sending, rig.journal.counts().pending) == (4, 5)


async def test_pause_outlives_the_daemon(autojump_clock: MockClock, rig: UploadRig) -> None:
    rig.uploader.pause()
    rig.save("/a", b"a")
    rig.recover()
    assert rig.uploader.paused
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.run)
        await trio.sleep(60)
        assert rig.remote.files == {}
        rig.uploader.resume()
        await rig.settled()
        nursery.cancel_scope.cancel()
    rig.recover()
    assert not rig.uploader.paused


async def test_draining_while_paused_ends_when_what_is_under_way_has(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    nursery.start_soon(rig.run)
    held = rig.remote.hold("put")
    rig.save("/under-way", LARGE)
    await trio.sleep(1)
    rig.uploader.pause()
    rig.save("/later", LARGE)
    nursery.start_soon(_after, 3.0, held.set)
    begun = trio.current_time()
    await rig.uploader.drain(seconds=60)
    assert 2.9 < trio.current_time() - begun < 4
    assert set(rig.remote.files) == {"/under-way"}


async def _after(seconds: float, what: Callable[[], None]) -> None:
    await trio.sleep(seconds)
    what()


async def test_resume_sends_again_where_everything_was_refused(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.remote.fail("put", Refusal(422), times=Breaker.LIMIT)
    nursery.start_soon(rig.run)
    for number in range(Breaker.LIMIT):
        rig.save(f"/{number}", LARGE)
    await rig.settled()
    assert rig.uploader.failing
    for number in range(5):
        rig.save(f"/more-{number}", LARGE)
    await trio.sleep(5)
    assert rig.journal.counts().pending == 5
    rig.uploader.resume()
    assert await rig.settled() < 1
    assert not rig.uploader.failing


# force


async def conflict(rig: UploadRig, nursery: trio.Nursery, *, unread: bool = True) -> OpId:
    """A dead letter of ``/a``, whose remote version could not be read when the conflict was found."""
    rig.remote.write("/a", b"base")
    op_id = rig.save("/a", b"mine")
    rig.remote.write("/a", b"theirs")
    if unread:
        rig.remote.fail("read", Refusal(403, message="not to be read"))
    nursery.start_soon(rig.run)
    await rig.settled()
    dead = rig.the_dead()
    assert dead.reason is Reason.CONFLICT
    assert dead.theirs is not None
    assert (dead.theirs.body is None) is unread
    return op_id


def kept(rig: UploadRig) -> list[bytes]:
    """The bodies of what is discarded."""
    found = []
    for record in rig.journal.records(State.DISCARDED):
        assert record.op.body is not None
        source = rig.spool.open(record.op.body)
        found.append(source.read(0, source.size))
        source.close()
    return found


@pytest.mark.parametrize("unread", [False, True])
async def test_what_force_replaces_is_kept(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery, unread: bool
) -> None:
    op_id = await conflict(rig, nursery, unread=unread)
    rig.journal.force(op_id)
    await rig.settled()
    assert rig.remote.content("/a") == b"mine"
    assert kept(rig) == [b"theirs"]
    assert rig.dead() == []


async def test_a_version_that_came_since_is_a_new_conflict(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    op_id = await conflict(rig, nursery)
    rig.remote.write("/a", b"newer")
    rig.journal.force(op_id)
    await rig.settled()
    assert rig.remote.content("/a") == b"newer"
    dead = rig.the_dead()
    assert (dead.op.op_id, dead.reason, dead.forced) == (op_id, Reason.CONFLICT, False)
    assert dead.theirs is not None
    assert dead.theirs.base == rig.remote.base("/a")
    rig.journal.force(op_id)
    await rig.settled()
    assert rig.remote.content("/a") == b"mine"
    assert b"newer" in kept(rig)


async def test_what_was_not_kept_and_is_written_once_more_is_kept_before_it_is_replaced(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> object:
        raise OSError(errno.ENOSPC, "No space left on device")

    rig.remote.write("/a", b"base")
    op_id = rig.save("/a", b"mine")
    rig.remote.write("/a", b"theirs")
    with monkeypatch.context() as narrow:
        narrow.setattr(rig.spool, "create", full)
        nursery.start_soon(rig.run)
        await rig.settled()
    theirs = rig.the_dead().theirs
    assert theirs is not None
    assert theirs.body is None
    rig.journal.force(op_id)
    rig.remote.write("/a", b"theirs")
    await rig.settled()
    assert rig.remote.content("/a") == b"mine"
    assert kept(rig) == [b"theirs"]


async def test_what_was_deleted_meanwhile_meets_the_precondition(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    op_id = await conflict(rig, nursery)
    rig.remote.remove("/a")
    rig.journal.force(op_id)
    await rig.settled()
    assert rig.the_dead().reason is Reason.REMOTE_DELETED
    rig.journal.force(op_id)
    await rig.settled()
    assert rig.remote.content("/a") == b"mine"


async def test_a_forced_delete_keeps_what_it_deletes(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.remote.write("/a", b"base")
    rig.delete("/a")
    rig.remote.write("/a", b"theirs")
    rig.remote.fail("read", Refusal(403, message="not to be read"))
    nursery.start_soon(rig.run)
    await rig.settled()
    rig.journal.force(rig.the_dead().op.op_id)
    await rig.settled()
    assert rig.remote.files == {}
    assert kept(rig) == [b"theirs"]


async def test_a_forced_move_keeps_what_stood_at_its_new_name(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.remote.write("/a", b"content")
    rig.rename("/a", "/b")
    rig.remote.write("/b", b"theirs")
    rig.remote.fail("read", Refusal(403, message="not to be read"), nth=2)
    nursery.start_soon(rig.run)
    await rig.settled()
    dead = rig.the_dead()
    assert dead.op.kind is OpKind.MOVE
    rig.journal.force(dead.op.op_id)
    await rig.settled()
    assert {path: rig.remote.content(path) for path in rig.remote.files} == {"/b": b"content"}
    assert kept(rig) == [b"theirs"]


async def test_nothing_is_forced_while_there_is_no_room_for_what_it_replaces(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    op_id = await conflict(rig, nursery)
    rig.journal.force(op_id)
    create = rig.spool.create

    def full() -> object:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rig.spool, "create", full)
    await trio.sleep(20)
    record = rig.the_pending()
    assert (record.op.op_id, record.attempts) == (op_id, 1), "the first one was charged, before"
    assert "no room" in record.message
    assert rig.remote.content("/a") == b"theirs"
    monkeypatch.setattr(rig.spool, "create", create)
    await rig.settled()
    assert rig.remote.content("/a") == b"mine"
    assert kept(rig) == [b"theirs"]


async def test_a_forced_op_waits_while_the_remote_cannot_be_asked(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    op_id = await conflict(rig, nursery)
    rig.remote.online = False
    rig.journal.force(op_id)
    await trio.sleep(30)
    assert rig.journal.counts().pending == 1
    rig.remote.online = True
    await rig.settled()
    assert rig.remote.content("/a") == b"mine"
    assert kept(rig) == [b"theirs"]


# what programs are told


async def test_each_event_says_what_it_is_about(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.remote.fail("put", Refusal(500, message="no"), path="/a")
    rig.remote.fail("put", Refusal(422, message="no"), path="/b")
    nursery.start_soon(rig.run)
    rig.save("/a", LARGE)
    rig.save("/b", b"small", base=ABSENT)
    await rig.settled()
    told = [(note.event, str(note.path), note.details) for note in rig.log.all if note.path in ("/a", "/b")]
    about = {(event, path): details for event, path, details in told}
    assert all(details is not None and details.kind is OpKind.PUT for _, _, details in told)
    retrying, dead = about["op.retrying", "/a"], about["op.dead", "/b"]
    assert retrying is not None
    assert dead is not None
    assert (retrying.status, retrying.attempt, retrying.state) == (500, 1, State.PENDING)
    assert (dead.status, dead.reason, dead.state) == (422, Reason.REJECTED, State.DEAD)
    done, sending = about["op.acknowledged", "/a"], about["op.sending", "/a"]
    assert done is not None
    assert sending is not None
    assert (done.revision, done.attempt) == (rig.remote.base("/a").revision, 2)
    assert (sending.attempt, sending.state) == (2, State.SENDING)


# a directory's files


async def test_a_thousand_moves_go_four_at_a_time_and_fail_one_by_one(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    for number in range(1000):
        rig.remote.write(f"/old/{number}", b"%d" % number)
    with rig.journal.transaction():
        for number in range(1000):
            path = f"/old/{number}"
            rig.journal.rename(path, f"/new/{number}", rig.remote.base(path), ABSENT, group="g")  # type: ignore[arg-type]
    rig.remote.write("/old/7", b"changed by somebody")
    rig.remote.fail("copy_metadata", Refusal(403, message="no"), path="/new/8")
    most = 0

    def count() -> None:
        nonlocal most
        most = max(most, len(rig.uploader.transfers))

    rig.journal.watch(count)
    nursery.start_soon(rig.run)
    await rig.settled()
    assert most <= 4
    reasons = {record.op.path: record.reason for record in rig.dead()}
    assert reasons == {"/old/7": Reason.CONFLICT, "/old/8": Reason.FORBIDDEN}
    assert rig.remote.content("/old/7") == b"changed by somebody"
    assert {path for path in rig.remote.files if path.startswith("/old/")} == {"/old/7", "/old/8"}
    assert all(rig.remote.content(f"/new/{number}") == b"%d" % number for number in range(1000) if number not in (7, 8))
