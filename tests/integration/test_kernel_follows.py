"""The kernel's caches follow the change feed: soon, without requests, and without ever wedging.

FSMOUNT_TEST_STRESS is how many seconds the stress test runs (default 8).
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mount import Mount, until
from tests.support.server import RelayServer, serving
from tests.support.witness import Owed, Waiter, Watcher, Written, judged

pytestmark = pytest.mark.mount

SEEN = 1.0
"""Seconds within which a change has to be seen on a machine that has much else to do; ``scripts/bench`` measures."""
STRESS = float(os.environ.get("FSMOUNT_TEST_STRESS", "8"))


def is_live(mount: Mount) -> bool:
    return bool(mount.status()["connection"]["feed"] == "live")


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    folder = tmp_path_factory.mktemp("follows")
    with serving(folder / "relay") as server:
        server.put_many({f"/warm/{n:03}": f"{n:03}\n" for n in range(500)})
        with Mount(folder, server, "--timeout", "10", "--drain", "1") as mounted:
            until(lambda: is_live(mounted), "the feed is live")
            yield mounted


@pytest.fixture
def waiter(mount: Mount, tmp_path: Path) -> Iterator[Waiter]:
    with Waiter(tmp_path) as waiting:
        yield waiting


def requests(mount: Mount) -> int:
    """How often the remote was asked for names or content; the feed and the probes are not meant."""
    return len([line for line in mount.server.requests() if re.match(r"GET \S*/fs/(tree|file|raw|export)\b", line)])


def test_what_is_known_is_answered_without_the_daemon(mount: Mount) -> None:
    """Names, attributes and absent names: the daemon is stopped while programs ask for them."""
    names = "for n in $(seq -w 000 499)"
    mount.sh(f"cd $MOUNT && ls -l warm >/dev/null; {names}; do stat warm/no-$n; done 2>/dev/null; true")
    asked = requests(mount)
    os.kill(mount.pid, signal.SIGSTOP)
    try:
        mount.sh(
            f"cd / && {names}; do echo $MOUNT/warm/$n; done | xargs stat -c %s | sort -u | grep -qx 4 &&"
            f"{names}; do echo $MOUNT/warm/no-$n; done | xargs stat 2>&1 | grep -c 'No such file' | grep -qx 500",
            timeout=10,
        )
    finally:
        os.kill(mount.pid, signal.SIGCONT)
    mount.sh("cd $MOUNT && find warm -type f -size -2 | wc -l | grep -qx 500")
    assert requests(mount) == asked


def test_every_kind_of_change_is_seen_soon(mount: Mount, waiter: Waiter) -> None:
    server, here = mount.server, mount.point / "kinds"
    server.put("/kinds/f", "0000 same size")

    def soon(way: str, name: str, wanted: str) -> None:
        answered = time.monotonic()
        assert waiter.seen(way, here / name, wanted) - answered < SEEN, (way, name, wanted)

    soon("read", "f", "0000")
    for turn in range(1, 6):
        server.put("/kinds/f", f"{turn:04} same size")
        soon("read", "f", f"{turn:04}")
        server.put("/kinds/f", "x" * turn)
        soon("stat", "f", str(turn))
        soon("stat", f"new{turn}", "-")
        server.put(f"/kinds/new{turn}", "there")
        soon("read", f"new{turn}", "there")
        soon("list", f"new{turn}", "+")
        server.delete(f"/kinds/new{turn}")
        soon("stat", f"new{turn}", "-")
        server.put(f"/kinds/dir{turn}/deep/file", "x")
        soon("read", f"dir{turn}/deep/file", "x")
        server.delete(f"/kinds/dir{turn}/deep/file")
        soon("read", f"dir{turn}", "-")
        server.delete("/kinds/f")
        server.put("/kinds/f/below", "x")
        soon("read", "f", "/")
        server.delete("/kinds/f/below")
        server.put("/kinds/f", "file")
        soon("read", "f", "file")


def test_an_open_and_a_mapped_file_keep_what_they_have(mount: Mount, waiter: Waiter) -> None:
    mount.server.put("/open/f", "a" * 5000)
    waiter.seen("stat", mount.point / "open/f", "5000")
    program = (
        "import mmap, os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDONLY)\n"
        "seen = mmap.mmap(fd, 0, prot=mmap.PROT_READ)\n"
        "print(seen[:4], flush=True)\n"
        "sys.stdin.readline()\n"
        "print(seen[4090:4100], os.pread(fd, 3, 0), os.fstat(fd).st_size, open(sys.argv[1]).read(3))\n"
    )
    reader = subprocess.Popen(
        ["timeout", "-s", "KILL", "20", "python3", "-c", program, mount.point / "open/f"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert reader.stdout is not None
    assert reader.stdout.readline() == "b'aaaa'\n"
    mount.server.put("/open/f", "b" * 5000)
    waiter.seen("read", mount.point / "open/f", "b" * 5000)
    said, _ = reader.communicate("go\n", timeout=15)
    assert said == "b'aaaaaaaaaa' b'aaa' 5000 bbb\n"


def test_our_own_echo_costs_nothing(mount: Mount) -> None:
    mount.sh("mkdir -p $MOUNT/own; echo ours > $MOUNT/own/f; cat $MOUNT/own/f; ls $MOUNT/own")
    mount.delivered()
    mount.sh("cat $MOUNT/own/f; ls -l $MOUNT/own")
    told, asked = mount.status()["counters"]["invalidations"], requests(mount)
    before = mount.status()["connection"]["lastContactAt"]
    revision = mount.server.put("/elsewhere", "told after the echo")
    until(lambda: revision in (mount.state / "events").read_text(), "what came after the echo is told")
    assert "elsewhere" in mount.out("ls -l $MOUNT")
    mount.sh("stat $MOUNT > /dev/null")
    os.kill(mount.pid, signal.SIGSTOP)
    try:
        mount.sh("stat -c %s $MOUNT/own/f | grep -qx 5", timeout=10)
    finally:
        os.kill(mount.pid, signal.SIGCONT)
    assert mount.out("cat $MOUNT/own/f") == "ours\n"
    assert mount.status()["counters"]["invalidations"] - told <= 1, before
    shown = 1 if mount.server.extensions else 2  # the listing, and the size where it does not tell that
    assert requests(mount) - asked <= shown, "but for what `ls -l` shows of what is elsewhere"


def test_a_shell_stays_where_it_is(mount: Mount, waiter: Waiter) -> None:
    """Changes below, and a feed that may have missed some, do not take a shell's directory away."""
    mount.server.put("/cwd/deep/f", "1")
    waiter.seen("read", mount.point / "cwd/deep/f", "1")
    command = "cd $MOUNT/cwd/deep && ls; read; ls; cat f; /bin/pwd"
    shell = subprocess.Popen(
        ["timeout", "-s", "KILL", "20", "bash", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env=mount.environment,
    )  # fmt: skip
    assert shell.stdout is not None
    assert shell.stdout.readline() == "f\n"
    mount.sh("echo refresh / > $MOUNT/.relay/ctl")
    mount.server.delete("/cwd/deep/f")
    mount.server.put("/cwd/deep/f", "2")
    waiter.seen("read", mount.point / "cwd/deep/f", "2")
    assert shell.communicate("\n", timeout=15)[0] == f"f\n2{mount.point}/cwd/deep\n"


def test_a_directory_that_hangs_keeps_no_other_from_following(mount: Mount, waiter: Waiter) -> None:
    server = mount.server
    server.put("/hangs/a", "a")
    server.put("/goes/a", "a")
    waiter.seen("read", mount.point / "goes/a", "a")
    mount.sh("cat $MOUNT/hangs/a $MOUNT/goes/a")
    server.rules("LIST /hangs hang\n")
    server.put("/hangs/b", "b")
    time.sleep(0.2)  # the event is to be there before the look that hangs
    looks = [
        subprocess.Popen(["timeout", "-s", "KILL", "40", "stat", mount.point / "hangs" / name], stderr=subprocess.PIPE)
        for name in ("b", "b")
    ]
    try:
        for turn in range(1, 4):
            server.put("/hangs/c", str(turn))
            server.put("/goes/a", str(turn))
            answered = time.monotonic()
            assert waiter.seen("read", mount.point / "goes/a", str(turn)) - answered < SEEN
        assert [look.poll() for look in looks] == [None, None]
    finally:
        server.rules("")
        for look in looks:
            look.communicate(timeout=40)


def test_without_the_feed_nothing_is_believed_for_longer_than_the_ttl(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "relay") as server,
        Mount(tmp_path, server, "--attr-ttl", "0.5", "--drain", "0") as mount,
        Waiter(tmp_path) as waiter,
    ):
        server.put("/d/f", "old")
        until(lambda: is_live(mount), "the feed is live")
        here = mount.point / "d"
        waiter.seen("read", here / "f", "old")
        waiter.seen("stat", here / "new", "-")
        reader = subprocess.Popen(["timeout", "-s", "KILL", "30", "tail", "-f", here / "f"], stdout=subprocess.PIPE)
        assert reader.stdout is not None
        assert reader.stdout.read(3) == b"old"
        server.rules("EVENTS / 503\n")
        until(lambda: mount.status()["connection"]["feed"] == "none", "there is no feed")
        server.put("/d/f", "newer")
        server.put("/d/new", "there")
        answered = time.monotonic()
        for name, content in (("f", "newer"), ("new", "there")):
            assert waiter.seen("read", here / name, content) - answered < 0.5 + SEEN
            assert waiter.seen("stat", here / name, "5") - answered < 0.5 + SEEN
        reader.terminate()
        reader.communicate()


