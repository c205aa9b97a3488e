"""A mount that starts again: without its remote, and with one that is not the old one."""

from __future__ import annotations

import shutil

import pytest

from tests.support.mount import Mount, until

pytestmark = pytest.mark.mount


def test_a_server_set_up_anew_is_not_taken_for_the_old_one(mount: Mount) -> None:
    """Its revisions begin again: what was cached of the old server is not shown for the new one's."""
    mount.sh("mkdir $MOUNT/desk; echo old-server > $MOUNT/desk/again.txt; cat $MOUNT/desk/again.txt")
    mount.delivered()
    old = mount.server.file("/desk/again.txt")
    assert old is not None
    assert mount.umount().returncode == 0
    mount.server.stop()
    shutil.rmtree(mount.server.data)
    mount.server.start()
    for _ in range(20):
        if mount.server.put("/desk/again.txt", "from the new\n") == old.revision:
            break
    else:
        raise AssertionError("the new server never got to the old revision")
    mount.start()
    assert mount.out("cat $MOUNT/desk/again.txt") == "from the new\n"


def test_a_list_that_is_not_whole_is_not_passed_off_as_one(mount: Mount) -> None:
    mount.sh("mkdir $MOUNT/here; echo x > $MOUNT/here/f")
    mount.delivered()
    assert mount.umount().returncode == 0
    mount.server.stop()
    mount.start()
    until(lambda: mount.status()["health"] == "offline", "the mount knows that it is offline")
    done = mount.sh("ls -a $MOUNT", check=False)
    assert (done.returncode, ".relay" in done.stdout.split()) == (2, True)
    assert "No route to host" in done.stderr
