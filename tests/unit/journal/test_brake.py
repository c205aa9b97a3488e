"""Too many deletes within a minute wait for a person, who lets them go or has the files back."""

from __future__ import annotations

import errno
import time

import pytest

from fsmount.errors import VerbRefused
from fsmount.model import ABSENT, Base, OpId, OpKind, RemotePath, Revision, State
from tests.model.world import World
from tests.support.program import deliver, due, only, queue, remove, rename, save

DIRECTORY = RemotePath("/d")
NAMES = [f"/d/{name}" for name in "abcdef"]
LIMIT = 3


@pytest.fixture
def full(world: World) -> World:
    """Six files that the remote had before."""
    for name in NAMES:
        world.remote.write(RemotePath(name), f"old {name}")
    return world


def remove_all(world: World, names: list[str] = NAMES, brake: int | None = LIMIT) -> None:
    for name in names:
        remove(world, name, brake=brake)


def held(world: World) -> list[tuple[str, str]]:
    records = sorted(world.records(State.HELD), key=lambda record: record.op.seq)
    return [(record.op.kind.value, record.op.path) for record in records]


def held_ids(world: World) -> list[OpId]:
    """In the order of a shell's wildcard."""
    return sorted(record.op.op_id for record in world.records(State.HELD))


def id_of(world: World, path: str, kind: OpKind = OpKind.DELETE) -> OpId:
    (found,) = [r.op.op_id for r in world.journal.records() if (r.op.path, r.op.kind) == (path, kind)]
    return found


# what is held


def test_one_delete_too_many_holds_all_of_the_minute_and_every_later_one(full: World) -> None:
    remove_all(full, NAMES[:LIMIT])
    assert held(full) == []
    remove_all(full, NAMES[LIMIT : LIMIT + 1])
    assert held(full) == [("delete", name) for name in NAMES[: LIMIT + 1]]
    full.clock.advance(3600.0)
    remove(full, NAMES[-1], brake=LIMIT)
    assert ("delete", NAMES[-1]) in held(full)
    assert due(full) == []
    assert full.journal.counts().held == LIMIT + 2


def test_deletes_more_than_a_minute_apart_are_not_too_many(full: World) -> None:
    remove_all(full, NAMES[:LIMIT])
    full.clock.advance(60.1)
    remove_all(full, NAMES[LIMIT:])
    assert held(full) == []


def test_delivered_deletes_of_the_minute_count(full: World) -> None:
    remove_all(full, NAMES[:LIMIT])
    for claim in due(full):
        full.settle(claim)
    remove(full, NAMES[LIMIT], brake=LIMIT)
    assert held(full) == [("delete", NAMES[LIMIT])]


def test_what_is_being_sent_is_not_held(full: World) -> None:
    remove_all(full, NAMES[:LIMIT])
    claims = due(full)
    remove(full, NAMES[LIMIT], brake=LIMIT)
    assert held(full) == [("delete", NAMES[LIMIT])]
    for claim in claims:
        full.settle(claim)
    assert sorted(full.remote.files) == NAMES[LIMIT:]


def test_the_brake_outlives_the_daemon(full: World) -> None:
    remove_all(full, NAMES[: LIMIT + 1])
    full.reopen()
    remove(full, NAMES[-1], brake=LIMIT)
    assert ("delete", NAMES[-1]) in held(full)
    assert due(full) == []


def test_without_a_limit_nothing_is_held_or_counted(full: World) -> None:
    remove_all(full, NAMES[:LIMIT], brake=None)
    remove_all(full, NAMES[LIMIT:])
    assert held(full) == []


@pytest.mark.parametrize("how", ["never delivered", "made lately", "made and renamed", "written over"])
def test_what_this_mount_made_does_not_count(world: World, how: str) -> None:
    for name in NAMES:
        save(world, name, f"new {name}")
    if how != "never delivered":
        deliver(world)
    names = NAMES
    if how == "made and renamed":
        names = [f"{name}2" for name in NAMES]
        for old, new in zip(NAMES, names, strict=True):
            rename(world, old, new)
        deliver(world)
    if how == "written over":
        for name in NAMES:
            save(world, name, f"newer {name}")
        deliver(world)
    remove_all(world, names)
    assert held(world) == []


