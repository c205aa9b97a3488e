"""Steering through `.relay`: plain directories of the same shape answer to the same system calls."""

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest

from fsmount.cli.live import LiveQueue
from fsmount.cli.queue import DEAD, DISCARDED, FORCE, HELD, PENDING, RETRY, Move, Version, shown
from fsmount.cli.target import Target
from fsmount.errors import FsmountError, NotFound, VerbRefused

FIRST, SECOND, THIRD = (f"op_{number:026d}" for number in (1, 2, 3))


@pytest.fixture
def relay(tmp_path: Path) -> Path:
    for name in (PENDING, HELD, DEAD, DISCARDED, RETRY, FORCE, "conflict", "content"):
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


def moved(relay: Path, op_id: str, source: str, verb: str) -> FsmountError | None:
    (answer,) = queue_of(relay).move([Move(op_id=op_id, source=source, verb=verb)])
    return answer


def test_a_glance_has_all_that_is_unresolved_oldest_first_and_the_numbers(relay: Path) -> None:
    put(relay, DEAD, SECOND)
    put(relay, DEAD, FIRST)
    put(relay, HELD, THIRD)
    (relay / DEAD / "stray").write_text("")
    tell(relay, deadLetter=2, held=1)
    found = queue_of(relay).glance()
    assert (found.pending, found.held, found.dead) == ([], [THIRD], [FIRST, SECOND])
    assert (found.status.queue.dead_letter, found.status.queue.held) == (2, 1)


def test_all_ops_are_read_with_the_directory_they_are_in(relay: Path) -> None:
    put(relay, DEAD, FIRST)
    put(relay, PENDING, SECOND)
    found = [(where, json.loads(text)["opId"]) for where, text in queue_of(relay).ops((PENDING, HELD, DEAD))]
    assert found == [(PENDING, SECOND), (DEAD, FIRST)]


def test_an_op_that_vanishes_meanwhile_is_left_out(relay: Path) -> None:
    put(relay, DEAD, FIRST)
    put(relay, DEAD, SECOND)
    (relay / DEAD / f"{FIRST}.json").unlink()
    (relay / DEAD / f"{FIRST}.json").symlink_to("nowhere")
    assert [json.loads(text)["opId"] for _, text in queue_of(relay).ops((PENDING, DEAD))] == [SECOND]


def test_an_op_that_moves_on_to_where_was_looked_before_is_not_lost(relay: Path) -> None:
    put(relay, DEAD, FIRST)
    queue = queue_of(relay)
    looked: list[str | int] = []

    def listed(directory: str | int) -> list[str]:
        """In the child: it is retried between the looks at pending/ and at dead-letter/."""
        looked.append(directory)
        if len(looked) == 2:
            os.rename(relay / DEAD / f"{FIRST}.json", relay / PENDING / f"{FIRST}.json")
        return sorted(name.removesuffix(".json") for name in os.listdir(directory))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fsmount.cli.live._ids", listed)
        assert [(where, json.loads(text)["opId"]) for where, text in queue.ops((PENDING, DEAD))] == [(PENDING, FIRST)]


@pytest.mark.parametrize("place", [PENDING, HELD, DEAD, DISCARDED])
def test_an_op_is_found_wherever_it_is(relay: Path, place: str) -> None:
    put(relay, place, FIRST)
    queue = queue_of(relay)
    found = queue.show(FIRST)
    assert found is not None
    assert found[0] == place
    assert json.loads(found[1])["opId"] == FIRST


@pytest.mark.parametrize("name", [SECOND, "../status", "x" * 400, "", "\0", ".", "op_\x1b[31m"])
def test_what_is_no_op_is_not_found(relay: Path, name: str) -> None:
    assert queue_of(relay).show(name) is None


def test_retrying_is_the_rename_that_mv_makes(relay: Path) -> None:
    put(relay, DEAD, FIRST)
    assert moved(relay, FIRST, DEAD, RETRY) is None
    assert (relay / RETRY / f"{FIRST}.json").exists()
    assert not (relay / DEAD / f"{FIRST}.json").exists()


