"""Trees and names that no local filesystem can hold: they are told of, and harm nobody beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mount import Mount, until
from tests.support.server import RelayServer, serving

LONG = "x" * 256
UNSHOWABLE = (
    f"/d/{LONG}", "/d/.", "/d/..", "/d/../up", "/d/nul\0name", "/d//double", "/d/blank ", "/d/line\n", "//root",
    f"/d/{LONG}/below",
)  # fmt: skip
"""Every path of which some name cannot stand in a local directory."""
SHOWN = ("/d/ok", "/d/Case", "/d/case", "/d/.relay", "/d/.relayfile.acl", "/d/sub/deep", "/.relayfile.acl")
RESERVED = "/.relay/theirs"


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    folder: Path = tmp_path_factory.mktemp("odd")
    with serving(folder / "relay") as server:
        server.put_many({path: path for path in (*UNSHOWABLE, *SHOWN, RESERVED)})
        with Mount(folder, server) as mount:
            yield mount


def problems(mount: Mount) -> dict[str, str | None]:
    """What ``.relay/problems`` tells, and under what name each is shown."""
    lines = mount.out("cat $MOUNT/.relay/problems").splitlines()
    return {problem["path"]: problem["shownAs"] for problem in map(json.loads, lines)}


def names(mount: Mount) -> list[str]:
    return mount.out("cd $MOUNT && find . -path ./.relay -prune -o -type f -print | sort").split()


def put(server: RelayServer, path: str, content: str) -> None:
    server.put_many({path: content})


def test_what_can_be_shown_is_shown(odd: Mount) -> None:
    assert names(odd) == sorted(f".{path}" for path in SHOWN)
    for path in SHOWN:
        assert odd.out(f"cat $MOUNT{path}") == path
    assert "ok" in odd.out("ls -la $MOUNT $MOUNT/d; stat $MOUNT/d/*")


def test_what_cannot_is_told(odd: Mount) -> None:
    names(odd)
    told = problems(odd)
    for name in (f"/d/{LONG}", "/d/.", "/d/..", "/d/nul\0name", "/d/blank ", "/d/line\n"):
        assert told[name] is None, name
    assert {"/d/", "//root"} <= set(told)
    assert told["/.relay"] is None


def test_relay_is_the_mounts_own(odd: Mount) -> None:
    assert odd.out("ls -a $MOUNT | grep -c '^\\.relay$'") == "1\n"
    assert "status.json" in odd.out("ls $MOUNT/.relay")
    assert odd.sh("cat $MOUNT/.relay/theirs", check=False).returncode == 1


@pytest.mark.parametrize("path", [*UNSHOWABLE, RESERVED])
def test_events_about_them_harm_nobody(odd: Mount, path: str) -> None:
    odd.out("ls -lR $MOUNT/d")
    put(odd.server, path, "again")
    put(odd.server, "/d/ok", f"after {len(path)}")
    until(lambda: odd.out("cat $MOUNT/d/ok") == f"after {len(path)}", "its neighbour is followed")
    assert len(names(odd)) == len(SHOWN)
    assert odd.status()["health"] == "ok"
    assert "Traceback" not in odd.log()
    put(odd.server, "/d/ok", "/d/ok")
    until(lambda: odd.out("cat $MOUNT/d/ok") == "/d/ok", "and back")


def test_a_file_hides_a_directory_until_it_goes(odd: Mount) -> None:
    put(odd.server, "/d/both/inside", "inside")
    until(lambda: odd.sh("cat $MOUNT/d/both/inside", check=False).stdout == "inside", "the directory is there")
    held = odd.sh("cd $MOUNT/d/both && exec 3<inside && cat <&3")
    assert held.stdout == "inside"
    put(odd.server, "/d/both", "file")
    until(lambda: odd.sh("cat $MOUNT/d/both", check=False).stdout == "file", "the file is shown")
    put(odd.server, "/d/both/inside", "changed")
    put(odd.server, "/d/both/more", "more")
    until(lambda: problems(odd).get("/d/both") == "/d/both", "what is hidden is told")
    odd.sh("echo mine > $MOUNT/d/both")
    odd.delivered()
    assert odd.server.get("/d/both") == b"mine\n"
    odd.server.delete("/d/both")
    until(lambda: odd.sh("cat $MOUNT/d/both/*", check=False).stdout == "changedmore", "the directory is back")
    until(lambda: "/d/both" not in problems(odd), "nothing is hidden there")
    odd.sh("rm -r $MOUNT/d/both")
    odd.delivered()
    assert odd.server.get("/d/both/inside") is None


def test_a_directory_that_holds_what_is_hidden_is_not_removed(odd: Mount) -> None:
    put(odd.server, f"/held/{LONG}", "hidden")
    put(odd.server, "/held/shown", "shown")
    until(lambda: odd.sh("cat $MOUNT/held/shown", check=False).stdout == "shown", "it is there")
    odd.sh("rm -r $MOUNT/held")
    assert odd.dead_letter()["reason"] == "not-empty"
    assert odd.server.get(f"/held/{LONG}") == b"hidden"
    odd.sh("mv $MOUNT/.relay/dead-letter/* $MOUNT/.relay/discarded/")
