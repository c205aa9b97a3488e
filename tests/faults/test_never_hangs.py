"""Whatever the remote does: every system call ends within its deadline, and ``.relay`` answers all the while."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.awkward import BEHAVIOURS, serving
from tests.support.mount import Mount, until
from tests.support.server import RelayServer

pytestmark = [pytest.mark.mount, pytest.mark.timeout(120)]

TIMEOUT = 2.0
READERS = 500
SLACK = 4.0
"""A loaded machine may take so much longer than the deadline; nothing that hangs ends by then."""

_READ = """
import os, sys, threading, time

worst, errors = [0.0], set()

def read(path):
    began = time.monotonic()
    try:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.pread(fd, 4096, 0)
        finally:
            worst[0] = max(worst[0], time.monotonic() - began)
            os.close(fd)
    except OSError as error:
        errors.add(error.strerror)

threading.stack_size(256 * 1024)
threads = [threading.Thread(target=read, args=(f"{sys.argv[1]}/f{n % 50}",)) for n in range(int(sys.argv[2]))]
for thread in threads:
    thread.start()
print("reading", flush=True)
for thread in threads:
    thread.join()
print(f"{worst[0]:.2f} {sorted(errors)}")
"""


@pytest.fixture
def mount(tmp_path: Path, relay_server: RelayServer) -> Iterator[Mount]:
    relay_server.put_many({f"/h/f{number}": f"content {number}" for number in range(50)})
    with Mount(tmp_path, relay_server, "--timeout", str(TIMEOUT), "--settle", "0.1", "--attr-ttl", "1") as mounted:
        mounted.sh("ls $MOUNT/h > /dev/null")
        yield mounted


@contextmanager
def watched(mount: Mount) -> Iterator[None]:
    """Fails where ``.relay/status`` takes a second at any time within."""
    over, slow = threading.Event(), [0.0]

    def watch() -> None:
        while True:
            began = time.monotonic()
            mount.sh("cat $MOUNT/.relay/status > /dev/null")
            slow[0] = max(slow[0], time.monotonic() - began)
            if over.wait(0.05):
                return

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()
    assert 0.0 < slow[0] < 1.0, f"status took {slow[0]:.2f} s"


def test_five_hundred_readers_of_files_that_hang(mount: Mount) -> None:
    mount.server.rules("GET /h/** hang\n")
    with watched(mount):
        readers = subprocess.Popen(
            [sys.executable, "-c", _READ, f"{mount.point}/h", str(READERS)], stdout=subprocess.PIPE, text=True
        )
        single = subprocess.Popen(["cat", f"{mount.point}/h/f7"], stderr=subprocess.DEVNULL)
        assert readers.stdout is not None
        assert readers.stdout.readline() == "reading\n"
        time.sleep(TIMEOUT / 4)
        os.kill(single.pid, signal.SIGKILL)
        single.wait(TIMEOUT + SLACK)
        assert mount.out("ls $MOUNT/h | wc -l") == "50\n"
        mount.sh("echo new > $MOUNT/h/new")
        said, _ = readers.communicate(timeout=60)
    worst, errors = said.split(" ", 1)
    assert float(worst) < TIMEOUT + SLACK, said
    assert "Connection timed out" in errors, said
    mount.server.rules("")
    mount.delivered()
    assert mount.server.get("/h/new") == b"new\n"


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_a_server_that_never_comes_to_an_end(mount: Mount, behaviour: str) -> None:
    before = memory(mount.pid)
    mount.server.stop()
    with serving(mount.server.port, BEHAVIOURS[behaviour]), watched(mount):
        mount.sh("echo unsent > $MOUNT/h/new")
        began = time.monotonic()
        failed = mount.sh("cat $MOUNT/h/f1", check=False)
        assert failed.returncode == 1
        assert time.monotonic() - began < TIMEOUT + SLACK, failed.stderr
        assert mount.out("cat $MOUNT/h/new") == "unsent\n"
        until(lambda: "offline" in mount.out("cat $MOUNT/.relay/status"), "it says that the remote is not there", 20)
        queue = mount.status()["queue"]
        # To send a write in a circle is to refuse it: that is told, and left to a person.
        assert (queue["pending"], queue["deadLetter"]) == ((0, 1) if behaviour == "circle" else (1, 0))
    until(lambda: memory(mount.pid) - before < 100 * 1024, "answers are cut at 64 MiB, and nothing of them is kept", 30)
    mount.server.start()
    mount.sh("echo retry all > $MOUNT/.relay/ctl")
    until(lambda: mount.server.get("/h/new") == b"unsent\n", "it goes on by itself", 20)
    assert mount.out("cat $MOUNT/h/f1") == "content 1"


def memory(pid: int) -> int:
    """KiB of the daemon that are in memory."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])
