"""A daemon that ends in the middle: nothing that was closed is lost, nothing is sent twice, nothing half is sent."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.mount import Mount, until
from tests.support.ops import history, letters, ops
from tests.support.server import RelayServer

pytestmark = pytest.mark.mount


@pytest.fixture
def mount(tmp_path: Path, relay_server: RelayServer) -> Iterator[Mount]:
    relay_server.put_many({"/desk/f.txt": "old\n", "/desk/g.txt": "other\n"})
    with Mount(tmp_path, relay_server, "--settle", "0.2", "--timeout", "5") as mounted:
        yield mounted


@contextmanager
def writer(mount: Mount, command: str, said: str) -> Iterator[subprocess.Popen[str]]:
    """A program that has a file open and waits on its standard input, having said `said`."""
    script = f"{command}; echo {said}; read line; {{ echo more >&3; }} 2>&1; exec 3>&-"
    process = subprocess.Popen(
        ["timeout", "-s", "KILL", "30", "bash", "-c", script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=mount.environment,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{said}\n"
        yield process
    finally:
        if process.returncode is None:
            process.communicate("\n", timeout=20)


def test_what_was_closed_is_delivered_after_a_crash(mount: Mount) -> None:
    mount.sh("cat $MOUNT/desk/f.txt $MOUNT/desk/g.txt")
    mount.server.stop()
    mount.sh("cd $MOUNT/desk && echo one > f.txt && echo two > new.txt && rm g.txt && mkdir sub && echo three > sub/x")
    # Looking also lets the kernel hand over the last close, which it does after close(2) has returned.
    queued = [(op["kind"], op["path"], op["opId"]) for op in ops(mount, "pending")]
    assert [op[:2] for op in queued] == [
        ("put", "/desk/f.txt"),
        ("put", "/desk/new.txt"),
        ("delete", "/desk/g.txt"),
        ("put", "/desk/sub/x"),
    ]
    mount.kill()
    until(lambda: "endpoint is not connected" in mount.sh("ls $MOUNT", check=False).stderr, "the mount point is dead")

    mount.start()
    found = ops(mount, "pending")
    assert [(op["kind"], op["path"], op["opId"]) for op in found] == queued
    assert {op["attempts"] for op in found} == {0}
    assert mount.out("cd $MOUNT/desk && cat f.txt new.txt sub/x") == "one\ntwo\nthree\n"
    assert mount.fsmount("writeback", "status").returncode == 0
    mount.server.start()
    mount.delivered()
    assert mount.server.files() == {"/desk/f.txt": b"one\n", "/desk/new.txt": b"two\n", "/desk/sub/x": b"three\n"}
    assert mount.umount().stdout.endswith("everything was delivered\n")


def test_a_draft_that_was_open_is_kept_and_not_sent(mount: Mount) -> None:
    with writer(mount, "exec 3> $MOUNT/desk/f.txt; printf 'first half' >&3", "written"):
        mount.kill()
    mount.start()
    (letter,) = letters(mount, 1)
    assert (letter["path"], letter["reason"], letter["attempts"]) == ("/desk/f.txt", "interrupted", 0)
    assert mount.out(f"cat $MOUNT/.relay/content/{letter['opId']}") == "first half"
    assert mount.out("cat $MOUNT/desk/f.txt") == "old\n"
    assert mount.status()["failedWritebacks"] == 1
    mount.sh(f"cp $MOUNT/.relay/content/{letter['opId']} $MOUNT/desk/f.txt")
    mount.delivered()
    assert mount.server.get("/desk/f.txt") == b"first half"
    assert history(mount, "/desk/f.txt") == ["created", "updated"]


@pytest.mark.parametrize(
    "rule", ["PUT /desk/new.txt delay=30s", "PUT /desk/new.txt slow=1/s", "DELETE /desk/f.txt delay=30s"]
)
def test_a_rename_is_resumed_where_it_was(mount: Mount, rule: str) -> None:
    mount.server.rules(f"{rule}\n")
    mount.sh("cat $MOUNT/desk/f.txt; mv $MOUNT/desk/f.txt $MOUNT/desk/new.txt")
    if "delay" in rule:
        until(lambda: [op["state"] for op in ops(mount, "pending")] == ["sending"], "it is under way")
    if rule.startswith("DELETE") or "slow" in rule:
        until(lambda: mount.server.get("/desk/new.txt") == b"old\n", "the new name is there")
    mount.kill()
    mount.server.rules("")
    mount.start()
    assert mount.out("cat $MOUNT/desk/new.txt; ls $MOUNT/desk") == "old\ng.txt\nnew.txt\n"
    mount.delivered()
    assert mount.server.files() == {"/desk/new.txt": b"old\n", "/desk/g.txt": b"other\n"}
    assert (history(mount, "/desk/new.txt"), history(mount, "/desk/f.txt")) == (["created"], ["created", "deleted"])


def test_a_crash_while_many_are_sent_sends_none_twice(mount: Mount) -> None:
    mount.server.rules("PUT /many/** slow=20/s\n")  # done at once, but the answer takes for ever
    mount.sh("mkdir $MOUNT/many && cd $MOUNT/many && for n in $(seq 300); do echo $n > $n; done", timeout=40)
    until(lambda: len(mount.server.tree("/many")) > 20, "some have arrived")
    assert {op["state"] for op in ops(mount, "pending")} >= {"sending"}, "of some the answer has not come"
    mount.kill()
    mount.server.rules("")
    mount.start()
    mount.delivered()
    changes = [event for event in mount.server.events() if event.path.startswith("/many/")]
    assert len(changes) == len({event.path for event in changes}) == 300
    assert {event.type for event in changes} == {"file.created"}
    content = mount.server.files()
    assert all(content[f"/many/{n}"] == f"{n}\n".encode() for n in range(1, 301))


def test_unmounting_delivers_what_it_can(mount: Mount) -> None:
    mount.sh("echo new > $MOUNT/desk/f.txt")
    assert mount.umount().stdout == f"unmounted {mount.point}; everything was delivered\n"
    assert mount.server.get("/desk/f.txt") == b"new\n"

    mount.start()
    mount.sh("cat $MOUNT/desk/f.txt")
    mount.server.rules("PUT /** hang\n")
    mount.sh("echo newer > $MOUNT/desk/f.txt")
    began = time.monotonic()
    done = mount.umount("--drain", "1")
    assert (done.returncode, done.stdout) == (0, f"unmounted {mount.point}; 1 op waits for the next mount\n")
    assert time.monotonic() - began < 6
    mount.server.rules("")
    mount.start()
    mount.delivered()
    assert (mount.server.get("/desk/f.txt"), len(history(mount, "/desk/f.txt"))) == (b"newer\n", 3)


def test_one_signal_drains_and_a_second_ends_at_once(mount: Mount) -> None:
    mount.umount()
    mount.start("--drain", "25")
    mount.sh("cat $MOUNT/desk/f.txt")
    mount.server.rules("PUT /** hang\n")
    with writer(mount, "exec 3> $MOUNT/desk/g.txt; echo some >&3; echo new > $MOUNT/desk/f.txt", "written") as program:
        os.kill(mount.pid, signal.SIGTERM)
        until(lambda: "Read-only" in mount.sh("echo x > $MOUNT/desk/more", check=False).stderr, "no new writer")
        assert mount.out("cat $MOUNT/desk/f.txt") == "new\n"
        out, _ = program.communicate("\n", timeout=10)
        assert (out, program.returncode) == ("", 0)
    began = time.monotonic()
    os.kill(mount.pid, signal.SIGTERM)
    until(lambda: not Path(f"/proc/{mount.pid}").exists(), "the daemon ends", 5)
    assert time.monotonic() - began < 3
    assert mount.out("ls $MOUNT") == ""
    mount.server.rules("")
    mount.start()
    mount.delivered()
    assert (mount.server.get("/desk/f.txt"), mount.server.get("/desk/g.txt")) == (b"new\n", b"some\nmore\n")


def test_a_signal_publishes_no_half_file(tmp_path: Path, relay_server: RelayServer) -> None:
    relay_server.put("/desk/f.txt", "whole\n")
    options = ("--settle", "0.1", "--open-settle", "0.2", "--drain", "2")
    with Mount(tmp_path, relay_server, *options) as mount:
        write = (
            "import os, sys; f = os.open(sys.argv[1], os.O_WRONLY | os.O_TRUNC); os.write(f, b'ha');"
            " print('half', flush=True); sys.stdin.readline()"
        )
        with subprocess.Popen(
            ["timeout", "-s", "KILL", "20", "python3", "-c", write, f"{mount.point}/desk/f.txt"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=mount.environment,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            assert process.stdout.readline() == "half\n"
            os.kill(mount.pid, signal.SIGTERM)
            until(lambda: not Path(f"/proc/{mount.pid}").exists(), "the daemon has ended")
            process.communicate("\n")
        assert relay_server.get("/desk/f.txt") == b"whole\n"
        mount.start()
        letter = mount.dead_letter()
        assert (letter["reason"], mount.out(f"cat $MOUNT/.relay/content/{letter['opId']}")) == ("interrupted", "ha")
