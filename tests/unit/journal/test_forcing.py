"""My version wins over theirs, theirs is kept, and what a person forgets is gone."""

from __future__ import annotations

import errno

import pytest

from fsmount.errors import VerbRefused
from fsmount.model import ABSENT, Claim, OpId, Reason, Record, RemotePath, State
from tests.model.world import World
from tests.support.program import deliver, due, only, queue, refuse, remove, rename, save

A, B = RemotePath("/d/a"), RemotePath("/d/b")


def conflict(world: World, mine: str = "mine", theirs: str = "theirs") -> OpId:
    """A dead letter at A, whose remote version is ``theirs``."""
    if world.remote.content(A) is None:
        world.remote.write(A, "old")
    op_id = save(world, A, mine)
    world.remote.write(A, theirs)
    deliver(world)
    dead = only(world, State.DEAD)
    assert (dead.op.op_id, dead.reason) == (op_id, Reason.CONFLICT)
    return op_id


def the_only_claim(world: World) -> Claim:
    (claim,) = due(world)
    return claim


def contents(world: World, *states: State) -> list[str]:
    bodies = [record.op.body for record in world.records(*states)]
    return [world.held(body) for body in bodies if body is not None]


# force


def test_a_forced_conflict_wins_and_theirs_is_kept(world: World) -> None:
    op_id = conflict(world)
    before = world.journal.totals()
    world.journal.force(op_id)
    assert queue(world) == [("put", A, None, "mine", "r2")]
    deliver(world)
    assert world.remote.content(A) == "mine"
    kept = only(world, State.DISCARDED)
    assert (kept.op.path, kept.op.base.revision, contents(world, State.DISCARDED)) == (A, "r2", ["theirs"])
    assert kept.superseded_by == op_id
    assert kept.message == f"what {op_id} replaced when it was forced"
    after = world.journal.totals()
    assert (after.discarded, after.superseded) == (before.discarded, before.superseded)
    with pytest.raises(VerbRefused, match="older"):
        world.journal.retry(kept.op.op_id)


def test_a_claim_says_what_it_replaces(world: World) -> None:
    world.journal.force(conflict(world))
    claim = the_only_claim(world)
    assert claim.forced
    assert claim.theirs is not None
    assert claim.theirs.base.revision == "r2"
    assert not claim.op.base.absent


def test_what_was_replaced_keeps_its_bytes_and_base_through_later_saves(world: World) -> None:
    world.journal.force(conflict(world))
    claim = the_only_claim(world)
    save(world, A, "later")
    world.settle(claim)
    deliver(world)
    world.sweep()
    world.reopen()
    kept = only(world, State.DISCARDED)
    assert (kept.op.base.revision, contents(world, State.DISCARDED)) == ("r2", ["theirs"])
    assert world.remote.content(A) == "later"


def test_a_newer_foreign_version_is_a_new_conflict(world: World) -> None:
    op_id = conflict(world)
    world.journal.force(op_id)
    world.remote.write(A, "newer theirs")
    deliver(world)
    again = only(world, State.DEAD)
    assert (again.op.op_id, again.reason, again.forced) == (op_id, Reason.CONFLICT, False)
    assert again.theirs is not None
    assert again.theirs.body is not None
    assert world.held(again.theirs.body) == "newer theirs"
    assert world.remote.content(A) == "newer theirs"
    assert "theirs" in [body.digest for body in world.journal.released()]
    world.journal.force(op_id)
    deliver(world)
    assert (world.remote.content(A), contents(world, State.DISCARDED)) == ("mine", ["newer theirs"])


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("deleted", [False, True])
def test_what_a_lost_answer_may_have_replaced_is_kept(world: World, crash: bool, deleted: bool) -> None:
    op_id = conflict(world)
    world.journal.force(op_id)
    claim = the_only_claim(world)
    if crash:
        world.remote.put(A, claim.op.base, "mine")
        world.reopen()
    else:
        world.settle(claim, lost=True)
    if deleted:
        del world.remote.files[A]
    else:
        world.remote.write(A, "newer theirs")
    deliver(world)
    assert only(world, State.DEAD).op.op_id == op_id
    world.sweep()
    assert contents(world, State.DISCARDED) == ["theirs"]
    assert "may have replaced" in only(world, State.DISCARDED).message
    world.journal.force(op_id)
    deliver(world)
    expected = ["theirs"] if deleted else ["newer theirs", "theirs"]
    assert (world.remote.content(A), sorted(contents(world, State.DISCARDED))) == ("mine", expected)


