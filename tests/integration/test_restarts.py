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
    shutil.rmtree(mount.folder / "cache")
    mount.start()
    until(lambda: mount.status()["health"] == "offline", "the mount knows that it is offline")
    done = mount.sh("ls -a $MOUNT", check=False)
    assert (done.returncode, ".relay" in done.stdout.split()) == (2, True)
    assert "No route to host" in done.stderr


def test_a_mount_that_starts_offline_shows_what_it_knew_and_says_how_old_it_is(mount: Mount) -> None:
    mount.server.put_many({"/here/a": "cached\n", "/there/b": "never read\n", "/unseen/x": "x"})
    mount.sh("cat $MOUNT/here/a; ls $MOUNT $MOUNT/here $MOUNT/there")
    assert mount.umount().returncode == 0
    mount.server.stop()
    mount.start()
    until(lambda: mount.status()["health"] == "offline", "the mount knows that it is offline")
    shown = mount.out("cd $MOUNT; ls -A; ls here; ls there; cat here/a")
    assert shown == ".relay\nhere\nthere\nunseen\na\nb\ncached\n"
    assert int(mount.out("getfattr --only-values -n user.relay.stale $MOUNT/here/a")) >= 1
    if mount.server.extensions:  # where sizes cost content, what is near is here too
        assert "No route to host" in mount.sh("cat $MOUNT/there/b", check=False).stderr
    assert "No route to host" in mount.sh("ls $MOUNT/unseen", check=False).stderr
    mount.sh("echo mine > $MOUNT/here/a; echo new > $MOUNT/here/new; rm $MOUNT/there/b")
    mount.kill()
    mount.start()
    assert mount.out("ls $MOUNT/here; cat $MOUNT/here/a") == "a\nnew\nmine\n"
    mount.server.start()
    mount.delivered()
    assert mount.server.files() == {"/here/a": b"mine\n", "/here/new": b"new\n", "/unseen/x": b"x"}
