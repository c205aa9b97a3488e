"""Puts, deletes, moves and rmdirs reach the remote; small files in batches; damaged bytes are not sent."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from fsmount.errors import Refusal
from fsmount.model import ABSENT, Body, OpKind, Reason, RemotePath, State
from tests.support.uploading import UploadRig
from tests.support.uploads import digest_of


async def test_a_small_save_is_there_within_half_a_second(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    nursery.start_soon(rig.run)
    await trio.sleep(5)
    rig.save("/a.txt", b"hello")
    assert await rig.settled() < 0.5
    assert rig.remote.content("/a.txt") == b"hello"
    ((op, receipt),) = rig.overlay.acks
    assert op.path == "/a.txt"
    assert receipt.revision == rig.remote.base("/a.txt").revision
    assert rig.journal.totals().acknowledged == 1


async def test_two_thousand_small_files_take_few_requests(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    nursery.start_soon(rig.run)
    for number in range(2000):
        rig.save(f"/many/{number}", b"x" * 4096, base=ABSENT)
        await trio.sleep(0.0005)
    assert await rig.settled() < 2.0
    assert len(rig.remote.files) == 2000
    assert rig.remote.calls["put"] == 0
    assert rig.remote.calls["put_many"] <= 30, rig.remote.batches


async def test_a_large_file_goes_by_itself_with_its_progress_shown(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    content = bytes(range(256)) * 8192
    gate = rig.remote.hold("put")
    nursery.start_soon(rig.run)
    op_id = rig.save("/large.bin", content)
    with trio.fail_after(5):
        while not rig.uploader.transfers:
            await trio.sleep(0.1)
    (transfer,) = rig.uploader.transfers
    assert (transfer.op_id, transfer.path, transfer.size) == (op_id, "/large.bin", len(content))
    gate.set()
    await rig.settled()
    assert rig.remote.content("/large.bin") == content
    assert not rig.uploader.transfers


async def test_small_saves_pass_a_large_file(autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery) -> None:
    gate = rig.remote.hold("put", times=4)
    nursery.start_soon(rig.run)
    for number in range(4):
        rig.save(f"/large{number}", b"x" * 300_000)
    await trio.sleep(2)
    rig.save("/small", b"x")
    await trio.sleep(0.5)
    assert rig.remote.content("/small") == b"x"
    assert rig.journal.counts().sending == 4
    gate.set()


async def test_a_hung_batch_holds_up_no_other(autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery) -> None:
    rig.remote.hold("put_many")
    nursery.start_soon(rig.run)
    rig.save("/hung", b"x")
    await trio.sleep(1)
    rig.save("/other", b"x")
    await trio.sleep(0.7)
    assert rig.remote.content("/other") == b"x"


async def test_while_a_batch_is_under_way_the_next_one_gathers(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    gate = rig.remote.hold("put_many")
    nursery.start_soon(rig.run)
    rig.save("/first", b"x")
    await trio.sleep(1)
    for number in range(20):
        rig.save(f"/{number}", b"x")
        await trio.sleep(0.01)
    await rig_is_sent(rig, 20)
    assert rig.remote.batches == [1, 20]
    gate.set()


async def test_a_crowd_is_claimed_late_and_a_single_save_at_once(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    """As slowly as files may come on a small machine: few requests, and those that wait can still be changed."""
    nursery.start_soon(rig.run)
    changeable = 0
    for number in range(150):
        rig.save(f"/many/{number}", b"x")
        await trio.sleep(0.02)
        changeable += not rig.journal.counts().sending
    assert changeable > 80
    assert await rig.settled() < 2.0
    assert rig.remote.calls["put_many"] <= 8, rig.remote.batches
    await trio.sleep(3)
    rig.save("/single", b"x")
    assert await rig.settled() < 0.5


async def test_a_backlog_does_not_wait_for_more(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    for number in range(1000):
        rig.save(f"/many/{number}", b"x")
    nursery.start_soon(rig.run)
    assert await rig.settled() < 1.0
    assert rig.remote.calls["put_many"] <= 5, rig.remote.batches


async def test_draining_does_not_wait_for_a_crowd(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    nursery.start_soon(rig.run)
    for number in range(100):
        rig.save(f"/many/{number}", b"x")
        await trio.sleep(0.01)
    begun = trio.current_time()
    await rig.uploader.drain(seconds=10)
    assert trio.current_time() - begun < 0.2
    assert rig.waiting == 0


async def rig_is_sent(rig: UploadRig, count: int) -> None:
    with trio.fail_after(5):
        while len(rig.remote.files) < count:
            await trio.sleep(0.05)


async def test_without_batches_every_file_has_its_request(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.remote.capabilities = type(rig.remote.capabilities)()
    nursery.start_soon(rig.run)
    for number in range(9):
        rig.save(f"/{number}", b"x")
    await rig.settled()
    assert rig.remote.calls["put"] == 9


async def test_a_delete_and_a_directory(autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery) -> None:
    rig.remote.write("/d/f", b"x")
    nursery.start_soon(rig.run)
    rig.delete("/d/f")
    rig.journal.rmdir(RemotePath("/d"))
    await rig.settled()
    assert rig.remote.content("/d/f") is None
    assert [call for call, _ in rig.remote.requests if call != "probe"] == ["delete", "remove_directory"]


async def test_a_directory_that_is_not_empty_there(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.remote.write("/d/foreign", b"x")
    nursery.start_soon(rig.run)
    rig.journal.rmdir(RemotePath("/d"))
    await rig.settled()
    assert rig.the_dead().reason is Reason.NOT_EMPTY
    assert [op.kind for op in rig.overlay.changes] == [OpKind.RMDIR]


async def test_a_move_carries_content_and_metadata(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.remote.write("/old", b"content", metadata=("private",))
    nursery.start_soon(rig.run)
    rig.rename("/old", "/new")
    await rig.settled()
    assert set(rig.remote.files) == {"/new"}
    assert rig.remote.content("/new") == b"content"
    assert rig.remote.files[RemotePath("/new")].metadata == ("private",)
    ((op, receipt),) = rig.overlay.acks
    assert (op.path, receipt.path) == ("/old", "/new")
    assert receipt.revision == rig.remote.base("/new").revision
    assert rig.spool.used == 0, "what was only carried over does not stay"


async def test_a_move_with_unsent_content(autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery) -> None:
    rig.remote.write("/old", b"before", metadata=("private",))
    rig.rename("/old", "/new")
    rig.save("/new", b"after", base=ABSENT)
    nursery.start_soon(rig.run)
    await rig.settled()
    assert rig.remote.content("/new") == b"after"
    assert rig.remote.files[RemotePath("/new")].metadata == ("private",)
    assert rig.remote.content("/old") is None


async def test_a_body_without_running_digest_is_reckoned_before_it_is_sealed(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.save("/a", b"written twice", rewritten=True)
    assert rig.the_pending().op.body == Body(size=13, digest=None, draft=rig.the_pending().op.body.draft)  # type: ignore[union-attr]
    nursery.start_soon(rig.run)
    await rig.settled()
    assert rig.remote.content("/a") == b"written twice"


async def test_what_freezing_tells_counts(autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery) -> None:
    draft = rig.spool.create()
    path = RemotePath("/open")
    rig.journal.begin_draft(draft.draft_id, path, ABSENT)
    draft.write(0, b"flushed")
    rig.journal.put(draft.draft_id, path, ABSENT, draft.body, content_type="text/plain", mtime=0.0, still_open=True)
    draft.write(7, b" and more")
    rig.overlay.open_drafts[draft.draft_id] = draft.body
    nursery.start_soon(rig.run)
    await rig.settled()
    assert rig.overlay.frozen == [draft.draft_id]
    assert rig.remote.content("/open") == b"flushed and more"
    draft.close()


@pytest.mark.parametrize("size", [10, 300_000, 3_000_000])
@pytest.mark.parametrize("harm", ["cut", "changed", "gone"])
async def test_damaged_bytes_are_never_sent(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery, size: int, harm: str
) -> None:
    op_id = rig.save("/a", b"x" * size)
    (draft,) = (rig.folder / "spool" / "drafts").iterdir()
    if harm == "cut":
        draft.write_bytes(b"x" * (size - 1))
    elif harm == "changed":
        draft.write_bytes(b"y" * size)
    else:
        draft.unlink()
    rig.save("/intact", b"fine")
    nursery.start_soon(rig.run)
    await rig.settled()
    dead = rig.the_dead()
    assert (dead.op.op_id, dead.reason) == (op_id, Reason.CORRUPT_SPOOL)
    assert dead.history == (), "no request was made"
    assert set(rig.remote.files) == {"/intact"}


async def test_sealed_bytes_are_checked_before_every_attempt(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.remote.fail("put_many", Refusal(500, retry_after=20))
    nursery.start_soon(rig.run)
    rig.save("/a", b"x" * 10)
    await trio.sleep(2)
    assert rig.the_pending().op.body == Body(size=10, digest=digest_of(b"x" * 10))
    (body,) = [found for found in (rig.folder / "spool" / "bodies").rglob("*") if found.is_file()]
    body.write_bytes(b"z" * 10)
    await rig.settled()
    assert rig.the_dead().reason is Reason.CORRUPT_SPOOL


async def test_draining_sends_what_only_settles(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.remote.write("/gone", b"x")
    nursery.start_soon(rig.run)
    rig.delete("/gone")
    rig.save("/a", b"x")
    begun = trio.current_time()
    await rig.uploader.drain(seconds=10)
    assert trio.current_time() - begun < 0.2
    assert rig.waiting == 0
    assert set(rig.remote.files) == {"/a"}


async def test_draining_ends_at_its_deadline(autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery) -> None:
    rig.remote.hold("put_many")
    nursery.start_soon(rig.run)
    rig.save("/a", b"x")
    begun = trio.current_time()
    await rig.uploader.drain(seconds=10)
    assert trio.current_time() - begun == pytest.approx(10, abs=0.1)
    assert rig.waiting == 1


async def test_draining_does_not_wait_for_a_remote_that_is_away(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.remote.online = False
    nursery.start_soon(rig.run)
    rig.save("/a", b"x")
    await trio.sleep(1)
    begun = trio.current_time()
    await rig.uploader.drain(seconds=10)
    assert trio.current_time() - begun < 0.1
    assert rig.journal.counts().pending == 1


@pytest.mark.parametrize("rewritten", [False, True])
@pytest.mark.parametrize("crash", ["seal", "sealed", "put_many", "acknowledge"])
async def test_a_crash_at_any_point_loses_nothing(
    autojump_clock: MockClock, rig: UploadRig, monkeypatch: pytest.MonkeyPatch, crash: str, rewritten: bool
) -> None:
    """The daemon dies just before the named step; the next one delivers the file, once."""
    rig.save("/a", b"content", rewritten=rewritten)
    owner: object = {"seal": rig.spool, "put_many": rig.remote}.get(crash, rig.journal)

    class Killed(BaseException):
        pass

    def die(*arguments: object) -> None:
        # The digest is journalled first; what is to crash is the record of the seal itself.
        body = arguments[-1]
        if crash == "sealed" and isinstance(body, Body) and body.draft is not None:
            original(*arguments)
            return
        raise Killed

    original = getattr(owner, crash)
    with monkeypatch.context() as patch, trio.move_on_after(30) as patience:
        patch.setattr(owner, crash, die)
        with pytest.raises(BaseExceptionGroup):
            await rig.run()
    assert not patience.cancelled_caught
    rig.recover()
    for body in rig.spool.unnamed(*rig.journal.bodies()):
        rig.spool.remove(body)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.run)
        await rig.settled()
        nursery.cancel_scope.cancel()
    assert rig.remote.content("/a") == b"content"
    assert not rig.dead()
    assert rig.journal.records(State.PENDING) == []
    assert rig.remote.files[RemotePath("/a")].revision == "rev_1", "it was written once"
