"""The tour, as the first thing that anybody runs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fsmount.mounttable import mounts
from tests.support.mount import until

pytestmark = pytest.mark.mount


def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(tmp_path), "HOME": str(tmp_path)}


def left_behind(tmp_path: Path) -> list[str]:
    return [*map(str, tmp_path.iterdir()), *(line.mountpoint for line in mounts() if str(tmp_path) in line.mountpoint)]


def test_it_shows_everything_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fsmount", "try"], env=environment(tmp_path), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=55, check=False, start_new_session=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    for shown in (
        "$ fsmount mount relayfile+http://",
        "$ mv .relay/dead-letter/*.json .relay/retry/",
        '"lastStatus": 422',
    ):
        assert shown in done.stdout
    assert left_behind(tmp_path) == []


def test_kept_it_stays_until_it_is_told(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with out.open("w") as writer, subprocess.Popen(
        [sys.executable, "-m", "fsmount", "try", "--keep"], env=environment(tmp_path), stdin=subprocess.DEVNULL,
        stdout=writer, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        until(lambda: "stays until Ctrl-C" in out.read_text() or process.poll() is not None, "it never came", 50)
        (mount,) = [line.mountpoint for line in mounts() if str(tmp_path) in line.mountpoint]
        listed = subprocess.run(
            ["timeout", "10", "ls", f"{mount}/github/issues"], capture_output=True, text=True, check=True
        )
        assert "8.json" in listed.stdout
        process.send_signal(signal.SIGINT)
        assert process.wait(40) == 0, out.read_text()
    out.unlink()
    assert left_behind(tmp_path) == []
