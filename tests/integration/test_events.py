"""What programs follow on a real mount: every event with its members, and numbers that outlive the daemon."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.mount import Mount, until
from tests.support.ops import letters, settled
from tests.support.server import RelayServer, serving

pytestmark = pytest.mark.mount

Event = dict[str, Any]
OPTIONS = ("--settle", "0.1", "--timeout", "3", "--max-deletes", "3", "--drain", "0.5")


def events(mount: Mount) -> list[Event]:
    """Every line of ``.relay/events``, each of them one object."""
    return [json.loads(line) for line in mount.out("cat $MOUNT/.relay/events").splitlines()]


def of(mount: Mount, path: str, **members: str) -> list[Event]:
    """The events of one file, oldest first."""
    found = [event for event in events(mount) if event.get("path") == path]
    return [event for event in found if all(event.get(name) == value for name, value in members.items())]


def seen(mount: Mount, path: str, wanted: list[str]) -> list[Event]:
    """Waits until the file's events end with these; the whole of them."""
    until(lambda: [event["event"] for event in of(mount, path)][-len(wanted) :] == wanted, f"{path}: {wanted}")
    return of(mount, path)


def numbered(mount: Mount) -> list[int]:
    return [event["seq"] for event in events(mount)]


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    with serving(tmp_path_factory.mktemp("relay")) as server:
        server.put_many({f"/desk/many/{number}": "x" for number in range(8)} | {"/desk/f.txt": "old\n"})
        with Mount(tmp_path_factory.mktemp("events"), server, *OPTIONS) as one:
            yield one


@pytest.fixture
def mount(mounted: Mount) -> Iterator[Mount]:
    yield mounted
    settled(mounted)


def test_a_save_is_queued_sent_and_acknowledged(mount: Mount) -> None:
    mount.sh("echo hello > $MOUNT/desk/new.txt")
    mount.delivered()
    queued, sending, done = seen(mount, "/desk/new.txt", ["op.queued", "op.sending", "op.acknowledged"])
    assert queued["seq"] < sending["seq"] < done["seq"]
    assert {event["opId"] for event in (queued, sending, done)} == {queued["opId"]}
    assert [event["kind"] for event in (queued, sending, done)] == ["put"] * 3
    assert (queued["state"], sending["state"], sending["attempt"]) == ("pending", "sending", 1)
    assert queued["mountPath"] == "desk/new.txt"
    body = mount.server.file("/desk/new.txt")
    assert body is not None
    assert (done["status"], done["revision"]) == (200, body.revision)
    assert list(queued)[:3] == ["seq", "at", "event"]


def test_a_failed_attempt_is_told_with_its_status(mount: Mount) -> None:
    mount.server.rules("PUT /desk/flaky.txt 500 times=1\n")
    mount.sh("echo hello > $MOUNT/desk/flaky.txt")
    mount.delivered()
    found = seen(mount, "/desk/flaky.txt", ["op.queued", "op.sending", "op.retrying", "op.sending", "op.acknowledged"])
    assert (found[2]["status"], found[2]["state"], found[2]["attempt"]) == (500, "pending", 1)
    assert found[3]["attempt"] == 2


def test_a_dead_letter_is_told_with_its_reason_and_then_what_became_of_it(mount: Mount) -> None:
    mount.server.rules('PUT /desk/bad*.txt 422 {"code":"schema_validation_failed","message":"no"}\n')
    mount.sh("echo one > $MOUNT/desk/bad1.txt; echo two > $MOUNT/desk/bad2.txt")
    letters(mount, 2)
    dead = seen(mount, "/desk/bad1.txt", ["op.dead"])[-1]
    assert (dead["kind"], dead["reason"], dead["status"], dead["state"]) == ("put", "rejected", 422, "dead-letter")
    mount.sh(f"mv $MOUNT/.relay/dead-letter/{dead['opId']}.json $MOUNT/.relay/discarded/")
    discarded = seen(mount, "/desk/bad1.txt", ["op.dead", "op.discarded"])[-1]
    assert (discarded["opId"], discarded["reason"]) == (dead["opId"], "rejected")
    mount.server.rules("")
    mount.sh("echo better > $MOUNT/desk/bad2.txt")
    mount.delivered()
    superseded = [event for event in of(mount, "/desk/bad2.txt") if event["event"] == "op.superseded"]
    assert [event["opId"] for event in superseded] == [of(mount, "/desk/bad2.txt", event="op.dead")[0]["opId"]]


