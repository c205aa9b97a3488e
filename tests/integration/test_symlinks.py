"""Symbolic links: kept by the mount, never sent, never in the way of the remote's files."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mount import Mount, until
from tests.support.place import Place, place, resting, resting_mount, shared_mount
from tests.support.server import RelayServer

__all__ = ["place", "resting", "resting_mount", "shared_mount"]
pytestmark = pytest.mark.mount


@pytest.fixture
def quick(tmp_path: Path, relay_server: RelayServer) -> Iterator[Mount]:
    """A mount of its own that hardly waits before it sends."""
    relay_server.put("/d/there.txt", "there\n")
    with Mount(tmp_path, relay_server, "--settle", "0.1", "--drain", "0.5") as mounted:
        yield mounted


def test_a_link_is_what_it_says(resting: Place) -> None:
    resting.sh("ln -s there.txt link; ln -s ../nowhere/ä dangling; mkdir d; ln -s d dir; touch d/f")
    assert resting.out("cat link; readlink link dangling; ls dir; stat -c '%F %s %A %h' link dangling") == (
        "there\nthere.txt\n../nowhere/ä\nf\nsymbolic link 9 lrwxrwxrwx 1\nsymbolic link 13 lrwxrwxrwx 1\n"
    )
    assert "link -> there.txt" in resting.out("ls -l")
    assert "No such file" in resting.fails("cat dangling")
    assert "File exists" in resting.fails("ln -s x there.txt")
    assert "File exists" in resting.fails("ln -s x link")
    assert "Invalid argument" in resting.fails("python3 -c 'import os; os.readlink(\"there.txt\")'")
    assert resting.queued() == ["put d/f"]


def test_through_a_link(place: Place) -> None:
    place.sh("ln -s there.txt link; echo more >> link; ln -s target new; echo made > new; rm link")
    place.mount.delivered()
    assert place.remote("there.txt") == b"there\nmore\n"
    assert place.remote("target") == b"made\n"
    assert place.remote("link") is None


def test_attributes_of_the_link_itself(resting: Place) -> None:
    resting.sh("ln -s there.txt link; chown -h 12:34 link; touch -h -d @1000000 link")
    assert resting.out("stat -c '%u %g %Y' link; stat -c '%u %Y' there.txt").splitlines()[0] == "12 34 1000000"
    assert "12 " not in resting.out("stat -c '%u %g' there.txt")


def test_renames_and_removals(resting: Place) -> None:
    resting.sh("ln -s one a; ln -s two b; mkdir d; mv a d/; mv d/a c; mv c b; readlink b")
    assert resting.out("ls; readlink b") == "b\nd\nthere.txt\none\n"
    resting.sh("ln -sf three b; ln -sfn four b; readlink b; echo x > mine; ln -s x l; mv -T l mine; rm b")
    assert resting.out("ls; readlink mine") == "d\nmine\nthere.txt\nx\n"
    assert resting.queued() == []
    resting.sh("echo y > f; mv f mine; cat mine")
    assert resting.queued() == ["put mine"]


def test_a_link_never_replaces_a_remote_file(resting: Place) -> None:
    resting.sh("ln -s x link")
    assert "not permitted" in resting.fails("mv -f link there.txt")
    assert "not permitted" in resting.fails("ln -sf x there.txt")
    assert resting.out("cat there.txt; readlink link") == "there\nx\n"
    assert "rename.refused" in resting.mount.log()
    assert resting.queued() == []
    resting.sh("rm there.txt; mv link there.txt; readlink there.txt")
    assert resting.queued() == ["delete there.txt"]


def test_a_file_of_the_remote_comes_first(place: Place) -> None:
    place.sh("ln -s there.txt name; cat name")
    place.put("name", "the remote's\n")
    until(lambda: place.out("cat name") == "the remote's\n", "the remote's file is shown")
    assert place.out("stat -c %F name") == "regular file\n"
    told = f'"{place.path}/name"'
    until(lambda: told in place.mount.out("cat $MOUNT/.relay/problems"), "the link is told of")
    place.server.http.delete("file", params={"path": f"{place.path}/name"}, headers={"If-Match": "*"})
    until(lambda: place.out("stat -c %F name") == "symbolic link\n", "the link is back")
    until(lambda: told not in place.mount.out("cat $MOUNT/.relay/problems"), "nothing is hidden any more")


def test_they_stay(quick: Mount) -> None:
    quick.sh("cd $MOUNT; ln -s d/there.txt one; ln -s x d/two; chown -h 7:8 d/two")
    quick.kill()
    quick.start()
    quick.sh("cd $MOUNT; mv d e; mv one uno")
    quick.delivered()
    assert quick.umount().returncode == 0
    quick.start()
    assert quick.out("cd $MOUNT; ls; readlink uno e/two; stat -c '%u %g %F' e/two; ls e") == (
        "e\nuno\nd/there.txt\nx\n7 8 symbolic link\nthere.txt\ntwo\n"
    )
    assert quick.server.files() == {"/e/there.txt": b"there\n"}


def test_tools_carry_them(place: Place) -> None:
    place.sh(
        "mkdir -p src/d && cd src && echo x > f && ln -s f link && ln -s ../f d/up && ln -s nowhere dangling &&"
        " cd .. && tar cf $HERE/../../t.tar src && mkdir out && tar xf $HERE/../../t.tar -C out && cp -a src copy"
    )
    look = "cd {}; find . -type l | LC_ALL=C sort | xargs readlink; cat link d/up"
    first = place.out(look.format("src"))
    assert first == "../f\nnowhere\nf\nx\nx\n"
    assert place.out(look.format("out/src")) == place.out(look.format("copy")) == first
    place.sh(
        "cd src && export GIT_CONFIG_GLOBAL=/dev/null && git init -q . && git add -A &&"
        " git -c user.name=a -c user.email=a@example.com commit -qm first && git status --porcelain &&"
        " rm link && git checkout -q -- link && readlink link"
    )
