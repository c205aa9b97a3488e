"""A disk quota that is used up: as a full disk, which alone the disk itself does not tell of beforehand.

The quotas are those of btrfs, for they need no support from the kernel but the filesystem's own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.faults.test_full_disk import RESTING, full
from tests.support.mount import Mount, until
from tests.support.server import RelayServer, serving

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.getuid() != 0, reason="only root can make filesystems with quotas"),
    pytest.mark.skipif(shutil.which("btrfs") is None, reason="btrfs-progs is not installed"),
]
EXCEEDED = "Disk quota exceeded"


@contextmanager
def quota_disk(image: Path, at: Path) -> Iterator[None]:
    """A filesystem that keeps quotas."""
    with image.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run(["mkfs.btrfs", "-q", "--mixed", str(image)], check=True, capture_output=True)
    at.mkdir()
    done = subprocess.run(["mount", "-o", "loop", str(image), str(at)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop mounts of btrfs here: {done.stderr.strip()}")
    try:
        subprocess.run(["btrfs", "quota", "enable", str(at)], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def limited(directory: Path, mebibytes: int) -> None:
    """A directory with a quota of its own."""
    for command in (["subvolume", "create"], ["qgroup", "limit", f"{mebibytes}M"]):
        subprocess.run(["btrfs", *command, str(directory)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayServer]:
    with serving(tmp_path_factory.mktemp("relay")) as running:
        running.put_many({f"/desk/there-{n}": "there\n" for n in range(9)})
        yield running


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("quota")
    with quota_disk(folder / "image", folder / "disk"):
        yield folder / "disk"


@contextmanager
def mounted(folder: Path, server: RelayServer, *options: str) -> Iterator[Mount]:
    """What is written rests in the queue, and is all delivered at the end."""
    with Mount(folder, server, *RESTING, "--attr-ttl", "0", *options) as mount:
        yield mount
        mount.sh("echo flush > $MOUNT/.relay/ctl")
        mount.delivered()
        assert mount.status()["failedWritebacks"] == 0


FILLING = """
import errno, json, os
there, kept, refused = os.environ["MOUNT"] + "/desk/", [], []
for n in range(5000):
    stage = "open"
    try:
        file = os.open(f"{there}few-{n}", os.O_CREAT | os.O_WRONLY)
        try:
            stage = "write"
            os.write(file, b"%04d" % n * 8000)
            stage = "close"
        finally:
            os.close(file)
        kept.append(n)
    except OSError as error:
        refused.append([stage, errno.errorcode[error.errno]])
        if len(refused) == 20:
            break
print(json.dumps([kept, refused]))
"""
"""Small files until nothing more fits."""


def content_of(mount: Mount, name: str) -> bytes | None:
    return mount.server.get(f"/desk/{name}")


def saved(mount: Mount, name: str) -> bool:
    return mount.sh(f"echo {name} > $MOUNT/desk/{name}", check=False).returncode == 0


def test_with_one_quota_for_everything_no_close_is_refused(disk: Path, server: RelayServer) -> None:
    """Beside the spool, which may not use it, the journal has a reserve, be the quota used up by whomever it may."""
    limited(disk / "together", 44)
    with mounted(disk / "together", server, "--cache-limit", "1M") as mount:
        kept, refused = json.loads(mount.out(f"python3 -c '{FILLING}'"))
        assert {stage for stage, _ in refused} <= {"open", "write"}
        assert {errno for _, errno in refused} == {"EDQUOT"}
        mount.sh("cd $MOUNT/desk && rm there-1 && mv few-1 moved && mkdir empty && chmod 600 moved")
        assert mount.out("cat $MOUNT/desk/there-3") == "there\n"
        mount.sh("cd $MOUNT/desk && rm few-0")
        mount.sh("echo flush > $MOUNT/.relay/ctl")
        mount.delivered()
        until(partial(saved, mount, "new"), "what went makes room")
    assert [n for n in kept[2:] if content_of(mount, f"few-{n}") != b"%04d" % n * 8000] == []
    assert [content_of(mount, name) for name in ("there-1", "moved", "new")] == [None, b"0001" * 8000, b"new\n"]


def test_quotas_of_the_spool_the_journal_the_cache_and_the_log(disk: Path, server: RelayServer) -> None:
    folder = disk / "apart"
    folder.mkdir()
    for name, mebibytes in (("state-dir", 32), ("state-dir/spool", 8), ("cache", 3), ("logs", 2)):
        limited(folder / name, mebibytes)
    with mounted(folder, server, "--log", str(folder / "logs/log")) as mount:
        mount.sh("cd $MOUNT/desk && echo before > before")
        assert EXCEEDED in mount.sh("head -c 20000000 /dev/zero > $MOUNT/desk/big", check=False).stderr
        mount.sh("rm $MOUNT/desk/big")
        until(partial(saved, mount, "again"), "what went makes room")
        command = "exec 3> $MOUNT/desk/begun; echo begun >&3; echo ready; read _; exec 3>&-; echo closed $?"
        with subprocess.Popen(
            ["timeout", "-s", "KILL", "20", "bash", "-c", command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=mount.environment,
        ) as program, full(mount.state), full(folder / "cache"), full(folder / "logs"):  # fmt: skip
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
            assert program.communicate("\n")[0] == "closed 0\n"
            assert EXCEEDED in mount.sh("echo more > $MOUNT/desk/more", check=False).stderr
            assert mount.out("cd $MOUNT/desk && cat before begun there-4") == "before\nbegun\nthere\n"
            mount.sh("rm $MOUNT/desk/there-5")
        until(partial(saved, mount, "after"), "there is room again")
        mount.umount()
        with full(mount.state), full(mount.state / "spool"):
            mount.start()
            assert mount.out("cd $MOUNT/desk && cat before after") == "before\nafter\n"
            mount.sh("rm $MOUNT/desk/there-6")
    found = {name: content_of(mount, name) for name in ("before", "begun", "after", "there-5", "big")}
    assert found == {"before": b"before\n", "begun": b"begun\n", "after": b"after\n", "there-5": None, "big": None}
