"""A disk that is full: the program is told at write, what was queued stays, and all goes on when there is room."""

from __future__ import annotations

import io
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.mount import Mount, until
from tests.support.ops import ops
from tests.support.server import serving

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.getuid() != 0, reason="only root can make small filesystems to fill"),
]
RESTING = ("--settle", "60", "--max-settle", "60", "--open-settle", "60", "--drain", "0")
MIB = 1 << 20


@contextmanager
def small_disk(at: Path, size: int) -> Iterator[None]:
    at.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(at)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def took_all(file: io.RawIOBase) -> bool:
    """Writes until nothing more fits; whether anything did."""
    before = file.tell()
    for size in (64 << 10, 4 << 10):
        with suppress(OSError):
            while file.write(bytes(size)):
                pass
    return file.tell() > before


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Somebody else takes every byte that is left, and what a sweep gives back in the next moment too."""
    filler = disk / "somebody-elses"
    with filler.open("wb", buffering=0) as file:
        while took_all(file):
            time.sleep(0.5)
    yield
    filler.unlink()


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """State, spool, cache and log each on a small disk of its own; what is written rests in the queue."""
    folder = tmp_path_factory.mktemp("full")
    with ExitStack() as stack:
        server = stack.enter_context(serving(tmp_path_factory.mktemp("relay")))
        server.put_many({f"/desk/there-{n}": "there\n" for n in range(9)})
        for name, size in (("state-dir", 40), ("state-dir/spool", 40), ("cache", 68), ("logs", 1)):
            stack.enter_context(small_disk(folder / name, size * MIB))
        options = (*RESTING, "--log", str(folder / "logs/log"), "--attr-ttl", "0")
        yield stack.enter_context(Mount(folder, server, *options))


@pytest.fixture
def mount(mounted: Mount) -> Iterator[Mount]:
    """Afterwards all that was queued is delivered."""
    yield mounted
    mounted.sh("echo flush > $MOUNT/.relay/ctl")
    mounted.delivered()


def test_a_full_spool_is_told_at_write_and_at_nothing_else(mount: Mount) -> None:
    mount.sh("cd $MOUNT/desk && echo before > before")
    program = """
import os, sys
there = os.environ["MOUNT"] + "/desk/"
early = os.open(there + "early", os.O_CREAT | os.O_WRONLY)
os.write(early, b"early")
big = os.open(there + "big", os.O_CREAT | os.O_WRONLY)
try:
    while True:
        os.write(big, bytes(1 << 20))
except OSError as error:
    print(os.strerror(error.errno))
os.close(big)
os.close(early)
os.unlink(there + "big")
"""
    assert mount.out(f"python3 -c '{program}'") == "No space left on device\n"
    with full(mount.state / "spool"):
        done = mount.sh("cd $MOUNT/desk && echo more > more", check=False)
        assert "No space left on device" in done.stderr
        assert mount.out("cd $MOUNT/desk && cat before early there-1") == "before\nearlythere\n"
        mount.sh("cd $MOUNT/desk && rm there-2 && mv there-3 moved && mkdir empty && chmod 600 before")
    mount.sh("cd $MOUNT/desk && echo after > after")


def test_with_a_full_journal_what_was_begun_ends_and_removals_and_verbs_work(mount: Mount) -> None:
    mount.sh("cd $MOUNT/desk && echo unwanted > unwanted")
    (unwanted,) = [op for op in ops(mount, "pending") if op["path"] == "/desk/unwanted"]
    command = "exec 3> $MOUNT/desk/begun; echo begun >&3; echo ready; read _; exec 3>&-; echo closed $?"
    with subprocess.Popen(
        ["timeout", "-s", "KILL", "20", "bash", "-c", command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=mount.environment,
    ) as program:  # fmt: skip
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        with full(mount.state):
            assert program.communicate("\n")[0] == "closed 0\n"
            mount.sh("rm $MOUNT/desk/there-4")
            mount.sh(f"mv $MOUNT/.relay/pending/{unwanted['opId']}.json $MOUNT/.relay/discarded/")
            assert mount.status()["health"] in {"ok", "busy"}
    until(lambda: "/desk/begun" in {op["path"] for op in ops(mount, "pending")}, "it is queued")


def test_a_full_cache_and_a_full_log_are_nobodys_trouble(mount: Mount) -> None:
    with full(mount.folder / "cache"), full(mount.folder / "logs"):
        assert mount.out("cat $MOUNT/desk/there-5") == "there\n"
        mount.sh("echo new > $MOUNT/desk/new; echo flush > $MOUNT/.relay/ctl")
        mount.delivered()
        assert mount.out("cat $MOUNT/desk/new; cat $MOUNT/desk/there-6") == "new\nthere\n"
        assert mount.out("cat $MOUNT/.relay/log")
    assert mount.server.get("/desk/new") == b"new\n"


def test_at_the_end_the_remote_has_everything(mount: Mount) -> None:
    mount.delivered()
    found = {path.rpartition("/")[2]: content for path, content in mount.server.files().items()}
    assert {name: found.get(name) for name in ("before", "early", "after", "begun", "moved")} == {
        "before": b"before\n", "early": b"early", "after": b"after\n", "begun": b"begun\n", "moved": b"there\n",
    }  # fmt: skip
    assert not {"big", "unwanted", "there-2", "there-3", "there-4"} & found.keys()
    assert mount.status()["failedWritebacks"] == 0


def test_the_spool_limit_is_edquot_at_write(tmp_path: Path, mounted: Mount) -> None:
    with Mount(tmp_path, mounted.server, *RESTING, "--spool-limit", "1M") as limited:
        done = limited.sh("head -c 2000000 /dev/zero > $MOUNT/desk/too-much", check=False)
        assert "Disk quota exceeded" in done.stderr
        assert limited.out("cat $MOUNT/desk/there-7") == "there\n"
        limited.sh("rm $MOUNT/desk/too-much")
        little = "echo little > $MOUNT/desk/little"
        until(lambda: limited.sh(little, check=False).returncode == 0, "what was removed makes room")
