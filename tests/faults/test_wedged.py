"""A daemon that was killed and cannot end, because the kernel holds up one of its threads."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsmount.statedir import StateDirectory
from tests.faults.plant import mended, planted
from tests.support.mount import Mount, until
from tests.support.server import RelayServer

pytestmark = pytest.mark.mount


@pytest.fixture
def mount(tmp_path: Path, relay_server: RelayServer) -> Iterator[Mount]:
    relay_server.put("/d/f", "there")
    made = Mount(tmp_path, relay_server, "--timeout", "20")
    planted(made, "tell-at-once")
    with made:
        yield made


def test_the_next_mount_frees_all_that_wait(mount: Mount) -> None:
    holder = StateDirectory(mount.state).holder()
    assert holder is not None
    mount.out("ls $MOUNT")
    mount.server.rules("LIST /d hang\n")
    program = subprocess.Popen(["mkdir", f"{mount.point}/d/x"], stderr=subprocess.PIPE, text=True)
    try:
        # It holds the lock of its directory and waits for the daemon; the daemon waits for the lock to drop a name.
        until(lambda: "request_wait_answer" in Path(f"/proc/{program.pid}/stack").read_text(), "the program waits")
        mount.server.put("/d/g", "elsewhere")
        until(lambda: "fuse_reverse_inval_entry" in stacks(mount.pid), "a thread of the daemon is held up")
        mount.sh(f"kill -9 {mount.pid}")
        until(lambda: holder.ended, "it is a zombie")
        mount.server.rules("")
        mended(mount)
        mount.start()
        _, complaint = program.communicate(timeout=10)
        assert "connect" in complaint, complaint
        assert StateDirectory(mount.state).holder() != holder
        assert mount.out("cat $MOUNT/d/f; ls $MOUNT/d") == "theref\ng\n"
    finally:
        mount._abort()
        program.kill()
        program.communicate()


def stacks(pid: int) -> str:
    """Where the threads of a process stand in the kernel."""
    return "".join(task.joinpath("stack").read_text() for task in Path(f"/proc/{pid}/task").iterdir())
