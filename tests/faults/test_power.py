"""fsync means fsync: whatever a power failure leaves of the state directory, what it promised is there.

Real daemons work under strace; then the disks that a power failure may leave are made, a sample of each moment, and
started on. FSMOUNT_POWER_SECONDS and FSMOUNT_POWER_SEED make it look longer and elsewhere.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.survivor import Promises, broken
from tests.support import strace
from tests.support.mount import Mount
from tests.support.power import Disk, Outage
from tests.support.server import RelayServer, serving
from tests.support.strace import Event

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]
SECONDS = float(os.environ.get("FSMOUNT_POWER_SECONDS", "10"))
SEED = int(os.environ.get("FSMOUNT_POWER_SEED", "5"))
PROGRAM = Path(__file__).parents[1] / "support/powered.py"


@dataclass
class Recorded:
    """One run of the program."""

    events: list[Event]
    server: RelayServer
    folder: Path


def record(folder: Path, server: RelayServer, *planted: str) -> list[Event]:
    """Runs the program under strace; ``planted`` is Python that its daemons run before anything else."""
    root, point, log = folder / "root", folder / "mnt", folder / "strace"
    for made in (root, point, folder / "site"):
        made.mkdir()
    (folder / "site/sitecustomize.py").write_text("\n".join(planted))
    server.rules("")
    repository = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{folder / 'site'}:{repository}"}
    traced = ["strace", "-f", "-y", "-xx", "-s", str(strace.LONGEST), "--seccomp-bpf", "-e", f"trace={strace.CALLS}"]
    arguments = [str(root), str(point), server.remote, str(server.token_file), str(server.rules_file)]
    try:
        subprocess.run(
            ["timeout", "-s", "KILL", "45", sys.executable, str(PROGRAM), *arguments, *traced, "-o", str(log)],
            check=True, env=environment, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return strace.read(log, root)
    finally:
        _end(root, point)
        server.rules("")


def _end(root: Path, point: Path) -> None:
    """Also after a run that was cut off: no daemon and no mount is left."""
    with suppress(OSError, ValueError, KeyError):
        os.kill(json.loads((root / "home/state/lock").read_text())["pid"], signal.SIGKILL)
    subprocess.run(["fusermount3", "-uzq", str(point)], capture_output=True, check=False, timeout=20)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    folder = tmp_path_factory.mktemp("power")
    with serving(folder / "relay") as server:
        yield Recorded(record(folder, server), server, folder)


@pytest.fixture
def place() -> Iterator[Path]:
    """In memory, where that can be: the disks that are made are many."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder) / "disk"


def moments(events: Sequence[Event], chance: random.Random) -> list[int]:
    """When it matters whether the power fails: first after each promise, then before and after what decides much."""
    promised = [number + 1 for number, event in enumerate(events) if event.kind == "mark"]
    deciding = [number for number, event in enumerate(events) if event.kind in ("sync", "leave", "move")]
    others = [*deciding, *[number + 1 for number in deciding], len(events)]
    chance.shuffle(promised)
    chance.shuffle(others)
    return promised + others


def first_broken(events: Sequence[Event], remote: str, place: Path, outages: Iterator[Outage]) -> tuple[int, list[str]]:
    """How many disks were started on, and what was wrong with the first bad one."""
    disk, looked = Disk(events), 0
    for outage in outages:
        disk.write(outage, place)
        try:
            wrong = broken(place, Promises.at(events[: outage.at]), remote)
        finally:
            shutil.rmtree(place)
        looked += 1
        if wrong:
            return looked, [str(outage), *wrong]
    return looked, []


def barest(events: Sequence[Event]) -> Iterator[Outage]:
    """After each promise: nothing that was not synced has reached the disk."""
    for at in moments(events, random.Random(SEED)):
        yield Outage(at, frozenset())


@pytest.mark.timeout(SECONDS + 50)
def test_no_power_failure_loses_what_fsync_promised(recorded: Recorded, place: Path) -> None:
    chance, end = random.Random(SEED), time.monotonic() + SECONDS

    def outages() -> Iterator[Outage]:
        disk = Disk(recorded.events)
        for at in moments(recorded.events, chance):
            for outage in disk.outages(at, chance, singles=1, samples=1):
                if time.monotonic() > end:
                    return
                yield outage

    promised = [event for event in recorded.events if b'"only"' in event.content]
    assert len(promised) > 20
    looked, wrong = first_broken(recorded.events, recorded.server.remote, place, outages())
    print(f"{looked} disks, {len(promised)} promises, seed {SEED}")
    assert wrong == []
    assert looked >= 50


@pytest.mark.parametrize(
    "left_out",
    ["journal.db-wal", "spool/drafts", "spool/drafts/", "home/state", "root/home", "home/state/spool", "bodies/"],
)
def test_an_fsync_that_is_left_out_is_found(recorded: Recorded, place: Path, left_out: str) -> None:
    """The replayer can fail: without the fsyncs of that file, directory, or of all in it (``/``), something is lost."""
    inside = left_out.endswith("/")
    events = [
        Event("none") if event.kind == "sync" and _is_at(event.path, left_out.rstrip("/"), inside=inside) else event
        for event in recorded.events
    ]
    assert [event.kind for event in events] != [event.kind for event in recorded.events]
    _, wrong = first_broken(events, recorded.server.remote, place, barest(events))
    assert wrong


def _is_at(path: str, place: str, *, inside: bool) -> bool:
    return f"/{path}/".rpartition(f"/{place}/")[1] != "" if inside else path.endswith(place)


def test_a_daemon_that_does_not_sync_its_journal_is_found(recorded: Recorded, place: Path, tmp_path: Path) -> None:
    planted = (
        "from fsmount.journal.database import Database",
        "Database.flush_to_disk = lambda self: None",
    )
    events = record(tmp_path, recorded.server, *planted)
    _, wrong = first_broken(events, recorded.server.remote, place, barest(events))
    assert any("is lost" in line for line in wrong)


@pytest.mark.parametrize("keeps", [lambda _: (), list], ids=["nothing more", "everything"])
def test_the_command_line_and_a_mount_start_on_what_is_left(
    recorded: Recorded, tmp_path: Path, keeps: Callable[[list[int]], Sequence[int]]
) -> None:
    disk, at = Disk(recorded.events), len(recorded.events)
    disk.write(Outage(at, frozenset(keeps(disk.pending(at)))), tmp_path / "disk")
    mount = Mount(tmp_path, recorded.server, "--settle", "60", "--max-settle", "60", "--drain", "0")
    mount.state, mount.point = tmp_path / "disk/home/state", tmp_path / "mnt"
    mount.point.mkdir()
    listed = mount.fsmount("writeback", "list", "--state-dir", str(mount.state))
    assert listed.returncode == 0, listed.stderr
    assert "/after" in listed.stdout
    try:
        mount.start()
        assert mount.out("cat $MOUNT/.relay/status.json")
    finally:
        mount.end()
