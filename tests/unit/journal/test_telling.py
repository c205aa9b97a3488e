"""The log is told what becomes of ops, whichever call did it, and of nothing that was rolled back."""

from contextlib import suppress
from pathlib import Path

import pytest

from fsmount.model import ABSENT, Base, Body, Digest, OpId, OpKind, Receipt, RemotePath, Revision, State
from tests.support.facts import Mounted
from tests.support.notes import Note, Notes

AT = Base(Revision("r1"))


@pytest.fixture
def mounted(tmp_path: Path) -> Mounted:
    return Mounted(tmp_path)


@pytest.fixture
def log(mounted: Mounted) -> Notes:
    notes = Notes()
    mounted.journal.tell(notes)
    return notes


def told(log: Notes) -> list[str]:
    """``EVENT KIND PATH`` of each line so far, which are then forgotten."""
    lines = [f"{note.event} {_kind(note)} {note.path}" for note in log.all]
    log.all.clear()
    return lines


def _kind(note: Note) -> str:
    return note.details.kind or "?" if note.details is not None else "?"


def test_every_kind_of_op_is_queued(mounted: Mounted, log: Notes) -> None:
    mounted.save("/a/put")
    mounted.journal.delete(RemotePath("/a/gone"), AT)
    mounted.journal.rename(RemotePath("/a/old"), RemotePath("/a/new"), AT, ABSENT)
    mounted.journal.rmdir(RemotePath("/d"))
    assert told(log) == [
        "op.queued put /a/put", "op.queued delete /a/gone", "op.queued move /a/new", "op.queued rmdir /d",
    ]  # fmt: skip


def test_saving_again_before_the_first_attempt_is_the_same_op(mounted: Mounted, log: Notes) -> None:
    mounted.save("/a/x")
    mounted.save("/a/x", b"more")
    assert told(log) == ["op.queued put /a/x"]


def test_what_was_replaced_before_it_was_sent_ends_too(mounted: Mounted, log: Notes) -> None:
    mounted.journal.delete(RemotePath("/a/x"), AT)
    told(log)
    mounted.save("/a/x")
    assert told(log) == ["op.queued put /a/x", "op.superseded delete /a/x"]


def test_a_retry_a_discard_and_what_is_held_are_told(mounted: Mounted, log: Notes) -> None:
    first, second = mounted.dead("/a/x"), mounted.dead("/a/y")
    told(log)
    mounted.journal.retry(first)
    mounted.journal.discard(second)
    (queued, discarded) = log.all
    assert queued.details is not None
    assert discarded.details is not None
    assert (queued.event, queued.details.state, queued.details.attempt) == ("op.queued", "pending", 1)
    assert (discarded.event, discarded.details.state, discarded.details.reason) == (
        "op.discarded", "discarded", "rejected",
    )  # fmt: skip
    told(log)
    held = mounted.hold("/a/z")
    assert told(log) == ["op.queued delete /a/z", "op.held delete /a/z"]
    mounted.journal.retry(held)
    assert told(log) == ["op.queued delete /a/z"]


def test_a_delivered_op_supersedes_the_dead_letter_before_it(mounted: Mounted, log: Notes) -> None:
    old = mounted.dead("/a/x")
    new = mounted.save("/a/x", b"better")
    told(log)
    receipt = Receipt(path=RemotePath("/a/x"), revision=Revision("r2"))
    mounted.journal.acknowledge(mounted.claim(new), receipt, mounted.answered())
    (note,) = log.all
    assert (note.event, note.message) == ("op.superseded", f"by {new}")
    record = mounted.journal.record(old)
    assert record is not None
    assert record.state is State.DISCARDED


def test_sending_and_its_end_are_left_to_the_sender(mounted: Mounted, log: Notes) -> None:
    op_id = mounted.save("/a/x")
    told(log)
    claim = mounted.claim(op_id)
    mounted.journal.postpone(claim, 0.0, mounted.answered(), charged=False)
    mounted.refuse(op_id)
    assert told(log) == []


def test_a_purge_is_no_event(mounted: Mounted, log: Notes) -> None:
    op_id = mounted.dead("/a/x")
    mounted.journal.discard(op_id)
    told(log)
    mounted.journal.purge(op_id)
    assert told(log) == []


def test_what_was_rolled_back_never_happened(mounted: Mounted, log: Notes) -> None:
    with suppress(ZeroDivisionError), mounted.journal.transaction():
        mounted.journal.delete(RemotePath("/a/x"), AT)
        raise ZeroDivisionError
    mounted.save("/a/y")
    assert told(log) == ["op.queued put /a/y"]


def test_a_transaction_is_told_at_its_end_in_its_order(mounted: Mounted, log: Notes) -> None:
    body = Body(size=1, digest=Digest("0" * 64))
    with mounted.journal.transaction():
        for number in range(3):
            path = RemotePath(f"/a/{number}")
            mounted.journal.put(None, path, ABSENT, body, content_type="", mtime=0.0, still_open=False)
            assert log.all == []
    assert told(log) == [f"op.queued {OpKind.PUT} /a/{number}" for number in range(3)]


def test_an_op_that_ends_within_its_own_transaction_is_told_of(mounted: Mounted, log: Notes) -> None:
    mounted.journal.delete(RemotePath("/a/x"), AT)
    told(log)
    mounted.save("/a/x")
    mounted.journal.delete(RemotePath("/a/x"), AT)
    ended: set[OpId] = {note.op for note in log.all if note.event in ("op.superseded", "op.discarded") and note.op}
    open_ops = {note.op for note in log.all if note.event == "op.queued"} - ended
    assert open_ops == set(mounted.journal.op_ids(State.PENDING))
