#!/usr/bin/env python3
"""A foreign writer and a mount on one tree: is every change seen, how soon, and is anything old seen after it?

    .venv/bin/python scripts/bench/follow.py [--minutes 5] [--seed N] [--calm]

It starts a server and a mount of its own, changes files by HTTP and waits in another process until the mount shows each
change, while three programs read the same tree over and over. About every ten seconds the feed is cut, made silent,
overflowed or loses its server (not with --calm). Changes that were made while that lasted are timed apart.

Prints the delays, from the server's answer until a program saw it; exits 1 if a change was not seen, a read was older
than one before it or than what it was owed, or the trees differ in the end.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
from msgspec import Struct

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.mount import Mount, until
from tests.support.server import RelayServer, serving
from tests.support.witness import Owed, Waiter, Watcher, Written, judged

FILES = 12
"""Files that are changed in place; others come and go."""
BOUND = 1.0
"""Seconds after which no program may see what was before, while the feed is live."""
RECOVERY = 15.0
"""The same after the feed was disturbed: --attr-ttl, and the time in which a silent feed is noticed."""
EVERY = 10.0
"""Seconds between two disturbances."""
BURST = 6000
"""More events than the server keeps for one client,"""
BULK = 8192
"""and more bytes in each than fit between the two with them."""
SLOWEST = 5
"""Changes that are shown one by one."""
WITHIN = 60.0
"""Seconds after which a change counts as never seen."""


class Change(Struct, frozen=True):
    """One that was seen: when the server had answered it (UTC epoch), and seconds from then until a program saw it."""

    kind: str
    path: str
    at: float
    delay: float


class Follow:
    """One run."""

    def __init__(self, server: RelayServer, mount: Mount, waiter: Waiter, seed: int) -> None:
        self.server = server
        self.mount = mount
        self.waiter = waiter
        self.random = random.Random(seed)
        self.written = {str(mount.point / "tree" / f"f{n}"): Written() for n in range(FILES)}
        self.owed = Owed(BOUND, RECOVERY)
        self.calm: list[Change] = []
        self.disturbed: list[Change] = []
        self.quiet_since = 0.0
        self.counter = 0
        self._ways: dict[str, Callable[[], tuple[str, str, str]]] = {
            "content": self._content, "size": self._size, "new name": self._new, "deletion": self._deletion,
            "new directory": self._new_directory, "directory gone": self._directory_gone,
        }  # fmt: skip
        self._disturbances = (self._cut, self._silence, self._restart, self._overflow)

    # changes

    def change(self) -> None:
        """One change, seen."""
        kind = self.random.choice(list(self._ways))
        way, path, wanted = self._ways[kind]()
        answered, at = time.monotonic(), time.time()
        delay = self.waiter.seen(way, path, wanted, within=WITHIN) - answered
        change = Change(kind, path.removeprefix(f"{self.mount.point}/"), at, max(0.0, delay))
        (self.calm if answered > self.quiet_since else self.disturbed).append(change)

    def put(self, path: str, content: str) -> None:
        """Until the server has answered: it may be starting anew."""
        self._insist(lambda: self.server.put(path, content))

    def delete(self, path: str) -> None:
        self._insist(lambda: self.server.delete(path))

    @staticmethod
    def _insist(act: Callable[[], object]) -> None:
        for _ in range(100):
            try:
                act()
            except (httpx.TransportError, httpx.HTTPStatusError):
                time.sleep(0.1)
            else:
                return
        raise SystemExit("the server does not answer")

    def _write(self, size: int) -> tuple[str, str]:
        """A file that was there or not has new content: its path and version."""
        path, written = self.random.choice(list(self.written.items()))
        version, asked = f"v{len(written.states)}", time.monotonic()
        self.put(f"/tree/{Path(path).name}", f"{version:8}{'x' * size}")
        written.becomes(version, asked)
        return path, version

    def _content(self) -> tuple[str, str, str]:
        path, version = self._write(100)
        return "read", path, version

    def _size(self) -> tuple[str, str, str]:
        size = self.random.randrange(200, 20_000)
        path, _ = self._write(size)
        return "stat", path, str(8 + size)

    def _deletion(self) -> tuple[str, str, str]:
        there = [(path, written) for path, written in self.written.items() if written.states[-1] != "-"]
        if not there:
            return self._content()
        path, written = self.random.choice(there)
        asked = time.monotonic()
        self.delete(f"/tree/{Path(path).name}")
        written.becomes("-", asked)
        return "stat", path, "-"

    def _new(self) -> tuple[str, str, str]:
        self.counter += 1
        path = f"{self.mount.point}/tree/new/n{self.counter}"
        self.waiter.seen("stat", path, "-")
        self.put(f"/tree/new/n{self.counter}", "new")
        return self.random.choice((("read", path, "new"), ("list", path, "+")))

    def _new_directory(self) -> tuple[str, str, str]:
        self.counter += 1
        path = f"{self.mount.point}/tree/d{self.counter}"
        self.waiter.seen("stat", path, "-")
        self.put(f"/tree/d{self.counter}/deep/f", "x")
        return self.random.choice((("list", f"{path}/deep/f", "+"), ("read", path, "/")))

    def _directory_gone(self) -> tuple[str, str, str]:
        way, path, wanted = self._new_directory()
        self.waiter.seen(way, path, wanted, within=WITHIN)
        self.delete(f"/tree/d{self.counter}/deep/f")
        return "list", f"{self.mount.point}/tree/d{self.counter}", "-"

    # disturbances

    def disturb(self) -> str:
        """One of them, over when this returns; its name."""
        began = time.monotonic()
        disturbance = self.random.choice(self._disturbances)
        disturbance()
        self.owed.disturbed(began)
        self.quiet_since = time.monotonic() + RECOVERY / 2
        return disturbance.__name__.lstrip("_")

    def _cut(self) -> None:
        self.server.rules("EVENTS / drop\n")
        self._changes_meanwhile(self.random.uniform(0.2, 2))
        self.server.rules("")

    def _silence(self) -> None:
        self.server.rules("EVENTS / hang\n")
        self._changes_meanwhile(self.random.uniform(0.2, 3))
        self.server.rules("")

    def _restart(self) -> None:
        self._changes_meanwhile(0)
        how = self.random.choice((signal.SIGTERM, signal.SIGKILL))
        self.server.stop(how)
        time.sleep(self.random.uniform(0, 1))
        self.server.start()

    def _overflow(self) -> None:
        """More events than the server keeps for a reader that does not read."""
        os.kill(self.mount.pid, signal.SIGSTOP)
        try:
            for start in range(0, BURST, 1000):
                self.server.put_many({f"/burst/{n}": f"{self.counter} {start + n:{BULK}}" for n in range(1000)})
            self._changes_meanwhile(0)
        finally:
            os.kill(self.mount.pid, signal.SIGCONT)

    def _changes_meanwhile(self, seconds: float) -> None:
        """Of which the feed does not tell."""
        end = time.monotonic() + seconds
        self._write(50)
        while time.monotonic() < end:
            self._write(self.random.randrange(10, 1000))
            time.sleep(0.05)


def run(follow: Follow, minutes: float, *, calm: bool) -> None:
    """Changes and disturbs until the time is over."""
    end, due = time.monotonic() + minutes * 60, time.monotonic() + EVERY
    while time.monotonic() < end:
        follow.change()
        time.sleep(follow.random.expovariate(1 / 0.03))
        if not calm and time.monotonic() > due:
            print(f"{time.strftime('%H:%M:%S')}  {follow.disturb()}", flush=True)
            due = time.monotonic() + EVERY


def differences(follow: Follow) -> list[str]:
    """Between the tree that the mount shows and the server's, content included."""
    server = {
        f"{hashlib.sha256(follow.server.get(entry.path) or b'').hexdigest()}  .{entry.path.removeprefix('/tree')}"
        for entry in follow.server.tree("/tree")
        if entry.type == "file"
    }
    listed = follow.mount.out("cd $MOUNT/tree && find . -type f -print0 | xargs -0 sha256sum")
    return sorted(server ^ set(listed.splitlines()))


