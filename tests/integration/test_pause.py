"""Pausing, resuming and flushing through `.relay/ctl`, and what SIGHUP reads again."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.mount import Mount, until
from tests.support.ops import ops, queued
from tests.support.server import RelayServer

pytestmark = pytest.mark.mount


@pytest.fixture
def mount(tmp_path: Path, relay_server: RelayServer, token: Path) -> Iterator[Mount]:
    relay_server.put("/desk/f.txt", "old\n")
    with Mount(tmp_path, relay_server, "--timeout", "5", "--drain", "2", "--token-file", str(token)) as mounted:
        yield mounted


def ctl(mount: Mount, command: str) -> None:
    mount.sh(f"echo '{command}' > $MOUNT/.relay/ctl")


def hang_up(mount: Mount, *, times: int = 1) -> None:
    """SIGHUP, and its first line is in the log."""
    said = mount.log().count("SIGHUP: the credential is read again")
    os.kill(mount.pid, signal.SIGHUP)
    until(lambda: mount.log().count("SIGHUP: the credential is read again") == said + times, "it was heard")


def configure(mount: Mount, text: str) -> None:
    file = mount.folder / "xdg-config/fsmount/config.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def settings(mount: Mount) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(mount.out("cat $MOUNT/.relay/config.json"))
    return found


# pause, resume, flush


def test_a_pause_outlives_a_crash_and_a_clean_remount(mount: Mount) -> None:
    ctl(mount, "pause")
    mount.sh("echo mine > $MOUNT/desk/f.txt; echo new > $MOUNT/desk/new.txt")
    until(lambda: mount.status()["health"] == "paused", "health is paused")
    mount.kill()
    mount.start()
    assert mount.status()["health"] == "paused"
    queued(mount, 2)
    done = mount.umount()
    assert done.returncode in {0, 1}, done.stderr
    mount.start()
    queued(mount, 2)
    assert mount.server.get("/desk/f.txt") == b"old\n"
    assert mount.out("cat $MOUNT/desk/f.txt") == "mine\n"
    assert [op["attempts"] for op in ops(mount, "pending")] == [0, 0]
    ctl(mount, "resume")
    mount.delivered()
    assert (mount.server.get("/desk/f.txt"), mount.server.get("/desk/new.txt")) == (b"mine\n", b"new\n")
    until(lambda: mount.status()["health"] == "ok", "health is ok")


def test_reading_and_everything_local_goes_on_while_paused(mount: Mount) -> None:
    ctl(mount, "pause")
    mount.server.put("/desk/theirs.txt", "theirs\n")
    until(lambda: mount.sh("cat $MOUNT/desk/theirs.txt", check=False).stdout == "theirs\n", "their file is shown")
    mount.sh("cd $MOUNT/desk && mv f.txt g.txt && echo more >> g.txt && mkdir d && mv g.txt d/ && rm theirs.txt")
    assert mount.out("cd $MOUNT/desk && ls -R . && cat d/g.txt") == ".:\nd\n\n./d:\ng.txt\nold\nmore\n"
    assert mount.server.get("/desk/theirs.txt") == b"theirs\n"
    ctl(mount, "resume")
    mount.delivered()
    assert set(mount.server.files()) == {"/desk/d/g.txt"}


def test_resume_goes_on_after_everything_was_refused(mount: Mount) -> None:
    mount.server.rules("PUT /desk/** 422\n")
    mount.sh("for n in $(seq 20); do echo $n > $MOUNT/desk/$n; done")
    until(lambda: mount.status()["queue"]["deadLetter"] == 20, "all are refused", 20)
    mount.server.rules("")
    mount.sh("for n in $(seq 21 30); do echo $n > $MOUNT/desk/$n; done")
    until(lambda: mount.status()["health"] == "failing", "health is failing")
    queued(mount, 10)
    ctl(mount, "resume")
    mount.delivered()
    assert mount.server.get("/desk/30") == b"30\n"
    ctl(mount, "retry all")
    mount.delivered()
    assert mount.server.get("/desk/1") == b"1\n"


def test_flush_sends_what_only_settles(tmp_path: Path, relay_server: RelayServer) -> None:
    with Mount(tmp_path, relay_server, "--settle", "60", "--max-settle", "60", "--drain", "0") as mount:
        mount.sh("echo now > $MOUNT/a")
        queued(mount, 1)
        ctl(mount, "flush")
        mount.delivered()
        assert relay_server.get("/a") == b"now\n"


def test_refresh_asks_again_about_a_path_and_all_below_it(tmp_path: Path, relay_server: RelayServer) -> None:
    relay_server.rules("EVENTS / 403\n")
    relay_server.put_many({f"/{top}/{file}": "old\n" for top in "ab" for file in ("f", "deep/g")})
    with Mount(tmp_path, relay_server, "--attr-ttl", "600") as mount:
        look = "cd $MOUNT && cat a/f a/deep/g b/f b/deep/g && ls a b | wc -l"
        assert mount.out(look) == "old\n" * 4 + "7\n"
        relay_server.put_many({f"/{top}/{file}": "new\n" for top in "ab" for file in ("f", "deep/g", "deep/h")})
        relay_server.delete("/b/f")
        assert mount.out(look) == "old\n" * 4 + "7\n", "nobody has told"
        ctl(mount, "refresh a")
        assert mount.out("cd $MOUNT/a && cat f deep/g && ls deep") == "new\nnew\ng\nh\n"
        assert mount.out("cd $MOUNT/b && cat f deep/g && ls deep") == "old\nold\ng\n", "of that path alone"
        ctl(mount, "refresh /")
        assert mount.out("cd $MOUNT/b && ls . deep && cat deep/g") == ".:\ndeep\n\ndeep:\ng\nh\nnew\n"


def test_learning_of_changes_is_told_again_after_a_poll_failed(mount: Mount) -> None:
    until(lambda: mount.status()["connection"]["feed"] == "live", "changes are told")
    mount.server.rules("EVENTS / 500\n")
    until(lambda: mount.status()["connection"]["feed"] == "none", "they are not")
    mount.server.rules("")
    until(lambda: mount.status()["connection"]["feed"] == "live", "they are again, though nothing has changed", 15)


# SIGHUP


def test_a_rotated_credential_is_taken_at_once(mount: Mount, token: Path) -> None:
    reading = mount.server.sign(scopes=["fs:read"], sub="reads only")
    ctl(mount, "pause")
    mount.sh("echo mine > $MOUNT/desk/f.txt")
    token.write_text(f"{reading}\n")
    hang_up(mount)
    assert "Read-only" in mount.sh("echo more > $MOUNT/desk/f.txt", check=False).stderr
    ctl(mount, "resume")
    assert mount.dead_letter()["reason"] == "forbidden", "the new credential may not write"
    token.write_text(f"{mount.server.token}\n")
    hang_up(mount)
    ctl(mount, "retry all")
    mount.delivered()
    assert mount.server.get("/desk/f.txt") == b"mine\n"
    seen = mount.log() + mount.out("cat $MOUNT/.relay/config.json $MOUNT/.relay/events $MOUNT/.relay/status.json")
    for secret in (reading, mount.server.token):
        assert secret not in seen
        assert secret.rpartition(".")[2] not in seen


def test_a_refused_token_command_is_asked_again_at_once(tmp_path: Path, relay_server: RelayServer, token: Path) -> None:
    relay_server.put("/f", "old\n")
    mount = Mount(tmp_path, relay_server)
    mount.point.mkdir()
    told = ("--token-command", f"cat {token}", "--state-dir", str(mount.state))
    try:
        done = mount.fsmount("mount", mount.remote, str(mount.point), *told)
        assert done.returncode == 0, done.stderr
        mount.pid = int(done.stdout.split("pid ")[1].split()[0])
        mount.sh("cat $MOUNT/f")
        token.write_text("broken\n")
        hang_up(mount)
        mount.sh("echo mine > $MOUNT/f")
        until(lambda: mount.status()["health"] == "auth", "the credential is refused")
        token.write_text(f"{relay_server.token}\n")
        hang_up(mount)
        mount.delivered(5)
        assert relay_server.get("/f") == b"mine\n"
        assert settings(mount)["token_command"] == "***"
    finally:
        mount.end()


def test_a_changed_configuration_is_taken_where_it_can_be(mount: Mount) -> None:
    configure(mount, "settle = 60\nmax_settle = 60\nmax_attempts = 1\nkeep_discarded = 3\nattr_ttl = 9\n")
    hang_up(mount)
    until(lambda: "SIGHUP: settle = 60" in mount.log(), "it is taken")
    assert "attr_ttl changed; the next mount takes it" in mount.log()
    shown = settings(mount)
    assert (shown["settle"], shown["max_attempts"], shown["keep_discarded"], shown["attr_ttl"]) == (60, 1, 3, 5)
    mount.sh("echo mine > $MOUNT/desk/f.txt")
    (op,) = queued(mount, 1)
    mount.server.rules("PUT /** 500\n")
    ctl(mount, "flush")
    letter = mount.dead_letter()
    assert (letter["opId"], letter["reason"], letter["attempts"]) == (op["opId"], "exhausted", 1)


def test_a_broken_configuration_changes_nothing(mount: Mount) -> None:
    configure(mount, "settle = 60\nmax_settle = 60\n")
    hang_up(mount)
    until(lambda: "SIGHUP: settle = 60" in mount.log(), "it is taken")
    for text in ('settle = "soon"\n', "no toml at all", 'token = "secret"\n', "unheard_of = 1\n"):
        said = mount.log().count("the configuration stays as it was")
        configure(mount, text)
        hang_up(mount)
        until(lambda said=said: mount.log().count("the configuration stays as it was") == said + 1, text)  # type: ignore[misc]
    assert settings(mount)["settle"] == 60
    assert "secret" not in mount.log()
    mount.sh("echo mine > $MOUNT/desk/f.txt")
    queued(mount, 1)


# what the mount covers


def test_what_was_written_beneath_a_dead_mount_is_told(mount: Mount) -> None:
    mount.kill()
    mount.sh("fusermount3 -uz $MOUNT; echo stray > $MOUNT/stray.txt; mkdir $MOUNT/folder; echo deep > $MOUNT/folder/f")
    done = mount.fsmount("mount", mount.remote, str(mount.point), "--state-dir", str(mount.state))
    assert done.returncode == 2, "a directory that holds something is not covered unasked"
    mount.start("--nonempty")
    found = [json.loads(line) for line in mount.out("cat $MOUNT/.relay/problems").splitlines()]
    assert [problem["path"].rpartition("/")[2] for problem in found] == ["folder", "stray.txt"]
    assert all(problem["shownAs"] is None and "unmount" in problem["why"] for problem in found)
    assert f"{mount.point}/stray.txt" in mount.log()
    assert mount.out("ls $MOUNT") == "desk\n"
    mount.kill()
    mount.start()
    again = [json.loads(line) for line in mount.out("cat $MOUNT/.relay/problems").splitlines()]
    assert again == found, "a dead mount is taken over, and what it covered is told as well"
    mount.umount()
    assert mount.out("cat $MOUNT/stray.txt") == "stray\n"
