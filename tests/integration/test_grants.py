"""What the credential may and may not: a program hears of it at once where the token says so itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.mount import Mount, until
from tests.support.server import RelayServer, serving


@contextmanager
def granted(folder: Path, *scopes: str) -> Iterator[Mount]:
    """A mount whose token has these grants."""
    with serving(folder / "relay") as server:
        server.put_many({"/mine/a": "a", "/theirs/b": "b"})
        grant(server, folder, *scopes)
        with Mount(folder, server) as mount:
            yield mount


def grant(server: RelayServer, folder: Path, *scopes: str) -> None:
    server.token_file = folder / "token"
    server.token_file.write_text(server.sign(scopes=list(scopes)))
    server.token_file.chmod(0o600)


def said(mount: Mount, command: str) -> str:
    """What a command that has to fail complained of."""
    done = mount.sh(f"cd $MOUNT && {command}", check=False)
    assert done.returncode, f"{command!r} ended with 0"
    return done.stderr


def test_a_token_without_writing_is_a_read_only_filesystem(tmp_path: Path) -> None:
    with granted(tmp_path, "fs:read") as mount:
        for command in (
            "echo x > mine/a",
            "echo x > new",
            "rm mine/a",
            "mkdir d",
            "mv mine/a mine/c",
            "truncate -s 0 mine/a",
        ):
            assert "Read-only file system" in said(mount, command), command
        assert mount.out("cat $MOUNT/mine/a $MOUNT/theirs/b") == "ab"
        assert mount.status()["health"] == "ok"
        assert mount.status()["writes"] == {"allowed": "nowhere", "places": [], "because": "credential"}
        assert "nothing can be written (Read-only file system)" in mount.out("cat $MOUNT/.relay/status")
        grant(mount.server, tmp_path, "fs:read", "fs:write")
        os.kill(mount.pid, signal.SIGHUP)
        until(lambda: mount.sh("echo x > $MOUNT/mine/a", check=False).returncode == 0, "another credential lifts it")
        mount.delivered()
        assert mount.server.get("/mine/a") == b"x\n"
        assert "can be written" not in mount.out("cat $MOUNT/.relay/status")


def test_a_token_for_a_part_of_the_tree_writes_there_only(tmp_path: Path) -> None:
    with granted(tmp_path, "fs:read", "relayfile:fs:write:/mine/**") as mount:
        for command in (
            "echo x > theirs/b",
            "echo x > theirs/new",
            "rm theirs/b",
            "mv theirs/b mine/b",
            "mv mine/a theirs/a",
            "mv mine top",
            "mv theirs mine/theirs",
        ):
            assert "Permission denied" in said(mount, command), command
        status = mount.out("cat $MOUNT/.relay/status")
        assert "writes    only /mine/**; elsewhere Permission denied: the token grants no more\n" in status
        assert mount.status()["writes"] == {"allowed": "part", "places": ["/mine/**"], "because": "credential"}
        mount.sh("echo x > $MOUNT/mine/a; echo new > $MOUNT/mine/new; mv $MOUNT/mine/new $MOUNT/mine/newer")
        mount.delivered()
        assert mount.server.files() == {"/mine/a": b"x\n", "/mine/newer": b"new\n", "/theirs/b": b"b"}


def test_one_file_that_may_not_be_read_is_that_files_matter(tmp_path: Path) -> None:
    with granted(tmp_path, "fs:read", "fs:write") as mount:
        mount.server.rules(
            'GET /theirs/b 403 {"code":"forbidden","message":"no"}\nPUT /theirs/** 403 {"code":"forbidden"}\n'
        )
        assert "Permission denied" in said(mount, "cat theirs/b")
        assert mount.out("cat $MOUNT/mine/a; ls $MOUNT/theirs") == "ab\n"
        mount.sh("echo x > $MOUNT/theirs/new; echo y > $MOUNT/mine/a")
        letter = mount.dead_letter()
        assert (letter["path"], letter["reason"], letter["lastStatus"]) == ("/theirs/new", "forbidden", 403)
        until(lambda: mount.server.get("/mine/a") == b"y\n", "the others are delivered")
