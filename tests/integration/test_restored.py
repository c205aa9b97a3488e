"""A server that is restored from a backup gives revisions that are known here to other content."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.mount import Mount, until
from tests.support.ops import letters, revision
from tests.support.server import RelayServer, serving

pytestmark = pytest.mark.mount

NAMES = ("changed", "same", "removed", "open")


def worked_with_elsewhere(server: RelayServer, folder: Path, more: int) -> Path:
    """The files of the server as they are now, with what somebody does to a copy of them, and ``more`` files."""
    other = RelayServer(folder)
    folder.mkdir()
    shutil.copytree(server.data, other.data)
    with other:
        for name in NAMES:
            other.put(f"/d/{name}", "mine\n" if name == "same" else "theirs\n")
        for number in range(more):
            other.put(f"/more/{number}", "theirs\n")
    return other.data


@pytest.mark.parametrize("more", [0, 5], ids=["shorter log", "longer log"])
def test_what_is_unsent_meets_other_content_at_its_revision_as_a_conflict(tmp_path: Path, more: int) -> None:
    with serving(tmp_path / "relay") as server:
        server.put_many({f"/d/{name}": "first\n" for name in NAMES})
        server.stop()
        theirs = worked_with_elsewhere(server, tmp_path / "other", more)
    with server, Mount(tmp_path, server, "--settle", "0.1") as mount:
        until(lambda: mount.status()["connection"]["feed"] == "live", "changes are told")
        assert mount.out("ls $MOUNT/d | wc -l; ls $MOUNT") == "4\nd\n"
        # The same revisions as theirs get; one more, so that the restored log ends before the one that is known.
        before = {name: server.put(f"/d/{name}", "mine\n") for name in NAMES}
        server.put("/last", "mine\n")
        # Both directories are known, and nothing but its event has the upper one looked at again.
        until(lambda: mount.out("ls $MOUNT") == "d\nlast\n", "all of them were told")
        writes_late = f"exec 3<>{mount.point}/d/open; cat <&3; read _; echo late >&3"
        with subprocess.Popen(["sh", "-c", writes_late], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
            assert program.stdout is not None
            assert program.stdout.readline() == b"mine\n"
            server.kill()
            until(lambda: mount.status()["health"] == "offline", "it is away")
            mount.sh("cd $MOUNT/d; echo unsent > changed; echo unsent > same; rm removed")
            shutil.rmtree(server.data)
            shutil.copytree(theirs, server.data)
            server.start()
            found = {letter["path"]: letter["reason"] for letter in letters(mount, 2, 30)}
            assert found == {"/d/changed": "conflict", "/d/removed": "conflict"}
            program.communicate(b"\n")
        found = {letter["path"]: letter["reason"] for letter in letters(mount, 3, 30)}
        assert found == dict.fromkeys(("/d/changed", "/d/removed", "/d/open"), "conflict")
        assert [server.get(f"/d/{name}") for name in NAMES] == [b"theirs\n", b"unsent\n", b"theirs\n", b"theirs\n"]
        assert revision(mount, "/d/changed") == before["changed"], "the restored server had to give it again"