# under stress


class Foreign(threading.Thread):
    """Somebody else who changes the same paths over and over, by HTTP alone."""

    def __init__(self, server: RelayServer, point: Path, until_when: float, seed: int) -> None:
        super().__init__()
        self._server = server
        self._until = until_when
        self._random = random.Random(seed)
        self.written = {str(point / "busy" / f"f{n}"): Written() for n in range(6)}
        self._paths = {path: f"/busy/{Path(path).name}" for path in self.written}
        self.changes = 0

    def run(self) -> None:
        while time.monotonic() < self._until:
            path = self._random.choice(list(self._paths))
            self._change(path, self.written[path])
            self.changes += 1
            time.sleep(self._random.uniform(0, 0.02))

    def _change(self, path: str, written: Written) -> None:
        asked, remote = time.monotonic(), self._paths[path]
        now = written.states[-1]
        if now == "/":
            self._server.delete(f"{remote}/below")
            written.becomes("-", asked)
        elif now == "-" and self._random.random() < 0.3:
            self._server.put(f"{remote}/below", "x")
            written.becomes("/", asked)
        elif now != "-" and self._random.random() < 0.3:
            self._server.delete(remote)
            written.becomes("-", asked)
        else:
            version = f"v{len(written.states)}"
            self._server.put(remote, f"{version} {'x' * self._random.choice((10, 10, 5000, 200_000))}")
            written.becomes(version, asked)


