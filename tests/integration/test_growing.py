"""`.relay/log` and `.relay/events`: programs follow them, and nobody waits for a reader."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mount import Mount, until
from tests.support.server import serving

pytestmark = pytest.mark.mount

POLL = """
import os, select, sys
with open(sys.argv[1], "rb", buffering=0) as file:
    file.seek(0, os.SEEK_END)
    file.read()  # what is before is not asked for
    poller = select.poll()
    poller.register(file, select.POLLIN)
    print("idle", poller.poll(200), flush=True)
    found = poller.poll(10_000)
    print("woken", bool(found and found[0][1] & select.POLLIN), len(file.read()) > 0, flush=True)
    print("select", [bool(ready) for ready in select.select([file], [], [], 0.2)], flush=True)
"""
EPOLL = """
import select, sys
with open(sys.argv[1], "rb", buffering=0) as file:
    poller = select.epoll()
    poller.register(file, select.EPOLLIN | select.EPOLLHUP)
    while True:
        (found,) = poller.poll(15)
        while file.read(1 << 20):
            pass
        print("mask", found[1], flush=True)
        if found[1] & select.EPOLLHUP:
            break
    file.seek(0)
    print("still", len(file.read()), flush=True)
"""


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    folder = tmp_path_factory.mktemp("growing")
    with serving(folder / "relay") as server, Mount(folder, server, "--settle", "0.05", "--drain", "1") as mounted:
        yield mounted


def start(mount: Mount, *command: str | Path) -> subprocess.Popen[str]:
    """A program beside the mount, for 30 s at most; its output is a pipe."""
    return subprocess.Popen(
        ["timeout", "-s", "KILL", "30", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=mount.environment,
    )  # fmt: skip


def line_of(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().rstrip("\n")


def note(mount: Mount, size: int = 0) -> None:
    """Something that is a line of both: of the log, about `size` bytes."""
    mount.sh(f"head -c {size} /dev/zero | tr '\\0' x > line; cat line > $MOUNT/.relay/ctl", check=False)


@pytest.mark.parametrize("name", ["log", "events"])
def test_poll_wakes_when_there_is_more(mount: Mount, name: str) -> None:
    with start(mount, sys.executable, "-c", POLL, mount.point / ".relay" / name) as running:
        assert line_of(running) == "idle []"
        mount.sh("echo pause > $MOUNT/.relay/ctl; echo resume > $MOUNT/.relay/ctl")
        assert line_of(running) == "woken True True"
        assert line_of(running).startswith("select [")


def test_what_does_not_grow_is_always_ready(mount: Mount) -> None:
    mount.sh("echo x > $MOUNT/f")
    program = (
        "import os, select, sys\n"
        "for path in sys.argv[1:]:\n"
        "    with open(path) as file:\n"
        "        file.read()\n"
        "        print(*[bool(ready) for ready in select.select([file], [file], [], 0)])\n"
    )
    files = " ".join(f"$MOUNT/{name}" for name in (".relay/status", ".relay/ctl", "f"))
    assert mount.out(f"{sys.executable} -c '{program}' {files}") == "True True False\n" * 3


@pytest.mark.parametrize("follow", ["-f", "-F"])
def test_tail_follows(mount: Mount, follow: str) -> None:
    with start(mount, "tail", "-n", "0", "-s", "0.05", follow, mount.point / ".relay" / "events") as tail:
        until(lambda: _opened(mount, "events") > 0, "tail has it open")
        mount.sh(f"echo x > $MOUNT/followed{follow}")
        while f'"/followed{follow}"' not in line_of(tail):
            assert tail.poll() is None
        tail.terminate()


def test_a_reader_that_stops_keeps_nobody_waiting(mount: Mount) -> None:
    with start(mount, sys.executable, "-c", POLL, mount.point / ".relay" / "log") as stopped:
        line_of(stopped)
        os.killpg(stopped.pid, signal.SIGSTOP)  # timeout(1) leads a group of its own
        try:
            mount.sh("for n in $(seq 200); do echo $n > $MOUNT/stopped$((n % 5)); done", timeout=15)
            mount.delivered()
            assert mount.server.get("/stopped0") == b"200\n"
        finally:
            os.killpg(stopped.pid, signal.SIGCONT)
        assert line_of(stopped) == "woken True True"


def test_past_its_limit_a_new_log_takes_the_name(mount: Mount) -> None:
    log = mount.point / ".relay" / "log"
    with (
        start(mount, sys.executable, "-c", EPOLL, log) as poller,
        start(mount, "tail", "-n", "+1", "-s", "0.05", "-F", log) as tail,
    ):
        assert line_of(poller).startswith("mask ")
        assert " connection " in line_of(tail)
        before = mount.out("stat -c %i $MOUNT/.relay/log")
        for _ in range(40):
            note(mount, 60_000)
            if mount.out("stat -c %i $MOUNT/.relay/log") != before:
                break
        assert mount.out("stat -c %i $MOUNT/.relay/log") != before
        assert (1 << 20) - 70_000 < int(mount.out("stat -c %s $MOUNT/.relay/log")) < (1 << 20) + 70_000
        # Who follows the old one is told that it grows no more, and can still read it.
        word, size = poller.communicate(timeout=15)[0].splitlines()[-1].split()
        assert (word, int(size) > 2 << 20) == ("still", True)
        mount.sh("echo pause > $MOUNT/.relay/ctl; echo resume > $MOUNT/.relay/ctl")
        while "resume" not in line_of(tail):
            assert tail.poll() is None
        tail.terminate()


def _opened(mount: Mount, name: str) -> int:
    """How many programs have a file of `.relay` open."""
    found = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found += any(os.readlink(file) == f"{mount.point}/.relay/{name}" for file in (process / "fd").iterdir())
        except OSError:
            continue
    return found