def test_a_retry_is_queued_again(mount: Mount) -> None:
    mount.server.rules("PUT /desk/again.txt 422\n")
    mount.sh("echo one > $MOUNT/desk/again.txt")
    (letter,) = letters(mount, 1)
    mount.server.rules("")
    mount.sh(f"mv $MOUNT/.relay/dead-letter/{letter['opId']}.json $MOUNT/.relay/retry/")
    mount.delivered()
    found = seen(mount, "/desk/again.txt", ["op.dead", "op.queued", "op.sending", "op.acknowledged"])
    assert {event["opId"] for event in found} == {letter["opId"]}


def test_deletes_moves_and_removed_directories_are_queued_too(mount: Mount) -> None:
    mount.server.put_many({"/desk/d/in": "x", "/desk/old.txt": "y"})
    until(lambda: mount.sh("test -e $MOUNT/desk/old.txt -a -e $MOUNT/desk/d/in", check=False).returncode == 0, "seen")
    mount.sh("mv $MOUNT/desk/old.txt $MOUNT/desk/moved.txt; rm $MOUNT/desk/d/in; rmdir $MOUNT/desk/d")
    mount.delivered()
    kinds = {path: of(mount, path)[-1]["kind"] for path in ("/desk/moved.txt", "/desk/d/in", "/desk/d")}
    assert kinds == {"/desk/moved.txt": "move", "/desk/d/in": "delete", "/desk/d": "rmdir"}


def test_a_mass_delete_is_held_and_let_go(mount: Mount) -> None:
    mount.sh("rm $MOUNT/desk/many/[0-5]")
    held = [event for event in events(mount) if event["event"] == "op.held"]
    assert len(held) == 6
    assert {(event["kind"], event["state"]) for event in held} == {("delete", "held")}
    assert mount.status()["queue"]["held"] == 6
    assert mount.status()["health"] == "failing"
    mount.sh("cd $MOUNT/.relay && mv held/* discarded/")
    assert mount.out("ls $MOUNT/desk/many | wc -l").strip() == "8"
    assert seen(mount, "/desk/many/0", ["op.queued", "op.held", "op.discarded"])


def test_changes_made_elsewhere_are_told_and_our_own_are_not(mount: Mount) -> None:
    mount.sh("cat $MOUNT/desk/f.txt; echo mine > $MOUNT/desk/mine.txt")
    mount.delivered()
    revision = mount.server.put("/desk/f.txt", "theirs\n")
    changed = seen(mount, "/desk/f.txt", ["remote.changed"])[-1]
    assert (changed["revision"], changed["mountPath"]) == (revision, "desk/f.txt")
    assert "opId" not in changed
    mount.server.delete("/desk/f.txt")
    seen(mount, "/desk/f.txt", ["remote.deleted"])
    assert not [event for event in of(mount, "/desk/mine.txt") if event["event"].startswith("remote.")]


def test_the_connection_is_told_by_its_state(mount: Mount) -> None:
    assert _states(mount, "connection")[0] == "online"
    mount.server.kill()
    mount.sh("echo later > $MOUNT/desk/later.txt")
    until(lambda: _states(mount, "connection")[-1] == "offline", "offline is told")
    mount.server.restart()
    until(lambda: _states(mount, "connection")[-1] == "online", "online is told")
    mount.delivered()


def test_pausing_and_going_on_are_told(mount: Mount) -> None:
    mount.sh("echo pause > $MOUNT/.relay/ctl; echo resume > $MOUNT/.relay/ctl")
    assert _states(mount, "mount")[-2:] == ["paused", "resumed"]


def _states(mount: Mount, event: str) -> list[str]:
    return [found["state"] for found in events(mount) if found["event"] == event and "state" in found]