def test_forcing_is_one_too(relay: Path) -> None:
    put(relay, DEAD, FIRST)
    assert moved(relay, FIRST, DEAD, FORCE) is None
    assert (relay / FORCE / f"{FIRST}.json").exists()


def test_several_are_moved_in_turn_whatever_happens_to_one(relay: Path) -> None:
    put(relay, DEAD, FIRST)
    put(relay, DEAD, THIRD)
    moves = [Move(op_id=op_id, source=DEAD, verb=RETRY) for op_id in (FIRST, SECOND, THIRD)]
    answers = list(queue_of(relay).move(moves))
    assert [type(answer) for answer in answers] == [type(None), NotFound, type(None)]
    assert sorted(path.stem for path in (relay / RETRY).iterdir()) == [FIRST, THIRD]


def test_an_op_that_moved_on_meanwhile_is_not_found(relay: Path) -> None:
    refusal = moved(relay, FIRST, DEAD, RETRY)
    assert isinstance(refusal, NotFound)
    assert refusal.message == f"no such op: {FIRST}"


def test_a_refusal_comes_with_the_reason_from_the_log(relay: Path) -> None:
    put(relay, DEAD, FIRST)
    (relay / RETRY / f"{FIRST}.json").mkdir()
    lines = [
        f"2026-01-01T00:00:00.000Z info op.dead {FIRST} /a older words",
        f"2026-01-01T00:00:01.000Z warning verb {FIRST} /a a newer change of /a is queued: {SECOND}",
        f"2026-01-01T00:00:02.000Z info op.queued {SECOND} /b of another op",
    ]
    (relay / "log").write_text("\n".join(lines) + "\n")
    refusal = moved(relay, FIRST, DEAD, RETRY)
    assert isinstance(refusal, VerbRefused)
    assert refusal.errno == errno.EISDIR
    assert refusal.message == f"{FIRST} cannot be retried: a newer change of /a is queued: {SECOND}"


def test_a_refusal_without_a_log_line_is_still_a_sentence(relay: Path) -> None:
    put(relay, DEAD, FIRST)
    (relay / DISCARDED / f"{FIRST}.json").mkdir()
    refusal = moved(relay, FIRST, DEAD, DISCARDED)
    assert str(refusal) == f"{FIRST} cannot be discarded: Is a directory"


def test_the_members_that_commands_need(relay: Path) -> None:
    put(relay, PENDING, FIRST, blockedBy=SECOND, message="waits", history=[])
    op = shown(queue_of(relay), FIRST)
    assert op is not None
    assert (op.path, op.provider, op.blocked_by) == (f"/github/{FIRST}.json", "github", SECOND)


def test_the_versions_of_a_conflict(relay: Path) -> None:
    (relay / "conflict" / FIRST).mkdir()
    (relay / "conflict" / FIRST / "theirs").write_bytes(b"theirs\n")
    (relay / "content" / FIRST).write_bytes(b"mine\n")
    queue = queue_of(relay)
    theirs, mine = queue.version(FIRST, "theirs"), queue.version(FIRST, "mine")
    assert theirs is not None
    assert (theirs.content, theirs.size) == (b"theirs\n", 7)
    assert theirs.sha256 == hashlib.sha256(b"theirs\n").hexdigest()
    assert mine is not None
    assert mine.content == b"mine\n"
    assert queue.version(FIRST, "base") is None
    (relay / "conflict" / FIRST / "base").write_bytes(b"")
    assert queue.version(FIRST, "base") == Version.of([])


def test_a_mount_that_ended_meanwhile_is_told(relay: Path) -> None:
    for path in (relay / PENDING, relay / "status.json"):
        path.rename(relay.parent / path.name)
    queue = queue_of(relay)
    for ask in (queue.glance, queue.status_json, lambda: queue.show(FIRST), lambda: list(queue.ops((PENDING,)))):
        with pytest.raises(FsmountError, match="ended meanwhile") as caught:
            ask()
        assert "fsmount writeback status" in (caught.value.hint or "")
