"""The wall clock of the machine is set by forty years while the daemon runs, that of its remote is not; or it is."""

from __future__ import annotations

import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.mount import Mount, until
from tests.support.ops import ls, refuse
from tests.support.server import RelayServer, serving

pytestmark = [pytest.mark.mount, pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")]
SHIM = Path(__file__).parents[1] / "support/wallclock.c"
YEAR = 365 * 86400


class WallClock:
    """That of every process which has ``environment``; ``set`` moves it, and whatever waits goes on."""

    def __init__(self, folder: Path) -> None:
        self._ahead = folder / "ahead"
        self.set(years=0)
        library = folder / "wallclock.so"
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, SHIM, "-ldl"], check=True)
        self.environment = {"LD_PRELOAD": str(library), "WALLCLOCK_AHEAD": str(self._ahead)}

    def set(self, *, years: int) -> None:
        """So many years ahead of the true time."""
        with self._ahead.open("r+b" if self._ahead.exists() else "wb") as file:
            file.write(struct.pack("=q", years * YEAR))


@pytest.fixture
def wall_clock(tmp_path: Path) -> WallClock:
    return WallClock(tmp_path)


def discarded(mount: Mount) -> str:
    """The op that a person gave up."""
    (letter,) = refuse(mount, "given-up")
    mount.sh(f"mv $MOUNT/.relay/dead-letter/{letter['opId']}.json $MOUNT/.relay/discarded/")
    mount.server.rules("")
    return str(letter["opId"])


@pytest.mark.parametrize("years", [40, -59])
def test_a_jump_under_a_running_daemon(
    tmp_path: Path, relay_server: RelayServer, wall_clock: WallClock, years: int
) -> None:
    relay_server.put("/desk/there", "there\n")
    mount = Mount(tmp_path, relay_server)
    mount.environment |= wall_clock.environment
    with mount:
        given_up = discarded(mount)
        mount.sh("ls $MOUNT/desk")
        relay_server.stop()
        mount.sh("echo before > $MOUNT/desk/before")
        until(lambda: mount.status()["health"] == "offline", "health is offline")
        wall_clock.set(years=years)
        mount.sh("echo after > $MOUNT/desk/after; rm $MOUNT/desk/there")
        relay_server.start()
        mount.delivered()
        assert relay_server.files() == {"/desk/before": b"before\n", "/desk/after": b"after\n"}
        assert abs(float(mount.out("stat -c %Y $MOUNT/desk/after")) - time.time() - years * YEAR) < 60
        assert mount.status()["uptimeSeconds"] < 60
        assert mount.status()["health"] == "ok"
        until(lambda: mount.status()["connection"]["feed"] == "live", "changes elsewhere are followed")
        relay_server.put("/desk/foreign", "foreign\n")
        until(lambda: mount.sh("cat $MOUNT/desk/foreign", check=False).stdout == "foreign\n", "and are seen")
        mount.kill()
        mount.start()
        assert ls(mount, "discarded") == [f"{given_up}.json"]
        wall_clock.set(years=0)
        mount.sh("echo again > $MOUNT/desk/after")
        mount.delivered()
        assert ls(mount, "discarded") == [f"{given_up}.json"]
    assert len(relay_server.requests()) < 100, "nothing is asked again and again"


def test_a_token_that_seems_to_have_run_out_serves_again_when_the_clock_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wall_clock: WallClock
) -> None:
    for name, value in wall_clock.environment.items():
        monkeypatch.setenv(name, value)
    with serving(tmp_path / "relay") as server, Mount(tmp_path, server) as mount:
        mount.sh("ls $MOUNT")
        wall_clock.set(years=40)
        mount.sh("echo mine > $MOUNT/mine")
        until(lambda: mount.status()["health"] == "auth", "health is auth")
        wall_clock.set(years=0)
        mount.delivered()
        assert server.get("/mine") == b"mine\n"
        assert mount.status()["failedWritebacks"] == 0
