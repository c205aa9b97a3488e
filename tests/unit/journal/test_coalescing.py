"""What a burst of system calls leaves to send."""

from __future__ import annotations

import pytest

from fsmount.model import ABSENT, Base, Reason, RemotePath, Revision, State
from tests.model.world import World
from tests.support.program import deliver, due, only, queue, refuse, remove, rename, save

A, B, C = RemotePath("/d/a"), RemotePath("/d/b"), RemotePath("/d/c")


def test_closing_again_replaces_the_body_and_lets_go_of_the_old_one(world: World) -> None:
    assert save(world, A, "one") == save(world, A, "two")
    assert queue(world) == [("put", A, None, "two", None)]
    world.sweep()
    assert set(world.drafts.values()) == {"two"}


def test_a_save_behind_an_attempt_is_an_op_of_its_own(world: World) -> None:
    first = save(world, A, "one")
    (claim,) = due(world)
    assert save(world, A, "two") != first
    assert due(world) == []
    world.settle(claim)
    assert queue(world) == [("put", A, None, "two", "r1")]


def test_what_was_claimed_and_never_begun_still_coalesces(world: World) -> None:
    first = save(world, A, "one")
    world.give_back(due(world)[0])
    assert save(world, A, "two") == first


def test_made_again_after_removal_is_one_put_at_the_old_base(world: World) -> None:
    world.remote.write(A, "old")
    remove(world, A)
    save(world, A, "new")
    assert queue(world) == [("put", A, None, "new", "r1")]


def test_made_again_after_a_refused_removal_supersedes_it(world: World) -> None:
    world.remote.write(A, "old")
    remove(world, A)
    dead = refuse(world)
    made = save(world, A, "new")
    assert queue(world) == [("put", A, None, "new", "r1")]
    gone = only(world, State.DISCARDED)
    assert (gone.op.op_id, gone.superseded_by) == (dead, made)


def test_removing_what_was_saved_over_a_refused_file_does_not_bring_that_one_back(world: World) -> None:
    save(world, A, "one")
    refuse(world)
    save(world, A, "two")
    remove(world, A)
    assert (world.shows(A), queue(world)) == (None, [])


def test_renaming_what_was_saved_over_a_refused_file_does_not_bring_that_one_back(world: World) -> None:
    save(world, A, "one")
    refuse(world)
    save(world, A, "two")
    rename(world, A, B)
    assert (world.shows(A), world.shows(B)) == (None, "two")


def test_removing_what_was_moved_from_a_refused_file_does_not_bring_that_one_back(world: World) -> None:
    save(world, A, "one")
    (claim,) = due(world)
    rename(world, A, B)
    world.refuse(claim)
    remove(world, B)
    assert (world.shows(A), world.shows(B)) == (None, None)


def test_moving_away_from_a_refused_file_does_not_bring_that_one_back(world: World) -> None:
    world.remote.write(A, "old")
    save(world, B, "refused")
    refuse(world)
    rename(world, A, B)
    rename(world, B, C)
    assert (world.shows(A), world.shows(B), world.shows(C)) == (None, None, "old")
    rename(world, C, B)
    rename(world, B, A)
    assert (world.shows(A), world.shows(B), queue(world)) == ("old", None, [])


def test_created_and_removed_at_once_leaves_nothing(world: World) -> None:
    save(world, A, "one")
    remove(world, A)
    assert world.journal.records() == []
    world.sweep()
    assert world.drafts == {}


def test_bytes_that_outlived_the_settle_time_are_kept_as_discarded(world: World) -> None:
    save(world, A, "one")
    world.clock.advance(1.0)
    remove(world, A)
    assert queue(world) == []
    assert world.kept() == {"one"}
    assert only(world, State.DISCARDED).op.path == A


def test_removing_an_unsent_save_deletes_at_its_base(world: World) -> None:
    world.remote.write(A, "old")
    save(world, A, "new")
    remove(world, A)
    assert queue(world) == [("delete", A, None, None, "r1")]


def test_a_long_settle_keeps_a_removal_back(world: World) -> None:
    world.journal.delete(A, Base(Revision("r1")), settle=10.0)
    assert due(world, 9.9) == []
    assert len(due(world, 0.2)) == 1


