"""A real mount in processes of its own, driven as a user would: with shell commands under a deadline.

The guard knows the device number before anything can hang, so that a wedged mount is aborted through sysfs and never
takes the test run with it. The test process itself never touches a mount point.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.server import RelayServer

FSMOUNT = [sys.executable, "-m", "fsmount"]
DEADLINE = 20.0
"""Seconds for one command that touches a mount."""


class Mount:
    """One mount point with its own state; `start` mounts in the background, `kill` is a crash, `umount` a clean end."""

    def __init__(self, folder: Path, server: RelayServer, *options: str, remote: str = "") -> None:
        self.folder = folder
        self.server = server
        self.remote = remote or server.remote
        self.options = options
        self.point = folder / "mnt"
        self.state = folder / "state-dir"
        self.pid = 0
        self.environment = {
            **os.environ,
            "XDG_STATE_HOME": str(folder / "xdg-state"),
            "XDG_CACHE_HOME": str(folder / "xdg-cache"),
            "XDG_CONFIG_HOME": str(folder / "xdg-config"),
            "MOUNT": str(self.point),
        }
        self._device: int | None = None

    def __enter__(self) -> Self:
        self.point.mkdir(exist_ok=True)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    # life

    def start(self, *more: str) -> str:
        """Mounts; what the command printed."""
        done = self.fsmount(
            "mount", self.remote, str(self.point), "--state-dir", str(self.state),
            "--cache-dir", str(self.folder / "cache"),
            "--token-file", str(self.server.token_file), *self.options, *more,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        self.pid = int(done.stdout.split("pid ")[1].split()[0])
        self._device = int(self.sh("stat -c %d $MOUNT").stdout) & 0xFF
        _count()
        return done.stdout

    def umount(self, *more: str) -> subprocess.CompletedProcess[str]:
        """A clean end."""
        return self.fsmount("umount", str(self.point), *more)

    def kill(self) -> None:
        """`kill -9` of the daemon; the mount point stays dead."""
        os.kill(self.pid, signal.SIGKILL)
        until(lambda: not _alive(self.pid), "the daemon is gone")

    def end(self) -> None:
        """Whatever state it is in: no mount and no daemon is left."""
        if self.pid and _alive(self.pid):
            os.kill(self.pid, signal.SIGTERM)
            with contextlib.suppress(AssertionError):
                until(lambda: not _alive(self.pid), "the daemon ends", 3)
        if self.pid and _alive(self.pid):
            self._abort()
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        subprocess.run(["fusermount3", "-uzq", str(self.point)], capture_output=True, check=False, timeout=DEADLINE)

    def _abort(self) -> None:
        """Frees whoever waits for the daemon; where nobody mounted the control filesystem, as root only."""
        if self._device is not None:
            try:
                Path(f"/sys/fs/fuse/connections/{self._device}/abort").write_text("1")
            except OSError:
                subprocess.run(["umount", "-f", str(self.point)], capture_output=True, check=False, timeout=DEADLINE)

    # commands

    def sh(
        self, command: str, *, check: bool = True, timeout: float = DEADLINE, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """A shell command beside the mount, `$MOUNT` being the mount point; fails the test unless it ends with 0."""
        done = subprocess.run(
            ["timeout", "-s", "KILL", str(timeout), "bash", "-c", command],
            capture_output=True, text=True, check=False, cwd=self.folder, env=self.environment,
            stdin=subprocess.DEVNULL, **more,
        )  # fmt: skip
        if check:
            assert done.returncode == 0, (
                f"{command!r} ended with {done.returncode}\n{done.stdout}{done.stderr}{self.log()[-4000:]}"
            )
        return done

    def out(self, command: str) -> str:
        """What a command printed."""
        return self.sh(command).stdout

    def fsmount(self, *arguments: str, timeout: float = 40.0) -> subprocess.CompletedProcess[str]:
        """The command line, with this mount's state and no terminal."""
        return subprocess.run(
            [*FSMOUNT, *arguments], capture_output=True, text=True, check=False, timeout=timeout, env=self.environment,
            stdin=subprocess.DEVNULL, cwd=self.folder,
        )  # fmt: skip

    # looking

    def status(self) -> dict[str, Any]:
        """`.relay/status.json`."""
        found: dict[str, Any] = json.loads(self.out("cat $MOUNT/.relay/status.json"))
        return found

    def ops(self, directory: str) -> list[dict[str, Any]]:
        """The records in `.relay/DIRECTORY`, oldest first."""
        names = self.out(f"ls $MOUNT/.relay/{directory}").split()
        return [json.loads(self.out(f"cat $MOUNT/.relay/{directory}/{name}")) for name in names]

    def log(self) -> str:
        """The daemon's log, read from the state directory."""
        with contextlib.suppress(OSError):
            return (self.state / "log").read_text(errors="replace")
        return ""

    def delivered(self, seconds: float = 15.0) -> None:
        """Waits with the command that users have; fails the test if anything was not delivered."""
        done = self.fsmount("wait", str(self.point), "--timeout", str(seconds))
        assert done.returncode == 0, f"{done.stdout}{done.stderr}{self.log()[-4000:]}"

    def dead_letter(self, seconds: float = 10.0) -> dict[str, Any]:
        """The only dead letter, waited for."""
        until(lambda: len(self.ops("dead-letter")) > 0, "a dead letter appears", seconds)
        (found,) = self.ops("dead-letter")
        return found


def until(true: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Waits, bounded, until something is true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    """Whether any thread of it is left: the last one closes what the process has open."""
    try:
        ended = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return not ended or len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False


def _count() -> None:
    """Tells `scripts/test` that something was really mounted."""
    counter = os.environ.get("FSMOUNT_TEST_MOUNT_COUNT")
    if counter:
        with open(counter, "a") as lines:
            lines.write("mounted\n")


@pytest.fixture
def mount(tmp_path: Path, relay_server: RelayServer) -> Iterator[Mount]:
    """A mount of the test's own server, with a short settle time."""
    with Mount(tmp_path, relay_server) as mounted:
        yield mounted
