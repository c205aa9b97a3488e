"""One builder makes the snapshot; health is what is unresolved now."""

from pathlib import Path

import pytest

from fsmount.model import (
    Base,
    Connection,
    ConnectionState,
    Kind,
    LocalNode,
    MountIdentity,
    Problem,
    Receipt,
    RemotePath,
    Revision,
)
from fsmount.status import AtRest, Health, snapshot
from tests.support.facts import Mounted


@pytest.fixture
def mounted(tmp_path: Path) -> Mounted:
    return Mounted(tmp_path)


def test_an_empty_queue_is_ok(mounted: Mounted) -> None:
    assert snapshot(mounted).health is Health.OK


def test_a_waiting_op_is_busy(mounted: Mounted) -> None:
    mounted.save("/a/x")
    assert snapshot(mounted).health is Health.BUSY


def test_an_op_being_sent_is_busy(mounted: Mounted) -> None:
    mounted.claim(mounted.save("/a/x"))
    shown = snapshot(mounted)
    assert (shown.health, shown.queue.pending, shown.queue.sending) == (Health.BUSY, 0, 1)


def test_a_dead_letter_outweighs_a_waiting_op(mounted: Mounted) -> None:
    mounted.dead("/a/x")
    mounted.save("/a/y")
    assert snapshot(mounted).health is Health.FAILING


def test_a_held_delete_waits_for_a_person(mounted: Mounted) -> None:
    mounted.hold("/a/x")
    shown = snapshot(mounted)
    assert (shown.health, shown.queue.held, shown.queue.pending) == (Health.FAILING, 1, 0)


def test_uploads_that_all_but_stopped_are_failing_without_a_dead_letter(mounted: Mounted) -> None:
    mounted.breaking = True
    assert snapshot(mounted).health is Health.FAILING


def test_paused_outweighs_what_fails_and_not_what_cannot_be_sent(mounted: Mounted) -> None:
    mounted.pausing = True
    mounted.dead("/a/x")
    assert snapshot(mounted).health is Health.PAUSED
    mounted.way = Connection(state=ConnectionState.OFFLINE)
    assert snapshot(mounted).health is Health.OFFLINE


def test_what_only_this_mount_has_and_what_it_does_not_show_are_counted(mounted: Mounted) -> None:
    mounted.journal.keep(LocalNode(path=RemotePath("/a"), kind=Kind.DIRECTORY))
    mounted.odd = (Problem(path="/b", why="a file and a directory of one name"),)
    beside = snapshot(mounted).beside
    assert (beside.local, beside.problems) == (1, mounted.odd)


@pytest.mark.parametrize(
    ("state", "health"),
    [
        (ConnectionState.AUTH, Health.AUTH),
        (ConnectionState.OFFLINE, Health.OFFLINE),
        (ConnectionState.LIMITED, Health.FAILING),
        (ConnectionState.UNKNOWN, Health.FAILING),
    ],
)
def test_the_connection_outweighs_dead_letters_only_when_nothing_can_be_sent(
    mounted: Mounted, state: ConnectionState, health: Health
) -> None:
    mounted.dead("/a/x")
    mounted.way = Connection(state=state)
    assert snapshot(mounted).health is health


def test_what_failed_and_was_then_delivered_is_history(mounted: Mounted) -> None:
    op_id = mounted.dead("/a/x")
    mounted.retry(op_id)
    claim = mounted.claim(op_id)
    receipt = Receipt(path=RemotePath("/a/x"), revision=Revision("r1"))
    mounted.journal.acknowledge(claim, receipt, mounted.answered())
    shown = snapshot(mounted)
    assert shown.health is Health.OK
    assert shown.failed_writebacks == 1
    assert shown.failed_attempts == 1
    assert shown.dead_letters == ()
    assert shown.last_error_by_provider == {}
    assert shown.counters.acknowledged == 1


def test_dead_letters_carry_the_status_of_their_last_attempt(mounted: Mounted) -> None:
    op_id = mounted.dead("/a/x")
    (letter,) = snapshot(mounted).dead_letters
    assert (letter.op_id, letter.last_status, letter.attempts) == (op_id, 422, 1)


def test_the_newest_hundred_dead_letters_are_listed_and_all_are_counted(mounted: Mounted) -> None:
    first = mounted.dead("/a/first")
    for number in range(100):
        mounted.dead(f"/a/{number}")
    shown = snapshot(mounted)
    assert shown.queue.dead_letter == 101
    assert len(shown.dead_letters) == 100
    assert first not in [letter.op_id for letter in shown.dead_letters]


def test_the_last_error_is_kept_for_each_provider(mounted: Mounted) -> None:
    mounted.dead("/a/x")
    mounted.clock.advance(1)
    newest = mounted.dead("/a/y")
    mounted.dead("/b/x")
    errors = snapshot(mounted).last_error_by_provider
    assert list(errors) == ["a", "b"]
    assert errors["a"].op_id == newest


def test_a_journal_alone_makes_the_snapshot_of_a_stopped_mount(mounted: Mounted) -> None:
    mounted.dead("/a/x")
    identity = MountIdentity(
        name="notes", remote="r", workspace="ws", root=RemotePath("/"), mountpoint=None, version="0.1.0"
    )
    shown = snapshot(AtRest(identity, mounted.journal, mounted.clock))
    assert shown.health is Health.STOPPED
    assert shown.queue.dead_letter == 1
    assert shown.uptime_seconds is None
    assert shown.cache.bytes is None
    assert not shown.beside.paused


def test_a_journal_alone_remembers_that_a_person_paused(mounted: Mounted) -> None:
    mounted.journal.keep_setting("paused", "yes")
    assert snapshot(AtRest(mounted.identity, mounted.journal, mounted.clock)).beside.paused


def test_a_delete_waits_without_bytes(mounted: Mounted) -> None:
    mounted.journal.delete(RemotePath("/a/x"), Base(Revision("r1")))
    shown = snapshot(mounted)
    assert (shown.queue.pending, shown.queue.bytes) == (1, 0)