def test_a_removal_is_not_lost_to_a_file_that_was_never_flushed(world: World) -> None:
    world.remote.write(A, "old")
    rename(world, A, B)
    world.journal.delete(A, ABSENT)
    assert queue(world) == [("move", A, B, None, "r1")]


def test_a_temporary_takes_the_final_name_and_its_base(world: World) -> None:
    world.remote.write(A, "old")
    save(world, B, "new")
    rename(world, B, A)
    assert queue(world) == [("put", A, None, "new", "r1")]
    deliver(world)
    assert world.remote.content(A) == "new"


def test_an_op_that_was_attempted_is_moved_behind(world: World) -> None:
    save(world, A, "one")
    (claim,) = due(world)
    rename(world, A, B)
    assert due(world) == []
    world.settle(claim)
    deliver(world)
    assert {path: content for path, (_, content) in world.remote.files.items()} == {B: "one"}


def test_a_refused_file_under_another_name_is_a_new_put(world: World) -> None:
    save(world, A, "one")
    dead = refuse(world)
    rename(world, A, B)
    assert queue(world) == [("put", B, None, "one", None)]
    gone = only(world, State.DISCARDED)
    assert gone.op.op_id == dead
    assert gone.superseded_by is not None


def test_a_file_that_may_have_arrived_moves(world: World) -> None:
    save(world, A, "one")
    refuse(world, Reason.EXHAUSTED)
    rename(world, A, B)
    assert queue(world) == [("move", A, B, "one", None)]


def test_a_chain_of_renames_is_one(world: World) -> None:
    world.remote.write(A, "old")
    rename(world, A, B)
    rename(world, B, C)
    assert queue(world) == [("move", A, C, None, "r1")]


def test_back_where_it_was_leaves_nothing(world: World) -> None:
    world.remote.write(A, "old")
    rename(world, A, B)
    rename(world, B, A)
    assert queue(world) == []


def test_back_where_it_was_with_new_bytes_is_a_put(world: World) -> None:
    world.remote.write(A, "old")
    rename(world, A, B)
    save(world, B, "new")
    assert queue(world) == [("move", A, B, "new", "r1")]
    rename(world, B, A)
    assert queue(world) == [("put", A, None, "new", "r1")]


@pytest.mark.parametrize("again", ["saved", "removed"])
def test_an_overwritten_move_leaves_the_removal_of_its_old_name(world: World, again: str) -> None:
    world.remote.write(A, "old")
    rename(world, A, B)
    if again == "saved":
        save(world, C, "new")
        rename(world, C, B)
    else:
        remove(world, B)
    deliver(world)
    assert world.remote.content(A) is None
    assert world.remote.content(B) == ("new" if again == "saved" else None)


@pytest.mark.parametrize("last", ["removed", "renamed", "back"])
def test_a_name_taken_again_survives_whatever_becomes_of_the_move(world: World, last: str) -> None:
    world.remote.write(A, "old")
    rename(world, A, B)
    save(world, A, "new")
    if last == "removed":
        remove(world, B)
    else:
        rename(world, B, C if last == "renamed" else A)
    deliver(world)
    files = {path: content for path, (_, content) in world.remote.files.items()}
    assert files == {"removed": {A: "new"}, "renamed": {A: "new", C: "old"}, "back": {A: "old"}}[last]


@pytest.mark.parametrize("last", ["removed", "renamed"])
def test_a_directory_goes_after_what_left_it(world: World, last: str) -> None:
    inside = RemotePath("/d/sub/a")
    world.remote.write(inside, "old")
    rename(world, inside, B)
    world.journal.rmdir(RemotePath("/d/sub"))
    if last == "removed":
        remove(world, B)
    else:
        rename(world, B, C)
    order = [(kind, path) for kind, path, *_ in queue(world)]
    assert order.index(("rmdir", "/d/sub")) > min(n for n, (_, path) in enumerate(order) if path == inside)


def test_an_undone_removal_of_a_directory(world: World) -> None:
    directory = RemotePath("/d/sub")
    world.journal.rmdir(directory)
    assert world.journal.cancel_rmdir(directory)
    assert queue(world) == []
    assert not world.journal.cancel_rmdir(directory)


def test_a_chained_move_shows_the_bytes_that_were_renamed(world: World) -> None:
    world.remote.write(A, "mine")
    world.remote.write(B, "other")
    rename(world, A, B)
    due(world)
    rename(world, B, C)
    assert world.shows(C) == "mine"
