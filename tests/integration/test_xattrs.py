"""Extended attributes: those of programs, and ``user.relay.*``, which tell how a file stands."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mount import Mount, until
from tests.support.ops import letters
from tests.support.place import Place, place, resting, resting_mount, shared_mount
from tests.support.server import RelayServer, serving

__all__ = ["place", "resting", "resting_mount", "shared_mount"]
pytestmark = pytest.mark.mount

ATTEMPTS = """
def attempt(what, *arguments):
    try:
        print(what(*arguments))
    except OSError as error:
        print(errno.errorcode[error.errno])
"""


@pytest.fixture
def quick(tmp_path: Path, relay_server: RelayServer) -> Iterator[Mount]:
    """A mount of its own that hardly waits before it sends."""
    relay_server.put("/d/f", "theirs\n")
    with Mount(tmp_path, relay_server, "--settle", "0.1", "--drain", "0.5") as mounted:
        yield mounted


def relay(place: Place, name: str, attribute: str) -> str:
    """One of our attributes; empty where it has no value."""
    return place.sh(f"getfattr -h --only-values -n user.relay.{attribute} {name}", check=False).stdout


def test_what_programs_set(resting: Place) -> None:
    said = resting.python(
        ATTEMPTS
        + """
os.mkdir("d")
os.symlink("there.txt", "link")
for name in ("there.txt", "d"):
    attempt(os.setxattr, name, "user.key", b"value")
    attempt(os.setxattr, name, "user.\\u00e4", b"\\0\\xff" * 1000)
    attempt(os.getxattr, name, "user.key")
    attempt(lambda: len(os.getxattr(name, "user.\\u00e4")))
    attempt(os.setxattr, name, "user.key", b"")
    attempt(os.getxattr, name, "user.key")
    attempt(lambda: [key for key in os.listxattr(name) if not key.startswith("user.relay.")])
    attempt(os.removexattr, name, "user.key")
    attempt(os.removexattr, name, "user.key")
    attempt(os.getxattr, name, "user.key")
attempt(os.setxattr, "there.txt", "user.big", b"x" * 65536)
attempt(lambda: len(os.getxattr("there.txt", "user.big")))
attempt(os.setxattr, "there.txt", "user.big", b"x" * 65537)
attempt(lambda: os.setxattr("link", "trusted.key", b"of the link", follow_symlinks=False))
attempt(lambda: os.getxattr("link", "trusted.key", follow_symlinks=False))
        """
    ).splitlines()
    once = ["None", "None", "b'value'", "2000", "None", "b''", "['user.key', 'user.ä']", "None", "ENODATA", "ENODATA"]
    assert said == [*once, *once, "None", "65536", "E2BIG", "None", "b'of the link'"]
    assert resting.queued() == []


def test_name_spaces_of_the_kernel(resting: Place) -> None:
    said = resting.python(
        ATTEMPTS
        + """
attempt(os.setxattr, "there.txt", "security.capability", b"x")
attempt(os.getxattr, "there.txt", "security.capability")
attempt(os.setxattr, "there.txt", "system.posix_acl_access", b"x")
attempt(os.getxattr, "there.txt", "system.posix_acl_access")
        """
    ).split()
    assert said[1] == "ENODATA"
    assert said[0] in {"ENOTSUP", "EINVAL"}
    assert said[2] in {"ENOTSUP", "EINVAL"}
    assert said[3] in {"ENOTSUP", "ENODATA"}
    resting.sh("cp -a there.txt copy; sed -i s/there/here/ copy; [ $(cat copy) = here ]; rsync -a there.txt synced")


def test_they_follow_renames(resting: Place) -> None:
    resting.sh("echo x > f; setfattr -n user.k -v v f; mv f g; mv g g~; mv g~ h; mkdir d; mv h d/i; mv d e")
    assert resting.out("getfattr --only-values -n user.k e/i") == "v"
    resting.sh("echo y > plain; mv plain e/i")
    assert "No such attribute" in resting.fails("getfattr -n user.k e/i")
    resting.sh("setfattr -n user.k -v theirs there.txt; mv there.txt elsewhere; echo z > target")
    resting.sh("setfattr -n user.other -v o target; mv elsewhere target")
    assert resting.out("getfattr --only-values -n user.k target") == "theirs"
    assert "No such attribute" in resting.fails("getfattr -n user.other target")
    resting.sh("rm target; echo new > target")
    assert "No such attribute" in resting.fails("getfattr -n user.k target")


def test_an_open_file_without_a_name(resting: Place) -> None:
    said = resting.python(
        ATTEMPTS
        + """
