"""Two mounts of one remote, two programs on one file, and a mirror that deletes: nobody's bytes vanish unseen."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mount import Mount, until
from tests.support.ops import letters, paths
from tests.support.server import RelayServer

pytestmark = pytest.mark.mount


@pytest.fixture
def mount(tmp_path: Path, relay_server: RelayServer) -> Iterator[Mount]:
    relay_server.put_many({"/d/f": "old\n", "/d/g": "other\n"})
    (tmp_path / "one").mkdir()
    with Mount(tmp_path / "one", relay_server, "--settle", "0.2", "--timeout", "5") as mounted:
        yield mounted


def test_two_mounts_of_one_remote_with_their_own_state(mount: Mount, tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    with Mount(tmp_path / "two", mount.server, "--settle", "0.2", "--timeout", "5") as other:
        mount.sh("cat $MOUNT/d/f; echo mine > $MOUNT/d/new")
        other.sh("cat $MOUNT/d/f")
        mount.delivered()
        until(lambda: other.sh("cat $MOUNT/d/new", check=False).stdout == "mine\n", "the other one sees it")

        for one in (mount, other):
            one.sh("echo pause > $MOUNT/.relay/ctl")
        mount.sh("echo first > $MOUNT/d/f; echo alone > $MOUNT/d/g")
        other.sh("echo second > $MOUNT/d/f; rm $MOUNT/d/new")
        mount.sh("echo resume > $MOUNT/.relay/ctl")
        mount.delivered()
        other.sh("echo resume > $MOUNT/.relay/ctl")
        (letter,) = letters(other, 1)
        assert (letter["path"], letter["reason"]) == ("/d/f", "conflict")
        versions = other.out(f"cd $MOUNT/.relay/conflict/{letter['opId']} && cat mine theirs")
        assert versions == "second\nfirst\n"
        assert other.out("cat $MOUNT/d/f") == "second\n", "its own bytes are what it goes on showing"
        until(lambda: mount.server.get("/d/new") is None, "what it removed is gone")
        other.sh(f"mv $MOUNT/.relay/dead-letter/{letter['opId']}.json $MOUNT/.relay/force/")
        other.delivered()
        until(lambda: mount.out("cat $MOUNT/d/f") == "second\n", "both show what was decided")
        assert mount.server.files() == {"/d/f": b"second\n", "/d/g": b"alone\n"}


def test_two_programs_append_to_one_file(mount: Mount) -> None:
    """Both have it open for appending: no line of either is lost or torn."""
    line = "for n in $(seq 200); do echo $0 $n; done >> $MOUNT/d/f"
    programs = [subprocess.Popen(["timeout", "-s", "KILL", "20", "bash", "-c", line, name], env=mount.environment)
                for name in ("a", "b")]  # fmt: skip
    assert [program.wait(30) for program in programs] == [0, 0]
    mount.delivered()
    said = (mount.server.get("/d/f") or b"").decode().splitlines()
    assert said[0] == "old"
    assert sorted(said[1:]) == sorted(f"{name} {n}" for name in "ab" for n in range(1, 201))
    assert [entry for entry in said if entry.startswith("a ")] == [f"a {n}" for n in range(1, 201)]


def test_a_mirror_of_nothing_over_the_mount_is_undone(mount: Mount) -> None:
    names = [f"/many/{n}" for n in range(40)]
    mount.server.put_many({name: f"{name}\n" for name in names})
    until(lambda: len(mount.out("ls $MOUNT/many").split()) == 40, "they are seen")
    mount.sh("mkdir nothing && rsync -a --delete nothing/ $MOUNT/many/")
    assert mount.out("ls $MOUNT/many") == ""
    until(lambda: paths(mount, "held") >= set(names), "the brake holds what was deleted")
    assert set(names) <= set(mount.server.files()), "nothing is gone there"
    mount.sh("mv $MOUNT/.relay/held/* $MOUNT/.relay/discarded/")
    assert len(mount.out("cat $MOUNT/many/*").split()) == 40
