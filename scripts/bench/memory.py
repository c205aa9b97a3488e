#!/usr/bin/env python3
"""How much memory do a daemon and a server hold while many names are listed and a large file goes in and out?

    .venv/bin/python scripts/bench/memory.py [--gib 2] [--entries 100000] [--folder DIRECTORY]

It starts a server and two mounts of its own. The first lists everything, takes the file and delivers it; the second
lists everything, reads the file with an empty cache, and then writes and delivers it under another name. What comes out
is compared with what went in. In ``--folder`` there must be room for eight times the file.

Prints MiB of anonymous resident memory (RssAnon of /proc/PID/status, and VmRSS with what is mapped of files): the most
that was seen in each stage, and what was left at its end. Exits 1 if the contents differ.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.mount import Mount
from tests.support.server import RelayServer, serving

MEBIBYTE = 1024 * 1024
EVERY = 0.05
"""Seconds between two looks."""
LONGEST = 900.0
"""Seconds of one command."""
IN_DIRECTORY = 100


def resident(pid: int) -> tuple[float, float]:
    """RssAnon and VmRSS in MiB."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        lines = dict(line.split(":", 1) for line in file)
    return int(lines["RssAnon"].split()[0]) / 1024, int(lines["VmRSS"].split()[0]) / 1024


class Most:
    """Looks at one process until it is told to stop: the most that it had."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.anonymous, self.all = resident(pid)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(EVERY):
            anonymous, all_ = resident(self._pid)
            self.anonymous, self.all = max(self.anonymous, anonymous), max(self.all, all_)

    def stop(self) -> None:
        """No look follows."""
        self._over.set()
        self._thread.join()


@contextlib.contextmanager
def stage(name: str, mount: Mount, server: RelayServer) -> Iterator[None]:
    """Prints a line about what is done inside."""
    began, looks = time.monotonic(), [Most(mount.pid), Most(server.process.pid)]
    try:
        yield
    finally:
        for most in looks:
            most.stop()
    left = [resident(pid)[0] for pid in (mount.pid, server.process.pid)]
    daemon, served = looks
    print(
        f"{name:34} {time.monotonic() - began:7.1f} {daemon.anonymous:7.1f} {left[0]:7.1f} {daemon.all:7.1f}"
        f" {served.anonymous:9.1f} {left[1]:7.1f}",
        flush=True,
    )


def fill(server: RelayServer, entries: int) -> None:
    """So many files, a hundred in a directory."""
    for start in range(0, entries, 10_000):
        numbers = range(start, min(entries, start + 10_000))
        server.put_many({f"/tree/d{n // IN_DIRECTORY:05}/file-{n:07}.json": f"{n}" for n in numbers})


def first(mount: Mount, server: RelayServer, large: Path) -> None:
    """The file goes in."""
    with stage("first mount: mounted", mount, server):
        mount.out("ls $MOUNT")
    with stage("  find, every name with its size", mount, server):
        mount.sh("find $MOUNT/tree -size +9999k", timeout=LONGEST)
    with stage("  cp in", mount, server):
        mount.sh(f"cp {large} $MOUNT/large", timeout=LONGEST)
    with stage("  upload", mount, server):
        mount.delivered(LONGEST)


def second(mount: Mount, server: RelayServer, large: Path) -> bool:
    """The file comes out, and goes in once more; whether it is the same."""
    with stage("second mount: mounted", mount, server):
        mount.out("ls $MOUNT")
    with stage("  find, every name with its size", mount, server):
        mount.sh("find $MOUNT/tree -size +9999k", timeout=LONGEST)
    copy = large.with_name("copy")
    with stage("  cold copy out", mount, server):
        mount.sh(f"cp $MOUNT/large {copy}", timeout=LONGEST)
    same = mount.sh(f"cmp {large} {copy}", check=False, timeout=LONGEST).returncode == 0
    with stage("  cp in under another name", mount, server):
        mount.sh(f"cp {copy} $MOUNT/again", timeout=LONGEST)
    copy.unlink()
    with stage("  upload", mount, server):
        mount.delivered(LONGEST)
    with stage("  the end, ten seconds later", mount, server):
        time.sleep(10)
    return same


def main() -> int:
    """0 where what came out is what went in."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gib", type=float, default=2.0, help="size of the file")
    parser.add_argument("--entries", type=int, default=100_000, help="names beside it")
    parser.add_argument("--folder", type=Path, help="where everything is put, and removed from, in the end")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="memory-", dir=asked.folder) as temporary:
        folder = Path(temporary)
        large = folder / "large-file"
        with large.open("wb") as file, open("/dev/urandom", "rb") as noise:
            for _ in range(int(asked.gib * 1024)):
                file.write(noise.read(MEBIBYTE))
        with serving(folder / "relay") as server:
            fill(server, asked.entries)
            title = f"{asked.gib:g} GiB, {asked.entries} entries; MiB"
            print(f"{title:34} seconds  daemon    left   VmRSS    server    left", flush=True)
            (folder / "one").mkdir()
            with Mount(folder / "one", server) as mount:
                first(mount, server, large)
            (folder / "two").mkdir()
            with Mount(folder / "two", server) as mount:
                same = second(mount, server, large)
            with server.http.stream("GET", "raw", params={"path": "/again"}) as answer:
                same = same and matches(answer.iter_raw(), large)
    print("what came out is what went in" if same else "THE CONTENTS DIFFER")
    return 0 if same else 1


def matches(pieces: Iterator[bytes], large: Path) -> bool:
    """Whether they are the file's content."""
    with large.open("rb") as file:
        return all(piece == file.read(len(piece)) for piece in pieces) and not file.read(1)


if __name__ == "__main__":
    sys.exit(main())