file = os.open("f", os.O_CREAT | os.O_RDWR)
attempt(os.setxattr, file, "user.k", b"v")
attempt(os.getxattr, file, "user.k")
os.unlink("f")
attempt(os.getxattr, file, "user.k")
attempt(os.listxattr, file)
attempt(os.setxattr, file, "user.k", b"v")
        """
    )
    assert said.split() == ["None", "b'v'", "ENODATA", "[]", "ENOENT"]


def test_they_stay(quick: Mount) -> None:
    quick.sh("cd $MOUNT; setfattr -n user.k -v v d/f d; echo x > d/new; setfattr -n user.k -v n d/new")
    quick.kill()
    quick.start()
    quick.delivered()
    look = "cd $MOUNT; for f in d d/f d/new; do getfattr --only-values -n user.k $f; echo; done"
    assert quick.out(look) == "v\nv\nn\n"
    assert quick.umount().returncode == 0
    quick.start()
    assert quick.out(look) == "v\nv\nn\n"


# ours


def test_states_of_a_file(place: Place) -> None:
    place.sh("echo x > litter~; mkdir made")
    assert [relay(place, name, "state") for name in ("there.txt", ".", "litter~", "made")] == [
        "clean", "clean", "local", "local",
    ]  # fmt: skip
    said = place.python(
        """
        file = os.open("f", os.O_CREAT | os.O_RDWR)
        os.write(file, b"x")
        print(os.getxattr("f", "user.relay.state"))
        os.fsync(file)
        print(os.getxattr("f", "user.relay.state"), os.getxattr("f", "user.relay.op")[:3])
        """
    )
    assert said == "b'draft'\nb'pending' b'op_'\n"
    place.mount.delivered()
    assert relay(place, "f", "state") == "clean"
    assert relay(place, "f", "op") == ""
    revision = place.server.file(f"{place.path}/f")
    assert revision is not None
    assert relay(place, "f", "revision") == relay(place, "f", "base") == revision.revision
    assert relay(place, "f", "stale") == "0"


def test_a_state_while_sending_and_after(quick: Mount) -> None:
    quick.server.rules("PUT /d/f delay=1s times=1\nPUT /d/f 422\n")
    state = "getfattr --only-values -n user.relay.state $MOUNT/d/f"
    quick.sh("echo mine > $MOUNT/d/f")
    until(lambda: quick.out(state) == "sending", "it is being sent")
    quick.delivered()
    quick.sh("echo again > $MOUNT/d/f")
    until(lambda: quick.out(state) == "dead-letter", "it is a dead letter")
    (letter,) = letters(quick, 1)
    assert quick.out("getfattr --only-values -n user.relay.op $MOUNT/d/f") == letter["opId"]


def test_a_conflict_is_settled_by_a_merge(quick: Mount) -> None:
    quick.sh("echo mine > $MOUNT/d/f")
    theirs = quick.server.put("/d/f", "theirs again\n")
    state = "getfattr --only-values -n user.relay.state $MOUNT/d/f"
    until(lambda: quick.out(state) == "conflict", "the conflict is seen")
    done = quick.sh("setfattr -n user.relay.base -v mine $MOUNT/d/f", check=False)
    assert "Invalid argument" in done.stderr
    quick.sh("setfattr -n user.relay.base -v theirs $MOUNT/d/f")
    assert quick.out("getfattr --only-values -n user.relay.base $MOUNT/d/f") == theirs
    quick.sh("echo merged > $MOUNT/d/f")
    quick.delivered()
    assert quick.server.get("/d/f") == b"merged\n"
    assert quick.out(state) == "clean"
    done = quick.sh("setfattr -n user.relay.base -v theirs $MOUNT/d/f", check=False)
    assert "Invalid argument" in done.stderr


def test_a_held_delete_has_no_file_to_look_at(tmp_path: Path) -> None:
    with serving(tmp_path / "relay") as server:
        server.put_many({f"/d/{n:02}": "x" for n in range(30)})
        with Mount(tmp_path, server, "--settle", "0.1", "--drain", "0") as mount:
            mount.sh("rm -r $MOUNT/d")
            until(lambda: mount.status()["queue"]["held"] == 31, "the files and their directory are held")
            assert mount.out("ls $MOUNT") == ""
            # A save over a held delete replaces it, and the brake has no say in it.
            mount.sh("mkdir $MOUNT/d; echo again > $MOUNT/d/07")
            until(lambda: server.get("/d/07") == b"again\n", "the save arrives")
            assert mount.status()["queue"]["held"] == 29
            mount.sh("mv $MOUNT/.relay/held/* $MOUNT/.relay/discarded/")
            assert len(mount.out("ls $MOUNT/d").split()) == 30
            assert len(server.files()) == 30


def test_a_content_type(place: Place) -> None:
    place.sh("echo '{}' > f; setfattr -n user.relay.content_type -v application/vnd.x+json f")
    place.mount.delivered()
    file = place.server.file(f"{place.path}/f")
    assert file is not None
    assert file.content_type == "application/vnd.x+json"
    place.sh("echo '[]' > f")
    place.mount.delivered()
    file = place.server.file(f"{place.path}/f")
    assert file is not None
    assert (file.content, file.content_type) == ("[]\n", "application/vnd.x+json")
    assert relay(place, "f", "content_type") == "application/vnd.x+json"
    for wrong in ("nonsense", "a/b\\nX: y", "", "ä/b"):
        assert "Invalid argument" in place.fails(f"setfattr -n user.relay.content_type -v $'{wrong}' f"), wrong
    place.sh("setfattr -x user.relay.content_type f")


def test_those_that_only_tell_are_not_copied(resting: Place) -> None:
    resting.sh("echo x > f; setfattr -n user.relay.content_type -v text/x f")
    listed = re.findall(r"^(user\.relay\.\w+)=", resting.out("getfattr -d -m- f"), re.MULTILINE)
    assert listed == ["user.relay.content_type"]
    assert resting.out("getfattr -d -m- there.txt") == ""
    for name in ("state", "op", "revision", "stale", "new"):
        assert "not permitted" in resting.fails(f"setfattr -n user.relay.{name} -v x there.txt"), name
        assert "not permitted" in resting.fails(f"setfattr -x user.relay.{name} there.txt"), name
    assert "not permitted" in resting.fails("setfattr -n user.k -v x $MOUNT/.relay/status")
    assert resting.out("getfattr -d $MOUNT/.relay/status") == ""
    resting.sh("rsync -aX f copy; rsync -aX there.txt copy2")
    assert resting.out("getfattr --only-values -n user.relay.content_type copy") == "text/x"


def test_stale_while_offline(tmp_path: Path) -> None:
    with serving(tmp_path / "relay") as server:
        server.put("/d/f", "theirs\n")
        with Mount(tmp_path, server, "--timeout", "3") as mount:
            stale = "getfattr --only-values -n user.relay.stale $MOUNT/d/f"
            mount.sh("cat $MOUNT/d/f")
            assert mount.out(stale) == "0"
            server.stop()
            until(lambda: mount.status()["connection"]["state"] == "offline", "it is offline")
            until(lambda: int(mount.out(stale)) > 0, "time passes")
            server.start()
            until(lambda: mount.out(stale) == "0", "it is back")