def test_what_was_renamed_while_it_was_delivered_is_this_mounts_own(world: World) -> None:
    for name in NAMES:
        save(world, name, f"new {name}")
    claims = due(world)
    for name in NAMES:
        rename(world, name, f"{name}2")
    for claim in claims:
        world.settle(claim)
    deliver(world)
    remove_all(world, [f"{name}2" for name in NAMES])
    assert held(world) == []


def test_what_was_made_an_hour_ago_counts(world: World) -> None:
    for name in NAMES:
        save(world, name, f"new {name}")
    deliver(world)
    world.clock.advance(3601.0)
    remove_all(world)
    assert len(held(world)) == len(NAMES)


def test_a_moved_file_is_not_a_new_one(full: World) -> None:
    for name in NAMES:
        rename(full, name, f"{name}2")
    deliver(full)
    remove_all(full, [f"{name}2" for name in NAMES])
    assert len(held(full)) == len(NAMES)


def test_a_file_removed_before_its_rename_was_sent_counts(full: World) -> None:
    for name in NAMES:
        rename(full, name, f"{name}2")
    remove_all(full, [f"{name}2" for name in NAMES])
    assert held(full) == [("delete", name) for name in NAMES]


def test_old_names_of_renames_do_not_count(full: World) -> None:
    for name in NAMES:
        rename(full, name, f"{name}2")
    remove(full, f"{NAMES[0]}2", brake=0)
    assert held(full) == [("delete", NAMES[0])]
    deliver(full)
    assert sorted(full.remote.files) == [NAMES[0], *(f"{name}2" for name in NAMES[1:])]


def test_writing_files_anew_is_no_mass_delete(full: World) -> None:
    for name in NAMES:
        remove(full, name, brake=LIMIT)
        save(full, name, f"new {name}")
    assert held(full) == []


# what is behind


def test_rmdirs_are_held_with_what_they_wait_for(full: World) -> None:
    remove_all(full, NAMES[:LIMIT])
    full.journal.rmdir(RemotePath("/d/a"))
    remove_all(full, NAMES[LIMIT : LIMIT + 1])
    full.journal.rmdir(DIRECTORY)
    full.journal.rmdir(RemotePath("/e"))
    assert ("rmdir", "/d/a") in held(full)
    assert ("rmdir", DIRECTORY) in held(full)
    assert [(kind, path) for kind, path, *_ in queue(full)] == [("rmdir", "/e")]


def test_moves_are_held_through_others_that_wait(full: World) -> None:
    full.remote.write(RemotePath("/x"), "moves")
    remove(full, NAMES[0], brake=0)
    save(full, f"{NAMES[0]}/below", "waits")
    rename(full, "/x", f"{NAMES[0]}/below")
    assert held(full) == [("delete", NAMES[0]), ("move", "/x")]


def test_moves_queued_before_are_held_through_others_that_wait(full: World) -> None:
    full.remote.write(RemotePath("/x"), "moves")
    remove(full, NAMES[0], brake=1)
    save(full, f"{NAMES[0]}/below", "waits")
    full.journal.rmdir(RemotePath(f"{NAMES[0]}/below/deeper"))
    assert held(full) == []
    remove(full, NAMES[1], brake=1)
    assert held(full) == [("delete", NAMES[0]), ("rmdir", f"{NAMES[0]}/below/deeper"), ("delete", NAMES[1])]


def test_what_waits_for_a_held_op_names_it(full: World) -> None:
    remove(full, NAMES[0], brake=0)
    waiting = save(full, f"{NAMES[0]}/below", "waits")
    assert due(full) == []
    record = full.journal.record(waiting)
    assert record is not None
    assert record.blocked_by == id_of(full, NAMES[0])
    assert full.journal.counts().blocked == 1
    assert full.journal.next_due() is None


def test_what_is_above_a_held_op_waits_too(full: World) -> None:
    remove(full, NAMES[0], brake=0)
    full.journal.rmdir(DIRECTORY)
    full.journal.retry(id_of(full, DIRECTORY, OpKind.RMDIR))
    assert due(full) == []
    assert full.journal.counts().blocked == 1


# made again


def test_a_file_made_again_replaces_its_held_delete(full: World) -> None:
    remove_all(full)
    save(full, NAMES[0], "again")
    assert queue(full) == [("put", NAMES[0], None, "again", "r1")]
    assert ("delete", NAMES[0]) not in held(full)


