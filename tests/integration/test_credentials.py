"""A credential that is refused, replaced or shown: uploads pause, nothing is charged, nothing leaks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mount import Mount, until
from tests.support.ops import ops, queued
from tests.support.server import RelayServer

pytestmark = pytest.mark.mount


@pytest.fixture
def mount(tmp_path: Path, relay_server: RelayServer, token: Path) -> Iterator[Mount]:
    relay_server.put("/desk/f.txt", "old\n")
    with Mount(tmp_path, relay_server, "--settle", "0.1", "--timeout", "5", "--token-file", str(token)) as mounted:
        yield mounted


def remounted(mount: Mount, token: Path) -> str:
    """Mounts again with a credential that expires as soon as it was used once; the credential."""
    for seconds in (2, 4, 8, 16):
        mount.umount()
        short = mount.server.sign(exp=time.time() + seconds)
        token.write_text(f"{short}\n")
        mount.start()
        if mount.sh("cat $MOUNT/desk/f.txt", check=False).returncode == 0:
            return short
    raise AssertionError("the credential has always expired before the mount was ready")


def unauthorized(mount: Mount) -> bool:
    return any(line.endswith(" 401") for line in mount.server.requests())


def test_a_refused_credential_pauses_and_a_new_one_resumes(mount: Mount, token: Path) -> None:
    expired = remounted(mount, token)
    until(lambda: mount.status()["health"] == "auth", "health is auth")
    mount.sh("echo mine > $MOUNT/desk/f.txt; echo new > $MOUNT/desk/new.txt")
    op, _ = queued(mount, 2)
    assert "credential" in mount.out("cat $MOUNT/.relay/status").splitlines()[1]
    assert mount.fsmount("writeback", "status").returncode == 0
    assert mount.fsmount("wait", "--timeout", "1").returncode == 6
    assert [(op["state"], op["attempts"]) for op in ops(mount, "pending")] == [("pending", 0)] * 2
    assert mount.out("cat $MOUNT/desk/f.txt") == "mine\n"

    fresh = mount.server.sign(sub="fresh")
    token.write_text(f"{fresh}\n")
    mount.delivered()
    assert (mount.server.get("/desk/f.txt"), mount.server.get("/desk/new.txt")) == (b"mine\n", b"new\n")
    until(lambda: mount.status()["health"] == "ok", "health is ok")
    until(lambda: mount.fsmount("writeback", "show", op["opId"]).returncode == 3, "the op is gone")
    seen = mount.log() + mount.out(
        "cd $MOUNT/.relay && cat README status status.json state.json log; cat -v ../../state-dir/journal.db*"
    )
    for told in [*Path("/proc").glob("[0-9]*/cmdline"), *Path("/proc").glob("[0-9]*/environ")]:
        with contextlib.suppress(OSError):
            seen += told.read_text(errors="replace")
    for secret in (expired, fresh, mount.server.token):
        assert secret not in seen
        assert secret.rpartition(".")[2] not in seen


def test_a_credential_that_was_replaced_before_it_expired_is_read_again(mount: Mount, token: Path) -> None:
    remounted(mount, token)
    token.write_text(f"{mount.server.sign(sub='next')}\n")
    until(lambda: unauthorized(mount), "the old one was refused")
    mount.sh("echo mine > $MOUNT/desk/f.txt")
    mount.delivered()
    assert (mount.server.get("/desk/f.txt"), mount.status()["failedWritebacks"]) == (b"mine\n", 0)
    assert "uploads wait" not in mount.log()


def test_a_known_remote_mounts_with_a_refused_credential(mount: Mount, token: Path) -> None:
    mount.sh("echo mine > $MOUNT/desk/f.txt")
    mount.delivered()
    mount.umount()
    token.write_text(f"{mount.server.sign(exp=time.time() - 60)}\n")
    mount.start()
    until(lambda: mount.status()["health"] == "auth", "health is auth")
    assert mount.sh("cat $MOUNT/desk/f.txt", check=False).stderr.endswith("Permission denied\n")
    token.write_text(f"{mount.server.token}\n")
    until(lambda: mount.status()["health"] == "ok", "it is used at once")
    assert mount.out("cat $MOUNT/desk/f.txt") == "mine\n"


def test_a_first_mount_that_fails_leaves_nothing(tmp_path: Path, relay_server: RelayServer, token: Path) -> None:
    token.write_text("not-a-token\n")
    mount = Mount(tmp_path, relay_server)
    mount.point.mkdir()
    known = set(tmp_path.rglob("*"))
    relay_server.rules("* /hung/** hang\n* / hang\n")
    for remote, file in (
        (relay_server.remote, token),
        ("relayfile+http://127.0.0.1:9/local", relay_server.token_file),
        (relay_server.remote, relay_server.token_file),
    ):
        done = mount.fsmount("mount", remote, str(mount.point), "--token-file", str(file), "--timeout", "1")
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr.startswith("fsmount: error: ")
        assert "not-a-token" not in done.stderr
        left = {path for path in set(tmp_path.rglob("*")) - known if path.is_file() and "relay/" not in str(path)}
        assert left == set()
    assert mount.sh("ls -A $MOUNT").stdout == ""
    assert mount.fsmount("writeback", "status").stdout == "no mounts\n"
