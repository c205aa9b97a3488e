"""Who waits for whom, how long, and with which base."""

from __future__ import annotations

import sqlite3

import pytest

from fsmount.errors import VerbRefused
from fsmount.model import Reason, RemotePath, State
from tests.model.world import World
from tests.support.program import deliver, due, only, queue, refuse, remove, rename, save

A, B, C = RemotePath("/d/a"), RemotePath("/d/b"), RemotePath("/d/c")


def test_an_op_settles_and_a_burst_is_bounded(world: World) -> None:
    save(world, A, "one")
    assert due(world, 0.2) == []
    for number in range(14):
        save(world, A, f"again{number}")
        world.clock.advance(0.2)
    assert len(due(world, 0.1)) == 1


def test_a_file_still_open_waits_until_it_is_quiet(world: World) -> None:
    draft = world.begin(A)
    world.flush(draft, A, "half")
    world.clock.advance(4.0)
    world.journal.touch_draft(draft)
    assert due(world, 4.9) == []
    assert len(due(world, 0.2)) == 1


def test_unrelated_ops_go_together_and_related_ones_do_not(world: World) -> None:
    world.journal.rmdir(RemotePath("/d/sub"))
    save(world, "/d/sub/deeper/x", "below")
    save(world, "/d/subway", "unrelated")
    world.journal.rmdir(RemotePath("/d"))
    assert [claim.op.path for claim in due(world)] == ["/d/sub", "/d/subway"]


def test_next_due_passes_over_what_is_blocked(world: World) -> None:
    save(world, A, "one")
    (claim,) = due(world)
    save(world, A, "two")
    assert world.journal.next_due() is None
    world.settle(claim)
    assert world.journal.next_due() is not None


def test_a_dead_move_bars_its_names_and_says_so(world: World) -> None:
    world.remote.write(A, "old")
    rename(world, A, B)
    dead = refuse(world)
    save(world, A, "new")
    world.journal.rmdir(RemotePath("/d"))
    assert due(world) == []
    assert world.journal.next_due() is None
    assert world.journal.counts().blocked == 2
    for record in world.records(State.PENDING):
        found = world.journal.record(record.op.op_id)
        assert found is not None
        assert found.blocked_by == dead
    with pytest.raises(VerbRefused, match="wait for this move"):
        world.journal.discard(dead)


@pytest.mark.parametrize("verb", ["retry", "force"])
def test_a_dead_move_that_others_wait_for_is_tried_again_before_them(world: World, verb: str) -> None:
    world.remote.write(A, "old")
    rename(world, A, B)
    if verb == "force":
        world.remote.write(B, "theirs")
        deliver(world)
    dead = refuse(world) if verb == "retry" else only(world, State.DEAD).op.op_id
    save(world, A, "new")
    getattr(world.journal, verb)(dead)
    assert [claim.op.op_id for claim in due(world)] == [dead]
    world.reopen()
    deliver(world)
    assert (world.remote.content(A), world.remote.content(B)) == ("new", "old")
    assert world.records(State.PENDING, State.DEAD) == []


@pytest.mark.parametrize("taken", ["the old name is free", "the old name is taken again"])
def test_a_save_of_a_file_whose_rename_was_refused_goes_in_place_of_the_rename(world: World, taken: str) -> None:
    world.remote.write(A, "old")
    rename(world, A, B)
    dead = refuse(world)
    if taken == "the old name is taken again":
        save(world, A, "another")
    newer = save(world, B, "corrected")
    assert world.shows(B) == "corrected"
    gone = only(world, State.DISCARDED)
    assert (gone.op.op_id, gone.superseded_by) == (dead, newer)
    deliver(world)
    left = {B: "corrected"} | ({A: "another"} if taken == "the old name is taken again" else {})
    assert {path: content for path, (_, content) in world.remote.files.items()} == left
    assert world.records(State.PENDING, State.DEAD) == []


@pytest.mark.parametrize("verb", ["retry", "discard"])
def test_a_file_whose_old_name_cannot_be_removed_is_not_barred(world: World, verb: str) -> None:
    world.remote.write(A, "old")
    rename(world, A, B)
    (claim,) = due(world)
    world.claims.remove(claim)
    world.remote.write(B, "old")
    arrived = world.journal.step(claim, world._receipt(B), world.answer(200))
    world.journal.bury(arrived, Reason.FORBIDDEN, "no", world.answer(403), charged=True)
    save(world, B, "newer")
    deliver(world)
    assert world.remote.content(B) == "newer"
    getattr(world.journal, verb)(claim.op.op_id)
    save(world, B, "newest")
    deliver(world)
    left = {B: "newest"} if verb == "retry" else {A: "old", B: "newest"}
    assert {path: content for path, (_, content) in world.remote.files.items()} == left
    assert world.records(State.PENDING, State.DEAD) == []


def test_a_file_renamed_over_one_whose_rename_was_refused_is_not_barred(world: World) -> None:
    world.remote.write(A, "old")
    rename(world, A, B)
    refuse(world)
    save(world, C, "corrected")
    rename(world, C, B)
    deliver(world)
    assert {path: content for path, (_, content) in world.remote.files.items()} == {B: "corrected"}
    assert world.records(State.PENDING, State.DEAD) == []