def test_a_file_renamed_over_a_held_delete_replaces_it(full: World) -> None:
    remove_all(full)
    save(full, "/d/z", "again")
    rename(full, "/d/z", NAMES[0])
    assert queue(full) == [("put", NAMES[0], None, "again", "r1")]


@pytest.mark.parametrize("how", ["saved", "renamed"])
def test_a_held_delete_that_may_have_arrived_goes_before_what_was_made_again(full: World, how: str) -> None:
    remove(full, NAMES[0], brake=1)
    full.settle(due(full)[0], lost=True)
    remove(full, NAMES[1], brake=1)
    assert len(held(full)) == 2
    save(full, NAMES[0] if how == "saved" else "/d/z", "again")
    if how == "renamed":
        rename(full, "/d/z", NAMES[0])
    deliver(full)
    assert full.remote.content(RemotePath(NAMES[0])) == "again"
    assert held(full) == [("delete", NAMES[1])]


def test_a_directory_made_again_takes_back_its_held_rmdir(full: World) -> None:
    remove_all(full)
    full.journal.rmdir(DIRECTORY)
    assert full.journal.cancel_rmdir(DIRECTORY)
    assert ("rmdir", DIRECTORY) not in held(full)


# let go


def test_released_ops_go_in_their_order_and_end_the_brake(full: World) -> None:
    remove_all(full)
    full.journal.rmdir(DIRECTORY)
    for op_id in held_ids(full):
        full.journal.retry(op_id)
    order = [(kind, path) for kind, path, *_ in queue(full)]
    assert order == [*(("delete", name) for name in NAMES), ("rmdir", DIRECTORY)]
    deliver(full)
    assert full.remote.files == {}
    assert full.journal.records() == []


def test_a_released_rmdir_goes_after_deletes_that_are_released_later(full: World) -> None:
    remove_all(full)
    full.journal.rmdir(DIRECTORY)
    for op_id in reversed(held_ids(full)):
        full.journal.retry(op_id)
    assert queue(full)[-1][:2] == ("rmdir", DIRECTORY)


def test_each_op_stays_held_until_it_is_named(full: World) -> None:
    remove(full, NAMES[0], brake=0)
    full.journal.rmdir(DIRECTORY)
    full.journal.retry(id_of(full, NAMES[0]))
    deliver(full)
    assert held(full) == [("rmdir", DIRECTORY)]
    full.journal.retry(id_of(full, DIRECTORY, OpKind.RMDIR))
    deliver(full)
    assert full.journal.records() == []


def test_what_was_released_does_not_count_again(full: World) -> None:
    remove_all(full, NAMES[:LIMIT])
    remove(full, NAMES[LIMIT], brake=LIMIT)
    for op_id in held_ids(full):
        full.journal.retry(op_id)
    remove(full, NAMES[-1], brake=LIMIT)
    assert held(full) == []
    remove(full, NAMES[-2], brake=1)
    assert held(full) == [("delete", NAMES[-1]), ("delete", NAMES[-2])]


def test_the_brake_stays_on_until_the_last_decision(full: World) -> None:
    remove_all(full, NAMES[: LIMIT + 1])
    full.journal.retry(held_ids(full)[0])
    remove(full, NAMES[-1], brake=LIMIT)
    assert ("delete", NAMES[-1]) in held(full)


# given back


def test_discarding_in_the_order_of_their_names_brings_a_removed_tree_back(full: World) -> None:
    sub = RemotePath("/d/sub")
    inside = RemotePath("/d/sub/x")
    full.remote.write(inside, "old x")
    remove_all(full, [inside, *NAMES])
    full.journal.rmdir(sub)
    full.journal.rmdir(DIRECTORY)
    for op_id in held_ids(full):
        full.journal.discard(op_id)
    for name in [*NAMES, inside]:
        assert full.shows(RemotePath(name)) == full.remote.content(RemotePath(name)) is not None
    assert full.journal.shown(sub) is None
    assert full.journal.shown(DIRECTORY) is None
    deliver(full)
    assert len(full.remote.files) == len(NAMES) + 1


