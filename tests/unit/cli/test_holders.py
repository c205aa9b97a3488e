"""Who uses a directory, seen from /proc; a plain directory stands in for a mount because only names are compared."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fsmount.cli.holders import holders, mounted_below
from fsmount.mounttable import MountLine


@contextmanager
def running(script: str, *argv: str, cwd: Path | None = None) -> Iterator[int]:
    program = f"import sys, os, mmap\n{script}\nprint('ready', flush=True)\nsys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, *argv], cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process.pid
        process.kill()


def test_nobody(tmp_path: Path) -> None:
    assert holders(str(tmp_path)) == []


def test_a_file_that_is_open(tmp_path: Path) -> None:
    path = tmp_path / "a b"
    path.write_text("x")
    with running("f = open(sys.argv[1])", str(path)) as pid:
        (one,) = holders(str(tmp_path))
        assert one.pid == pid
        assert str(one).endswith(f": has open {path}")
        assert holders(str(tmp_path), besides=frozenset({pid})) == []


def test_a_directory_that_somebody_stands_in(tmp_path: Path) -> None:
    with running("pass", cwd=tmp_path) as pid:
        (one,) = holders(str(tmp_path))
        assert (one.pid, one.what) == (pid, f"stands in {tmp_path}")


def test_a_file_that_is_only_mapped(tmp_path: Path) -> None:
    path = tmp_path / "mapped"
    path.write_text("x" * 5000)
    with running(
        "f = open(sys.argv[1]); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); f.close()", str(path)
    ) as pid:
        (one,) = holders(str(tmp_path))
        assert one.pid == pid
        os.unlink(path)
        assert [other.pid for other in holders(str(tmp_path))] == [pid]


def test_a_neighbour_with_a_longer_name_is_another(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "mm").mkdir()
    with running("pass", cwd=tmp_path / "mm"):
        assert holders(str(tmp_path / "m")) == []


def test_what_is_mounted_below() -> None:
    table = [
        MountLine(mountpoint=place, fstype="tmpfs", source="s", device="0:1") for place in ("/", "/m", "/m/in", "/mm")
    ]
    assert mounted_below("/m", table) == ["/m/in"]