def test_a_dead_put_bars_nothing_and_is_superseded(world: World) -> None:
    save(world, A, "one")
    dead = refuse(world)
    newer = save(world, A, "two")
    deliver(world)
    assert world.remote.content(A) == "two"
    gone = only(world, State.DISCARDED)
    assert (gone.op.op_id, gone.superseded_by) == (dead, newer)
    with pytest.raises(VerbRefused):
        world.journal.retry(dead)


def test_a_save_after_a_conflict_conflicts_again(world: World) -> None:
    world.remote.write(A, "old")
    save(world, A, "mine")
    world.remote.write(A, "theirs")
    deliver(world)
    assert only(world, State.DEAD).reason is Reason.CONFLICT
    save(world, A, "mine again")
    deliver(world)
    assert world.remote.content(A) == "theirs"
    newer = only(world, State.DEAD)
    assert newer.reason is Reason.CONFLICT
    (older,) = world.records(State.DISCARDED)
    assert older.superseded_by == newer.op.op_id


def test_a_lost_answer_is_no_conflict(world: World) -> None:
    save(world, A, "one")
    world.settle(due(world)[0], lost=True)
    save(world, A, "two")
    deliver(world)
    assert (world.remote.content(A), world.journal.records()) == ("two", [])


def test_retry_goes_to_the_end_with_a_new_budget(world: World) -> None:
    save(world, A, "one")
    dead = refuse(world)
    save(world, B, "two")
    world.journal.retry(dead)
    assert [path for _, path, *_ in queue(world)] == [B, A]
    claim = next(claim for claim in due(world) if claim.op.op_id == dead)
    assert (claim.attempts, claim.budget_start, claim.op.redrives) == (1, 1, 1)


@pytest.mark.parametrize("verb", ["retry", "discard"])
def test_what_is_being_sent_or_gone_is_refused(world: World, verb: str) -> None:
    op_id = save(world, A, "one")
    (claim,) = due(world)
    with pytest.raises(VerbRefused, match="being sent"):
        getattr(world.journal, verb)(op_id)
    world.settle(claim)
    with pytest.raises(VerbRefused, match="gone"):
        getattr(world.journal, verb)(op_id)


def test_old_bytes_never_go_after_new_ones(world: World) -> None:
    save(world, A, "one")
    dead = refuse(world)
    save(world, A, "two")
    with pytest.raises(VerbRefused, match="older"):
        world.journal.retry(dead)


def test_a_discarded_successor_can_still_be_sent_after_its_predecessor(world: World) -> None:
    save(world, A, "one")
    (claim,) = due(world)
    second = save(world, A, "two")
    world.journal.discard(second)
    world.settle(claim)
    world.journal.retry(second)
    deliver(world)
    assert world.remote.content(A) == "two"


def test_one_op_a_path_is_being_sent(world: World) -> None:
    save(world, A, "one")
    due(world)
    save(world, A, "two")
    with pytest.raises(sqlite3.IntegrityError):
        world.journal._db.run("UPDATE op SET state = 'sending'")


def test_a_lease_that_was_overtaken_settles_nothing(world: World) -> None:
    save(world, A, "one")
    (claim,) = due(world)
    world.give_back(claim)
    due(world)
    with pytest.raises(RuntimeError, match="lease"):
        world.journal.bury(claim, Reason.REJECTED, "no", None, charged=False)


def test_settling_a_batch_is_one_transaction(world: World) -> None:
    save(world, A, "one")
    save(world, B, "two")
    told: list[int] = []
    claims = due(world)
    world.journal.watch(lambda: told.append(1))
    with world.journal.transaction():
        for claim in claims:
            world.settle(claim)
    assert (len(told), world.journal.records()) == (1, [])


def test_totals_only_grow_and_survive(world: World) -> None:
    save(world, A, "one")
    refuse(world)
    save(world, B, "four")
    deliver(world)
    remove(world, A)
    world.reopen()
    totals = world.journal.totals()
    assert (totals.failed_attempts, totals.failed_writebacks, totals.acknowledged) == (1, 1, 1)
    assert (totals.bytes_up, totals.discarded) == (4, 1)


def test_last_errors_are_of_unresolved_ops_per_provider(world: World) -> None:
    save(world, A, "one")
    dead = refuse(world)
    save(world, "/e/x", "two")
    deliver(world)
    ((provider, (record, attempt)),) = world.journal.last_errors().items()
    assert (provider, record.op.op_id, attempt.status) == ("d", dead, 422)
    world.journal.discard(dead)
    assert world.journal.last_errors() == {}


def test_a_shared_body_is_released_with_its_last_op(world: World) -> None:
    save(world, A, "same")
    save(world, B, "same")
    first, second = due(world)
    world.claims[1] = second = world._sealed(second)
    world.settle(first)
    assert [body.digest for body in world.journal.released() if body.draft is None] == []
    world.settle(second)
    assert "same" in [body.digest for body in world.journal.released()]