def test_a_file_brought_back_is_not_hidden_by_a_held_rmdir(full: World) -> None:
    remove(full, NAMES[0], brake=0)
    full.journal.rmdir(DIRECTORY)
    full.journal.discard(id_of(full, NAMES[0]))
    assert held(full) == [("rmdir", DIRECTORY)]
    assert full.journal.shown(DIRECTORY) is None
    assert full.journal.shown_below(RemotePath("/")) == {}
    rmdir = id_of(full, DIRECTORY, OpKind.RMDIR)
    full.journal.retry(rmdir)
    assert [claim.op.op_id for claim in due(full)] == [rmdir]


def test_unsent_content_comes_back_too(full: World) -> None:
    unsent = save(full, NAMES[0], "unsent")
    full.clock.advance(1.0)
    remove(full, NAMES[0], brake=0)
    given_up = only(full, State.DISCARDED)
    assert (given_up.op.op_id, given_up.superseded_by) == (unsent, id_of(full, NAMES[0]))
    full.journal.discard(id_of(full, NAMES[0]))
    assert queue(full) == [("put", NAMES[0], None, "unsent", "r1")]
    deliver(full)
    assert full.remote.content(RemotePath(NAMES[0])) == "unsent"


def test_unsent_content_of_a_renamed_file_comes_back_where_it_was_removed(full: World) -> None:
    save(full, NAMES[0], "unsent")
    rename(full, NAMES[0], "/d/z")
    full.clock.advance(1.0)
    remove(full, "/d/z", brake=0)
    assert held(full) == [("delete", NAMES[0])]
    full.journal.discard(id_of(full, NAMES[0]))
    assert full.shows(RemotePath("/d/z")) == "unsent"
    deliver(full)
    assert full.remote.content(RemotePath("/d/z")) == "unsent"


def test_what_was_saved_since_wins_over_what_would_come_back(full: World) -> None:
    save(full, NAMES[0], "first")
    full.clock.advance(1.0)
    remove(full, NAMES[0])
    (claim,) = due(full)
    save(full, NAMES[0], "second")
    full.give_back(claim)
    full.journal.discard(id_of(full, NAMES[0]))
    assert full.shows(RemotePath(NAMES[0])) == "second"
    assert [content for _, _, _, content, _ in queue(full)] == ["second"]


def test_what_a_replaced_delete_had_given_up_can_be_tried_again(full: World) -> None:
    first = save(full, NAMES[0], "first")
    full.clock.advance(1.0)
    remove(full, NAMES[0])
    second = save(full, NAMES[0], "second")
    full.journal.discard(second)
    full.journal.retry(first)
    assert full.shows(RemotePath(NAMES[0])) == "first"


def test_a_discarded_held_move_shows_the_old_name(full: World) -> None:
    full.remote.write(RemotePath("/x"), "moves")
    remove(full, NAMES[0], brake=0)
    save(full, f"{NAMES[0]}/below", "waits")
    rename(full, "/x", f"{NAMES[0]}/below")
    full.journal.discard(id_of(full, "/x", OpKind.MOVE))
    assert full.shows(RemotePath("/x")) == "moves"


def test_a_held_move_that_others_need_is_refused(full: World) -> None:
    full.remote.write(RemotePath("/x"), "moves")
    remove(full, NAMES[0], brake=0)
    rename(full, "/x", f"{NAMES[0]}/below")
    save(full, "/x", "new")
    with pytest.raises(VerbRefused, match="wait for this move") as refused:
        full.journal.discard(id_of(full, "/x", OpKind.MOVE))
    assert refused.value.errno == errno.EBUSY


def test_deciding_on_all_of_them_empties_the_minute(full: World) -> None:
    remove_all(full, NAMES[: LIMIT + 1])
    for op_id in held_ids(full):
        full.journal.discard(op_id)
    remove_all(full, NAMES[:LIMIT])
    assert held(full) == []


# how long it takes


def test_five_thousand_deletes_are_held_at_once(world: World) -> None:
    began = time.process_time()
    with world.journal.transaction():
        for number in range(5_000):
            world.journal.delete(RemotePath(f"/d/{number}"), Base(Revision("r1")), brake=100)
        world.journal.rmdir(DIRECTORY)
    world.journal.put(None, RemotePath("/e"), ABSENT, world.body("other"), content_type="", mtime=0.0, still_open=False)
    counts = world.journal.counts()
    assert (counts.held, counts.pending, counts.blocked) == (5_001, 1, 0)
    assert time.process_time() - began < 10.0