def percentile(values: list[float], share: float) -> str:
    """In milliseconds."""
    ordered = sorted(values)
    return f"{ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000:8.1f}"


def report(calm: list[Change], disturbed: list[Change]) -> None:
    """A table in milliseconds."""
    kinds = {kind: [change for change in calm if change.kind == kind] for kind in sorted({one.kind for one in calm})}
    print(f"{'delay in ms':16}  changes       p50      p99      max")
    for name, changes in {**kinds, "all": calm, "while disturbed": disturbed}.items():
        if changes:
            shares = " ".join(percentile([change.delay for change in changes], share) for share in (0.5, 0.99, 1))
            print(f"{name:16}  {len(changes):7}  {shares}")


def report_slowest(calm: list[Change], log: str) -> None:
    """The slowest undisturbed changes, and by what feed the mount knew of them, as its log says."""
    said = [line.split(None, 1) for line in log.splitlines() if "changes elsewhere: " in line]
    ways = [(datetime.fromisoformat(at).timestamp(), rest.rpartition(" ")[2]) for at, rest in said]
    for change in sorted(calm, key=lambda change: -change.delay)[:SLOWEST]:
        way = next((way for at, way in reversed(ways) if at <= change.at), "?")
        when = datetime.fromtimestamp(change.at, UTC).strftime("%H:%M:%S.%f")
        print(f"slow: {change.delay * 1000:8.1f} ms  {when}  feed {way}  {change.kind} {change.path}")


@contextlib.contextmanager
def watching(follow: Follow, folder: Path, seconds: float) -> Iterator[list[Watcher]]:
    """Three programs that read the same files in different orders."""
    with contextlib.ExitStack() as stack:
        paths = [Path(path) for path in follow.written]
        yield [
            stack.enter_context(
                Watcher(folder, f"watcher{n}", follow.random.sample(paths, len(paths)), seconds=seconds)
            )
            for n in range(3)
        ]


def main() -> int:
    """0 where nothing was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--calm", action="store_true", help="do not disturb the feed")
    asked = parser.parse_args()
    seconds = asked.minutes * 60 + 300
    with (
        tempfile.TemporaryDirectory(prefix="follow-") as temporary,
        serving(Path(temporary) / "relay") as server,
        Mount(Path(temporary), server, "--attr-ttl", "5") as mount,
        Waiter(Path(temporary), seconds=seconds) as waiter,
    ):
        server.put("/tree/there", "there")
        until(lambda: mount.status()["connection"]["feed"] == "live", "the feed is live", 30)
        follow = Follow(server, mount, waiter, asked.seed)
        with watching(follow, Path(temporary), seconds) as watchers:
            run(follow, asked.minutes, calm=asked.calm)
        with contextlib.suppress(AssertionError):
            until(lambda: not differences(follow), "the trees are one", RECOVERY)
        wrong = [line for watcher in watchers for line in judged(watcher.sights, follow.written, follow.owed)]
        wrong += differences(follow)
        report(follow.calm, follow.disturbed)
        report_slowest(follow.calm, mount.out("cat $MOUNT/.relay/log"))
        sights = [sight for watcher in watchers for sight in watcher.sights]
        errors = sum(sight.seen.startswith("!") for sight in sights)
        print(f"reads: {len(sights)}, of them errors: {errors}; wrong: {len(wrong)}", *wrong[:20], sep="\n")
        print(f"counters: {mount.status()['counters']}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