def test_a_file_deleted_there_is_made_again(world: World) -> None:
    world.remote.write(A, "old")
    op_id = save(world, A, "mine")
    del world.remote.files[A]
    deliver(world)
    assert only(world, State.DEAD).reason is Reason.REMOTE_DELETED
    world.journal.force(op_id)
    assert queue(world) == [("put", A, None, "mine", None)]
    deliver(world)
    assert (world.remote.content(A), world.journal.records()) == ("mine", [])


def test_a_deletion_there_after_a_conflict_is_forced_as_such(world: World) -> None:
    op_id = conflict(world)
    world.journal.force(op_id)
    del world.remote.files[A]
    deliver(world)
    assert only(world, State.DEAD).theirs is None
    world.journal.force(op_id)
    deliver(world)
    assert world.remote.content(A) == "mine"


def test_a_forced_delete_takes_their_version_away_and_keeps_it(world: World) -> None:
    world.remote.write(A, "old")
    remove(world, A)
    world.remote.write(A, "theirs")
    deliver(world)
    dead = only(world, State.DEAD)
    assert world.shows(A) == "theirs"
    world.journal.force(dead.op.op_id)
    assert world.shows(A) is None
    deliver(world)
    assert (world.remote.content(A), contents(world, State.DISCARDED)) == (None, ["theirs"])


def test_a_forced_move_wins_at_its_new_name(world: World) -> None:
    world.remote.write(A, "mine")
    rename(world, A, B)
    world.remote.write(B, "theirs")
    deliver(world)
    world.journal.force(only(world, State.DEAD).op.op_id)
    deliver(world)
    assert {path: content for path, (_, content) in world.remote.files.items()} == {B: "mine"}
    kept = only(world, State.DISCARDED)
    assert (kept.op.path, contents(world, State.DISCARDED)) == (B, ["theirs"])


def test_a_forced_move_brings_what_somebody_wrote_at_its_old_name(world: World) -> None:
    world.remote.write(A, "mine")
    rename(world, A, B)
    world.remote.write(A, "theirs")
    deliver(world)
    world.journal.force(only(world, State.DEAD).op.op_id)
    deliver(world)
    assert {path: content for path, (_, content) in world.remote.files.items()} == {B: "theirs"}
    assert world.journal.records() == []


def test_a_forced_move_removes_what_came_to_its_old_name_since_and_keeps_it(world: World) -> None:
    world.remote.write(A, "mine")
    rename(world, A, B)
    claim = the_only_claim(world)
    arrived = world.journal.step(claim, world._receipt(A), world.answer(200))
    world.remote.write(B, "mine")
    world.remote.write(A, "theirs")
    world.claims = [arrived]
    world.settle(arrived)
    world.journal.force(only(world, State.DEAD).op.op_id)
    deliver(world)
    assert {path: content for path, (_, content) in world.remote.files.items()} == {B: "mine"}
    assert contents(world, State.DISCARDED) == ["theirs"]


def test_a_move_whose_file_was_deleted_there_cannot_be_forced(world: World) -> None:
    world.remote.write(A, "mine")
    rename(world, A, B)
    del world.remote.files[A]
    deliver(world)
    with pytest.raises(VerbRefused, match="nothing is left to send") as refused:
        world.journal.force(only(world, State.DEAD).op.op_id)
    assert refused.value.errno == errno.EPERM


def test_only_conflicts_and_what_was_deleted_there_can_be_forced(world: World) -> None:
    pending = save(world, B, "waits")
    with pytest.raises(VerbRefused, match="only a conflict") as refused:
        world.journal.force(pending)
    assert refused.value.errno == errno.EPERM
    dead = refuse(world)
    with pytest.raises(VerbRefused, match="only a conflict"):
        world.journal.force(dead)
    world.journal.discard(dead)
    with pytest.raises(VerbRefused, match="only a conflict"):
        world.journal.force(dead)


def test_a_newer_op_on_the_path_is_the_one_to_force(world: World) -> None:
    older = conflict(world)
    newer = save(world, A, "merged")
    with pytest.raises(VerbRefused, match="older than another op") as refused:
        world.journal.force(older)
    assert refused.value.errno == errno.EBUSY
    deliver(world)
    world.journal.force(newer)
    deliver(world)
    assert world.remote.content(A) == "merged"


def test_a_forced_op_that_is_refused_stays_forced_when_it_is_tried_again(world: World) -> None:
    op_id = conflict(world)
    world.journal.force(op_id)
    assert refuse(world) == op_id
    world.journal.retry(op_id)
    deliver(world)
    assert contents(world, State.DISCARDED) == ["theirs"]