MAPS = """
import mmap, os, time
end = time.monotonic() + 1
while time.monotonic() < end:
    for name in os.listdir("."):
        try:
            with open(name, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as seen:
                time.sleep(0.01)
                assert name[0] != "f" or seen[-5:] == b"xxxxx", (name, seen[-9:])
        except (OSError, ValueError):
            pass
"""
SIGBUS = 128 + 7
"""What a program gets for a page that is not there and cannot be had any more."""


def loads(seconds: float) -> dict[str, str]:
    """What runs beside, each for that long."""
    again = f"end=$((SECONDS+{seconds:.0f})); while [ $SECONDS -lt $end ]; do"
    mine = "name=own-$n; head -c 9000 /dev/zero > $name && mv $name $name.2 && cat $name.2 | wc -c | grep -qx 9000"
    return {
        "cat": f"{again} cat * >/dev/null 2>&1; done; true",
        "stat": f"{again} stat * f1 f2 no-$SECONDS >/dev/null 2>&1; done; true",
        "ls": f"{again} ls -lR . >/dev/null 2>&1; done; true",
        "grep": f"{again} grep -r needle . >/dev/null 2>&1; done; true",
        "write": f"{again} for n in 1 2 3; do {mine} && rm $name.2 || exit 1; done; done",
        "append": f"{again} echo line >> appended || exit 1; done",
        "maps": f"{again} python3 ../../maps.py; [ $? = 0 -o $? = {SIGBUS} ] || exit 1; done",
        "rules": f"{again} echo 'LIST /busy delay=300ms times=3' > $RULES; sleep 0.7; "
        "echo 'GET /busy/f* hang times=1' > $RULES; sleep 0.7; : > $RULES; sleep 0.5; done",
    }  # fmt: skip


def test_nothing_wedges_and_nothing_stale_is_seen_under_stress(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "relay") as server,
        Mount(tmp_path, server, "--timeout", "3", "--drain", "1") as mount,
    ):
        server.put("/busy/there", "there")
        until(lambda: is_live(mount), "the feed is live")
        foreign = Foreign(server, mount.point, time.monotonic() + STRESS, seed=1)
        (tmp_path / "maps.py").write_text(MAPS)
        with Watcher(tmp_path, "watcher", map(Path, foreign.written), seconds=STRESS + 30) as watcher:
            running = {name: start(mount, command, STRESS + 20) for name, command in loads(STRESS).items()}
            foreign.start()
            for process in running.values():
                process.communicate()
            foreign.join()
        assert {name: process.returncode for name, process in running.items()} == dict.fromkeys(running, 0)
        server.rules("")
        mount.delivered()
        assert foreign.changes > 10 * STRESS
        # A hung listing or read may take a whole --timeout, the watcher's own too.
        assert len(watcher.sights) > STRESS / 3
        assert judged(watcher.sights, foreign.written, Owed(bound=3 + SEEN, recovery=0)) == []
        until(lambda: tree_of(mount) == sorted(served(server)), "the tree is the server's", SEEN + 5)
        status = mount.status()
        assert status["health"] == "ok"
        assert status["counters"]["invalidations"] > foreign.changes


def start(mount: Mount, command: str, seconds: float) -> subprocess.Popen[str]:
    environment = {**mount.environment, "RULES": str(mount.server.rules_file)}
    return subprocess.Popen(
        ["timeout", "-s", "KILL", str(seconds), "bash", "-c", f"cd $MOUNT/busy && {command}"],
        stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def tree_of(mount: Mount) -> list[str]:
    """Every file that a program finds, with its size and digest."""
    listed = mount.out("cd $MOUNT/busy; find . -type f | sort | xargs sha256sum; find . -type f -printf '%s %P\\n'")
    return sorted(listed.splitlines())


def served(server: RelayServer) -> Iterator[str]:
    for path, content in server.files().items():
        if path.startswith("/busy/"):
            yield f"{hashlib.sha256(content).hexdigest()}  ./{path[6:]}"
            yield f"{len(content)} {path[6:]}"
