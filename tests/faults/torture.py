"""A real mount of the real server under writers, kills and faults; then the audit.

    scripts/torture [--minutes N] [--seed S] [--writers N] [--plant skip-journal] [--keep DIR]

Several programs write into the mount and note outside of it what they were told. Meanwhile the daemon is killed with
SIGKILL and mounted again, also while it recovers, the server fails by ever other rules, and is killed and started too.
At the end everything that was promised must be on the server or in the journal, byte for byte. Ends with 1 when
anything is missing and names it. ``--plant`` breaks the daemon on purpose: the audit must find that out.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from fsmount.statedir import StateDirectory
from tests.faults.audit import Told, held, missing, told
from tests.faults.plant import PLANTS, planted
from tests.support.mount import FSMOUNT, Mount, until
from tests.support.server import RelayServer
from tests.support.stem import ROOT

FAULTS = {
    "calm": "",
    "503": "* /** 503",
    "some 503": "PUT /** 503 times=7",
    "500": "PUT /** 500 times=5",
    "429": "* /** 429 retry-after=1 times=3",
    "drop": "PUT /** drop times=9\nDELETE /** drop times=9",
    "drop all": "* /** drop",
    "refuse": "* /** refuse",
    "hang": "PUT /** hang times=2\nDELETE /** hang times=2",
    "hang reads": "LIST /** hang times=2\nGET /** hang times=2",
    "delay": "* /** delay=300ms",
    "truncate": "* /** truncate times=9",
    "slow": "* /** slow=2000/s",
    "422 for some": 'PUT /w0/*7 422 {"code":"schema_violation","message":"no sevens"}',
    "403 for some": "PUT /w1/** 403 times=20",
    "413 for some": "PUT /w2/*3 413",
    "401": "* /** 401",
}
RULES = (0.5, 2.5)
"""Seconds for which a rule is in force, at least and at most."""
KILLS = (0.1, 1.8)
"""Seconds between the moment that a mount answers and its end."""
SERVER = (8.0, 30.0)
DRAIN = 90.0


class Torture:
    """One run in ``folder``. ``seen`` counts what happened."""

    def __init__(self, folder: Path, server: RelayServer, seed: int, writers: int, plant: str | None) -> None:
        self.folder = folder
        self.server = server
        self.random = random.Random(seed)
        self.seed = seed
        self.names = [f"w{number}" for number in range(writers)]
        self.mount = Mount(
            folder, server, "--timeout", "3", "--settle", "0.2", "--attr-ttl", "1", "--max-attempts", "4"
        )
        self.mount.point = folder / "covered" / "mnt"
        self.mount.environment |= {"MOUNT": str(self.mount.point), "PYTHONPATH": str(ROOT)}
        if plant is not None:
            planted(self.mount, plant)
        self.seen: Counter[str] = Counter()
        self.starts: list[float] = []
        self.stuck: set[int] = set()
        self.writers: list[subprocess.Popen[bytes]] = []

    def run(self, seconds: float) -> None:
        self._start()
        for name in self.names:
            self.writers.append(self._writer(name))
        try:
            self._trouble(time.monotonic() + seconds)
        finally:
            for writer in self.writers:
                writer.terminate()
            self.server.rules("")
            if self.server._process is None:
                self.server.start()
            self._start()
            for writer in self.writers:
                writer.wait(60)

    def _writer(self, name: str) -> subprocess.Popen[bytes]:
        device = os.stat(self.mount.point.parent).st_dev
        return subprocess.Popen(
            [sys.executable, "-m", "tests.faults.writer", f"{self.mount.point}/{name}", f"{self.folder}/{name}.log",
             str(self.seed), str(device)], cwd=ROOT, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    # trouble

    def _trouble(self, end: float) -> None:
        acts = {self._kill: KILLS, self._rules: RULES, self._restart_server: SERVER}
        due = {act: time.monotonic() + self.random.uniform(*every) for act, every in acts.items()}
        while time.monotonic() < end:
            act = min(due, key=lambda each: due[each])
            time.sleep(max(0.0, due[act] - time.monotonic()))
            act()
            due[act] = time.monotonic() + self.random.uniform(*acts[act])

    def _rules(self) -> None:
        kind = self.random.choice(list(FAULTS))
        self.server.rules(FAULTS[kind] + "\n")
        self.seen[f"rule {kind}"] += 1

    def _restart_server(self) -> None:
        how = self.random.choice([signal.SIGTERM, signal.SIGKILL])
        self.server.stop(how)
        time.sleep(self.random.uniform(0.0, 1.0))
        self.server.start()
        self.seen[f"server {how.name}"] += 1

    def _kill(self) -> None:
        self._sigkill(self.mount.pid)
        if self.random.random() < 0.25:
            self._kill_while_it_starts()
        self._start()

    def _sigkill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self.seen["kills"] += 1
        until(lambda: self._holder() != pid, "the daemon is gone")

    def _kill_while_it_starts(self) -> None:
        starting = subprocess.Popen(
            [*FSMOUNT, *self._mounting()], env=self.mount.environment, cwd=self.folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        # From the first line of its Python to the moment when it answers.
        time.sleep(self.random.uniform(0.2, 1.2))
        pid = self._holder()
        if pid:
            self._sigkill(pid)
            self.seen["kills while starting"] += 1
        starting.wait(30)

    def _holder(self) -> int:
        """The pid of the daemon that has the state directory; 0 if none has it, or did not say so yet.

        One that was killed and cannot end is left to the next mount, and counted.
        """
        holder = StateDirectory(self.mount.state).holder()
        if holder is not None and holder.ended:
            self.stuck.add(holder.pid)
            return 0
        return 0 if holder is None else holder.pid

    def _mounting(self) -> Sequence[str]:
        mount = self.mount
        return ("mount", mount.remote, str(mount.point), "--state-dir", str(mount.state), "--cache-dir",
                str(mount.folder / "cache"), "--token-file", str(self.server.token_file), *mount.options)  # fmt: skip

    def _start(self) -> None:
        """Mounts, if nothing is; how long it took is noted."""
        self.mount.pid = self._holder()
        if self.mount.pid:
            return
        began = time.monotonic()
        self.mount.start()
        self.starts.append(time.monotonic() - began)

    # the end

    def audit(self) -> list[str]:
        """Everything that can be delivered is; then what is missing."""
        # A daemon that has just begun asks for the credential anew.
        self.mount.umount("--drain", "0", "--lazy")
        self._wait_for_end()
        self._start()
        # What the rules refused may have slowed the uploads to one a minute.
        (self.mount.point / ".relay" / "ctl").write_text("resume\n")
        waited = self.mount.fsmount("wait", str(self.mount.point), "--timeout", str(DRAIN), timeout=DRAIN + 30)
        lines = [] if waited.returncode in (0, 1) else [f"not delivered within {DRAIN:.0f} s: {waited.stderr.strip()}"]
        self.mount.umount()
        self._wait_for_end()
        files, kept = self.server.files(), held(self.mount.state)
        self.seen.update({f"ops {state}": number for state, number in kept.states.items()})
        for name in self.names:
            found = self._told(name)
            self.seen["acknowledged writes"] += found.acknowledged
            self.seen["failed writes"] += found.failed
            self.seen["names"] += len(found.names)
            self.seen["names that an error left open"] += sum(known.free for known in found.names.values())
            lines += missing(f"/{name}", found, files, kept)
        return lines

    def _told(self, name: str) -> Told:
        return told((self.folder / f"{name}.log").read_text().splitlines())

    def _wait_for_end(self) -> None:
        until(lambda: self._holder() == 0, "the daemon ends", 30)

    def report(self) -> str:
        counts = "\n".join(f"  {number:7} {what}" for what, number in sorted(self.seen.items()))
        starts = sorted(self.starts)
        counts += f"\n  {len(self.stuck):7} killed daemons seen while they ended or could not"
        return (
            f"seed {self.seed}\n{counts}\n  {len(starts):7} mounts, ready after {statistics.median(starts):.2f} s"
            f" (median), {starts[-1]:.2f} s (longest)"
        )


@contextlib.contextmanager
def covered(folder: Path) -> Iterator[None]:
    """A mount point in a read-only directory, so that nothing lands beneath the mount; root alone can make one.

    Another user's writers see by the device number that nothing is mounted, and take back what they made.
    """
    (folder / "covered" / "mnt").mkdir(parents=True)
    if os.geteuid() != 0:
        yield
        return
    place = str(folder / "covered")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "torture", place], check=True)
    try:
        (folder / "covered" / "mnt").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=False)


def tortured(
    folder: Path, seconds: float, seed: int, writers: int = 4, plant: str | None = None
) -> tuple[list[str], Counter[str]]:
    """One run; what is missing after it, and what happened, which is printed too."""
    with covered(folder), RelayServer(_made(folder / "relay")) as server:
        run = Torture(folder, server, seed, writers, plant)
        try:
            run.run(seconds)
            lost = run.audit()
        finally:
            run.mount.end()
            for writer in run.writers:
                writer.kill()
    print(run.report())
    return lost, run.seen


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[2], prog="scripts/torture")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--plant", choices=sorted(PLANTS), help="break the daemon on purpose")
    parser.add_argument("--keep", action="store_true", help="keep logs and state for a look")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fsmount-torture-"))
    print(f"seed {asked.seed}, in {folder}", flush=True)
    lost, _ = tortured(folder, asked.minutes * 60, asked.seed, asked.writers, asked.plant)
    for line in lost:
        print(f"LOST {line}")
    if not lost and not asked.keep:
        subprocess.run(["rm", "-rf", str(folder)], check=False)
    print("torture: FAILED" if lost else "torture: nothing is lost")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