def test_bytes_that_could_not_be_read_are_fetched_before_they_are_replaced(world: World) -> None:
    op_id = conflict(world)
    world.journal._db.run("UPDATE op SET theirs_size = NULL")
    world.journal.force(op_id)
    claim = the_only_claim(world)
    assert claim.theirs is not None
    assert claim.theirs.body is None
    world.settle(claim)
    assert contents(world, State.DISCARDED) == ["theirs"]


# a merge


def test_a_merge_saved_after_theirs_was_accepted_goes_through(world: World) -> None:
    older = conflict(world)
    assert world.journal.accept_theirs(A)
    newer = save(world, A, "merged")
    assert queue(world) == [("put", A, None, "merged", "r2")]
    deliver(world)
    assert world.remote.content(A) == "merged"
    told = {record.op.op_id: record for record in world.records(State.DISCARDED)}
    assert told.pop(older).superseded_by == newer
    ((_, kept),) = told.items()
    assert (kept.superseded_by, kept.op.base.revision) == (newer, "r2")
    assert kept.op.body is not None
    assert world.held(kept.op.body) == "theirs"


def test_theirs_is_kept_also_where_it_was_written_once_more_before_the_merge_arrived(world: World) -> None:
    conflict(world)
    assert world.journal.accept_theirs(A)
    save(world, A, "merged")
    world.remote.write(A, "theirs")
    deliver(world)
    assert world.remote.content(A) == "merged"
    assert "theirs" in contents(world, State.DISCARDED)


def test_what_waits_already_is_part_of_the_merge(world: World) -> None:
    conflict(world)
    save(world, A, "half merged")
    assert world.journal.accept_theirs(A)
    deliver(world)
    assert world.remote.content(A) == "half merged"


def test_a_second_foreign_change_is_not_accepted_with_the_first(world: World) -> None:
    conflict(world)
    assert world.journal.accept_theirs(A)
    world.remote.write(A, "newer theirs")
    save(world, A, "merged")
    deliver(world)
    assert world.remote.content(A) == "newer theirs"
    assert only(world, State.DEAD).reason is Reason.CONFLICT


@pytest.mark.parametrize("path", [A, B])
def test_without_a_conflict_nothing_is_accepted(world: World, path: RemotePath) -> None:
    save(world, A, "one")
    refuse(world)
    assert not world.journal.accept_theirs(path)


# forget


def test_purging_forgets_an_op_and_lets_go_of_its_bytes(world: World) -> None:
    op_id = save(world, A, "one")
    with pytest.raises(VerbRefused) as refused:
        world.journal.purge(op_id)
    assert refused.value.errno == errno.EPERM
    world.journal.discard(refuse(world))
    world.journal.purge(op_id)
    assert world.journal.record(op_id) is None
    assert "one" in [body.digest for body in world.journal.released()]
    with pytest.raises(VerbRefused, match="gone") as gone:
        world.journal.purge(op_id)
    assert gone.value.errno == errno.ENOENT


def superseded(world: World, count: int) -> list[OpId]:
    """Dead letters that a later save superseded, ten bytes each."""
    found = []
    for number in range(count):
        path = f"/d/{number}"
        save(world, path, f"older-{number:04}")
        found.append(refuse(world))
        save(world, path, "newer")
        deliver(world)
    return found


def test_trimming_forgets_the_oldest_of_what_was_superseded(world: World) -> None:
    mine = save(world, A, "given up..")
    world.journal.discard(mine)
    oldest, middle, newest = superseded(world, 3)
    assert world.journal.trim_discarded(40) == 0
    assert world.journal.trim_discarded(25) == 2
    assert world.journal.record(oldest) is None
    assert world.journal.record(middle) is None
    assert world.journal.trim_discarded(0) == 1
    assert world.journal.op_ids(State.DISCARDED) == [mine]
    assert newest not in world.journal.op_ids(State.DISCARDED)


def test_what_a_waiting_delete_would_bring_back_is_not_trimmed(world: World) -> None:
    world.remote.write(A, "old")
    unsent = save(world, A, "unsent")
    world.clock.advance(1.0)
    remove(world, A, brake=0)
    assert world.journal.trim_discarded(0) == 0
    world.journal.discard(only(world, State.HELD).op.op_id)
    pending: Record = only(world, State.PENDING)
    assert pending.op.op_id == unsent


# at once


def test_hurrying_an_op_does_not_wait_for_its_writer_to_close(world: World) -> None:
    draft = world.begin(A)
    op_id = world.flush(draft, A, "half")
    world.journal.hurry(op_id)
    assert [claim.op.op_id for claim in world.claim()] == [op_id]
    world.journal.hurry(op_id)
    assert only(world, State.SENDING).op.base == ABSENT