def test_a_follower_reads_each_line_as_it_comes(mount: Mount) -> None:
    follower = subprocess.Popen(
        ["timeout", "-s", "KILL", "10", "tail", "-n", "+1", "-F", f"{mount.point}/.relay/events"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert follower.stdout is not None
    lines = map(json.loads, follower.stdout)
    next(lines)
    mount.sh("echo x > $MOUNT/desk/tailed")
    found = (event["event"] for event in lines if event.get("path") == "/desk/tailed")
    assert [next(found) for _ in range(3)] == ["op.queued", "op.sending", "op.acknowledged"]
    follower.kill()
    follower.wait()
    follower.stdout.close()


def test_metrics_status_and_state_tell_of_one_moment(mount: Mount) -> None:
    mount.server.rules("PUT /desk/refused.txt 422\n")
    mount.sh("echo no > $MOUNT/desk/refused.txt; mkdir $MOUNT/only-here")
    letters(mount, 1)
    until(lambda: mount.status()["health"] == "failing", "health is failing")
    out = mount.out("cd $MOUNT/.relay; jq -c . status.json state.json; cat metrics status")
    status, state, *lines = out.splitlines()
    shown = json.loads(status)
    assert json.loads(state)["outbox"]["needsAttention"] == shown["queue"]["deadLetter"] == 1
    name = shown["name"]
    assert f'fsmount_queue_ops{{mount="{name}",state="dead-letter"}} 1' in lines
    assert f'fsmount_health{{mount="{name}",state="failing"}} 1' in lines
    assert any(line.startswith("only here ") for line in lines)
    assert any("/.relay/retry/" in line for line in lines)


def test_the_credential_is_told_of(tmp_path: Path, relay_server: RelayServer) -> None:
    token = tmp_path / "token"
    token.write_text(f"{relay_server.token}\n")
    token.chmod(0o600)
    with Mount(tmp_path, relay_server, *OPTIONS, "--token-file", str(token)) as mount:
        mount.umount()
        token.write_text(relay_server.sign(exp=time.time() - 60) + "\n")
        mount.start()
        until(lambda: _states(mount, "credential") == ["refused"], "the refusal is told")
        token.write_text(f"{relay_server.token}\n")
        until(lambda: _states(mount, "credential") == ["refused", "changed", "accepted"], "its end is told")


def test_the_numbers_grow_over_remounts_crashes_and_rotations(tmp_path: Path, relay_server: RelayServer) -> None:
    with Mount(tmp_path, relay_server, *OPTIONS) as mount:
        mount.sh("echo one > $MOUNT/one")
        mount.delivered()
        first = numbered(mount)
        mount.umount()
        mount.start()
        second = numbered(mount)
        assert second[: len(first)] == first
        assert _states(mount, "mount") == ["mounted", "unmounted", "mounted"]
        mount.kill()
        mount.start()
        third = numbered(mount)
        assert third[: len(second)] == second
        assert third == sorted(set(third))
        mount.umount()
        _fill(mount.state / "events", third[-1] + 1)
        mount.start()
        before = mount.out("stat -c %i $MOUNT/.relay/events")
        mount.sh("for n in 1 2 3 4 5 6 7 8; do echo $n > $MOUNT/file$n; done")
        mount.delivered()
        fourth = numbered(mount)
        assert fourth == list(range(fourth[0], fourth[0] + len(fourth)))
        assert fourth[0] > 1
        assert mount.out("stat -c %i $MOUNT/.relay/events") != before
        assert int(mount.out("stat -c %s $MOUNT/.relay/events")) < 2 << 20


def test_what_the_command_line_decides_without_a_daemon_is_told_too(tmp_path: Path, relay_server: RelayServer) -> None:
    relay_server.rules("PUT /no.txt 422\n")
    with Mount(tmp_path, relay_server, *OPTIONS) as mount:
        mount.sh("echo one > $MOUNT/no.txt")
        (letter,) = letters(mount, 1)
        mount.umount()
        done = mount.fsmount("writeback", "discard", "--opId", letter["opId"], str(mount.point))
        assert done.returncode == 0, done.stderr
        *_, before, last = [json.loads(line) for line in (mount.state / "events").read_text().splitlines()]
        assert (last["event"], last["opId"], last["path"]) == ("op.discarded", letter["opId"], "/no.txt")
        assert last["seq"] == before["seq"] + 1


def _fill(file: Path, seq: int) -> None:
    """Lines up to a kilobyte below the limit of one file."""
    with file.open("ab") as lines:
        while lines.tell() < (2 << 20) - 1024:
            lines.write(json.dumps({"seq": seq, "at": "2026-01-01T00:00:00.000Z", "event": "mount"}).encode() + b"\n")
            seq += 1


def test_a_subtree_mount_names_both_paths(tmp_path: Path, relay_server: RelayServer) -> None:
    relay_server.put("/github/there.txt", "x")
    with Mount(tmp_path, relay_server, *OPTIONS, remote=f"{relay_server.remote}/github") as mount:
        mount.sh("echo hello > $MOUNT/new.txt")
        mount.delivered()
        (done,) = of(mount, "/github/new.txt", event="op.acknowledged")
        assert done["mountPath"] == "new.txt"
