"""A credential that is refused, replaced or shown: uploads pause, nothing is charged, nothing leaks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsmount.server.tokens import issuer
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


FILL = """
cd $MOUNT/desk && mkdir new && ls -R > /dev/null
for n in {0..19}; do echo new $n > new/$n; done
for n in {0..9}; do echo changed > $n; done
for n in {5..14}; do mv $n moved-$n; done
for n in {15..24}; do rm $n; done
head -c 400000 /dev/zero > large
"""
"""About fifty changes of every kind that reaches the remote."""


@pytest.fixture
def filled(mount: Mount) -> dict[str, bytes]:
    """What the remote holds once the changes of FILL are delivered; none is sent yet."""
    mount.server.put_many({f"/desk/{n}": f"old {n}\n" for n in range(25)})
    mount.sh("echo pause > $MOUNT/.relay/ctl; echo refresh / > $MOUNT/.relay/ctl")
    mount.sh(FILL)
    assert 45 <= mount.status()["queue"]["pending"] <= 55
    names = [f"{n}" for n in range(5)] + [f"moved-{n}" for n in range(5, 15)]
    return {
        "/desk/f.txt": b"old\n", "/desk/large": bytes(400_000),
        **{f"/desk/new/{n}": b"new %d\n" % n for n in range(20)},
        **{f"/desk/{name}": b"changed\n" if n < 10 else b"old %d\n" % n for n, name in enumerate(names)},
    }  # fmt: skip


def test_a_revoked_token_charges_nothing_and_the_next_one_delivers(
    mount: Mount, token: Path, filled: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    another = tmp_path_factory.mktemp("key")
    issuer(another)
    mount.server.stop()
    (another / "key.pem").replace(mount.server.data / "key.pem")  # what was signed with the old one is void
    mount.server.start()
    mount.sh("echo resume > $MOUNT/.relay/ctl")
    until(lambda: mount.status()["health"] == "auth", "health is auth")
    waiting = ops(mount, "pending")
    assert {op["attempts"] for op in waiting} == {0}
    token.write_text(f"{mount.server.token}\n")
    mount.delivered()
    assert mount.status()["failedWritebacks"] == 0
    assert mount.server.files() == filled


def test_a_proxy_that_forbids_everything_is_over_when_a_person_says_so(mount: Mount, filled: dict[str, bytes]) -> None:
    mount.server.rules('* /** 403 {"code":"forbidden","message":"not through this proxy"}\n')
    mount.sh("echo resume > $MOUNT/.relay/ctl")
    until(lambda: "one op a minute" in mount.out("cat $MOUNT/.relay/status"), "uploads all but stop")
    until(lambda: mount.status()["queue"]["sending"] == 0, "what was under way has ended")
    dead = ops(mount, "dead-letter")
    assert {(op["reason"], op["attempts"]) for op in dead} == {("forbidden", 1)}
    assert {op["attempts"] for op in ops(mount, "pending")} == {0}
    mount.server.rules("")
    mount.sh("echo retry all > $MOUNT/.relay/ctl; echo resume > $MOUNT/.relay/ctl")
    mount.delivered()
    assert mount.server.files() == filled


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
