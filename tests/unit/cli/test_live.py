"""Steering through `.relay`: plain directories of the same shape answer to the same system calls."""

import errno
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fsmount.cli.live import LiveQueue
from fsmount.cli.queue import DEAD, DISCARDED, PENDING, RETRY, shown, steer
from fsmount.cli.target import Target
from fsmount.cli.wait import Outcome, _follow
from fsmount.errors import FsmountError, NotFound, VerbRefused

FIRST, SECOND, THIRD = (f"op_{number:026d}" for number in (1, 2, 3))


@pytest.fixture
def relay(tmp_path: Path) -> Path:
    for name in (PENDING, DEAD, DISCARDED, RETRY):
        (tmp_path / ".relay" / name).mkdir(parents=True)
    (tmp_path / ".relay" / "log").write_text("")
    tell(tmp_path / ".relay")
    return tmp_path / ".relay"


def tell(relay: Path, **queue: int) -> None:
    (relay / "status.json").write_text(json.dumps({"schema": "fsmount.status/1", "health": "ok", "queue": queue}))


def put(relay: Path, directory: str, op_id: str, **members: object) -> None:
    op = {"opId": op_id, "path": f"/github/{op_id}.json", "state": directory, "provider": "github", **members}
    (relay / directory / f"{op_id}.json").write_text(json.dumps(op))


def queue_of(relay: Path) -> LiveQueue:
    return LiveQueue(Target(mountpoint=str(relay.parent)))


def test_ops_are_listed_oldest_first_and_other_names_passed_over(relay: Path) -> None:
    put(relay, DEAD, SECOND)
    put(relay, DEAD, FIRST)
    (relay / DEAD / "stray").write_text("")
    assert queue_of(relay).ids(DEAD) == [FIRST, SECOND]
    assert queue_of(relay).ids(PENDING) == []


def test_an_op_is_found_wherever_it_is(relay: Path) -> None:
    put(relay, DISCARDED, FIRST)
    queue = queue_of(relay)
    found = queue.show(FIRST)
    assert found is not None
    assert found[0] == DISCARDED
    assert json.loads(found[1])["opId"] == FIRST
    assert queue.show(SECOND) is None
    assert queue.show("../status") is None


def test_retrying_is_the_rename_that_mv_makes(relay: Path) -> None:
    put(relay, DEAD, FIRST)
    said = steer(queue_of(relay), FIRST, RETRY, (DEAD, DISCARDED))
    assert said == f"{FIRST} will be tried again: /github/{FIRST}.json"
    assert (relay / RETRY / f"{FIRST}.json").exists()
    assert not (relay / DEAD / f"{FIRST}.json").exists()


def test_what_is_pending_needs_no_retry(relay: Path) -> None:
    put(relay, PENDING, FIRST)
    assert "pending already" in steer(queue_of(relay), FIRST, RETRY, (DEAD, DISCARDED))
    assert (relay / PENDING / f"{FIRST}.json").exists()


def test_an_unknown_op_is_not_found(relay: Path) -> None:
    with pytest.raises(NotFound, match=f"no such op: {FIRST}"):
        steer(queue_of(relay), FIRST, RETRY, (DEAD, DISCARDED))


def test_an_op_that_moved_on_meanwhile_is_not_found(relay: Path) -> None:
    with pytest.raises(NotFound, match="no such op"):
        queue_of(relay).move(FIRST, DEAD, RETRY)


def test_a_refusal_comes_with_the_reason_from_the_log(relay: Path) -> None:
    put(relay, DEAD, FIRST)
    (relay / RETRY / f"{FIRST}.json").mkdir()
    lines = [
        f"2026-01-01T00:00:00.000Z info op.dead {FIRST} /a older words",
        f"2026-01-01T00:00:01.000Z warning verb {FIRST} /a a newer change of /a is queued: {SECOND}",
        f"2026-01-01T00:00:02.000Z info op.queued {SECOND} /b of another op",
    ]
    (relay / "log").write_text("\n".join(lines) + "\n")
    with pytest.raises(VerbRefused, match=f"a newer change of /a is queued: {SECOND}") as caught:
        queue_of(relay).move(FIRST, DEAD, RETRY)
    assert caught.value.errno == errno.EISDIR
    assert caught.value.message.startswith(f"{FIRST} cannot be retried: ")


def test_a_refusal_without_a_log_line_is_still_a_sentence(relay: Path) -> None:
    put(relay, DEAD, FIRST)
    (relay / DISCARDED / f"{FIRST}.json").mkdir()
    with pytest.raises(VerbRefused, match="cannot be discarded: Is a directory"):
        queue_of(relay).move(FIRST, DEAD, DISCARDED)


def test_the_members_that_commands_need(relay: Path) -> None:
    put(relay, PENDING, FIRST, blockedBy=SECOND, message="waits", history=[])
    op = shown(queue_of(relay), FIRST)
    assert op is not None
    assert (op.path, op.provider, op.blocked_by) == (f"/github/{FIRST}.json", "github", SECOND)


@contextmanager
def meanwhile(script: str, relay: Path) -> Iterator[None]:
    """Another process that changes the directories while the test waits."""
    program = f"import os, sys, time\nos.chdir(sys.argv[1])\n{script}"
    with subprocess.Popen([sys.executable, "-c", program, str(relay)]) as process:
        yield
        assert process.wait(20) == 0


def followed(relay: Path, *ops: str, deadline: float | None = None) -> Outcome:
    queue = queue_of(relay)
    return _follow(queue, Target(mountpoint=str(relay.parent)), ops, deadline, lambda _done: None)


def test_waiting_ends_when_all_are_gone(relay: Path) -> None:
    for op_id in (FIRST, SECOND):
        put(relay, PENDING, op_id)
    tell(relay, pending=2)
    script = f"for op in ('{FIRST}', '{SECOND}'):\n    time.sleep(0.3); os.unlink(f'pending/{{op}}.json')"
    with meanwhile(script, relay):
        assert followed(relay, FIRST, SECOND).delivered_all


def test_waiting_goes_on_for_the_others_after_one_died(relay: Path) -> None:
    for op_id in (FIRST, SECOND):
        put(relay, PENDING, op_id)
    tell(relay, pending=2)
    dies = f"os.rename('pending/{FIRST}.json', 'dead-letter/{FIRST}.json')"
    script = f"{dies}; time.sleep(0.5)\nos.unlink('pending/{SECOND}.json')"
    with meanwhile(script, relay):
        assert followed(relay, FIRST, SECOND) == Outcome(dead=[FIRST], blocked=[], waiting=[])


def test_older_dead_letters_and_newer_ops_do_not_count(relay: Path) -> None:
    put(relay, DEAD, FIRST)
    put(relay, PENDING, THIRD)
    tell(relay, pending=1, deadLetter=1)
    assert followed(relay, SECOND).delivered_all


def test_only_blocked_ops_left_is_the_end(relay: Path) -> None:
    put(relay, PENDING, SECOND, blockedBy=FIRST)
    tell(relay, pending=1, blocked=1)
    assert followed(relay, SECOND) == Outcome(dead=[], blocked=[SECOND], waiting=[])


def test_when_the_time_is_up_what_waits_is_told(relay: Path) -> None:
    put(relay, PENDING, FIRST)
    tell(relay, pending=1)
    assert followed(relay, FIRST, deadline=0.0) == Outcome(dead=[], blocked=[], waiting=[FIRST])


def test_a_mount_that_ends_meanwhile_is_told(relay: Path) -> None:
    (relay / PENDING).rmdir()
    with pytest.raises(FsmountError, match="ended while it was waited for"):
        followed(relay, FIRST)
