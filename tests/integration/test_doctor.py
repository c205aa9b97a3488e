"""``fsmount doctor`` names what is wrong and what mends it, changes nothing and ends."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.attempt import Attempt, answering, silent, speaking
from tests.support.mount import FSMOUNT, Mount
from tests.support.server import RelayServer, serving

pytestmark = pytest.mark.mount


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayServer]:
    with serving(tmp_path_factory.mktemp("doctor") / "relay") as server:
        yield server


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    return Attempt(tmp_path)


def looked(attempt: Attempt, *argv: str, code: int = 0, **environment: str) -> list[str]:
    """Its lines; each says how it is."""
    before, began = attempt.left(), time.monotonic()
    done = attempt.run("doctor", *argv, **environment)
    said = done.stdout.decode()
    assert (done.returncode, done.stderr) == (code, b""), said + done.stderr.decode()
    assert attempt.left() == before, "it changes nothing"
    assert time.monotonic() - began < 10
    lines = said.splitlines()
    assert all(line.split()[0] in ("ok", "warn", "FAIL") for line in lines), said
    assert bool(code) == any(line.startswith("FAIL") for line in lines), said
    assert not [char for char in said if char != "\n" and not char.isprintable()], said
    return lines


def one(lines: list[str], *words: str) -> str:
    """The only line that has all of these words."""
    (found,) = [line for line in lines if all(word in line for word in words)]
    return found


def test_a_sound_machine_and_remote(attempt: Attempt, relay: RelayServer) -> None:
    lines = looked(attempt, relay.remote, "--token-file", str(relay.token_file))
    for words in (
        ("Python",), ("pyfuse3", "libfuse"), ("fusermount3",), ("/dev/fuse",), ("--allow-other",),
        ("state directory",), ("cache directory",), ("configuration directory",), ("no configuration file",),
        ("token file", "yours alone"), ("no mounts are known",), ("is an address",), ("accepts connections",),
        ("its clock agrees",), ("can be read with this credential",),
    ):  # fmt: skip
        assert one(lines, *words).startswith("ok"), words


def test_what_this_machine_lacks(attempt: Attempt) -> None:
    assert "apt install fuse3" in one(looked(attempt, code=7, PATH="/nowhere"), "FAIL")
    (attempt.folder / "xdg-state").rmdir()
    (attempt.folder / "xdg-state").write_text("")
    assert "state directory" in one(looked(attempt, code=7), "FAIL")


@pytest.mark.skipif(os.getuid() != 0, reason="makes mount namespaces")
def test_a_device_that_is_none(attempt: Attempt) -> None:
    for script, words in (
        ("mount -t tmpfs none /dev", "is missing"),
        ("mount --bind /dev/null /dev/fuse", "is not the FUSE device"),
    ):
        before = ("unshare", "-m", "sh", "-ec", f'{script}; exec "$@"', "sh")
        done = attempt.run("doctor", before=before)
        assert done.returncode == 7, done.stdout
        assert "/dev/fuse" in one(done.stdout.decode().splitlines(), "FAIL", words)


def test_configuration_and_token_file(attempt: Attempt) -> None:
    file = attempt.folder / "xdg-config/fsmount/config.toml"
    file.parent.mkdir()
    file.write_text("attr_ttl = 'soon'")
    assert "line 1: attr_ttl" in one(looked(attempt, code=2), "FAIL")
    token = attempt.folder / "token"
    token.write_text("geheim99")
    token.chmod(0o644)
    file.write_text(f"[mount.'relayfile+http://127.0.0.1:9/w']\ntoken_file = '{token}'")
    lines = looked(attempt, "relayfile+http://127.0.0.1:9/w", code=4)
    assert one(lines, "config.toml").startswith("ok")
    assert "chmod 600" in one(lines, "warn", "token file")
    assert "nothing listens" in one(lines, "FAIL")
    assert "geheim99" not in "".join(lines)


def test_remotes(attempt: Attempt, relay: RelayServer) -> None:
    given = ("--token-file", str(relay.token_file), "--timeout", "2")
    assert "remote looks like" in one(looked(attempt, "nonsense", code=2), "FAIL")
    assert "is unknown" in one(looked(attempt, "relayfile+http://nowhere.invalid/w", *given, code=4), "FAIL")
    assert "no credential" in one(looked(attempt, relay.remote, code=4), "FAIL")
    secret = attempt.folder / "wrong"
    secret.write_text("geheim99-geheim99")
    lines = looked(attempt, relay.remote, "--token-file", str(secret), code=4)
    assert "credential was refused" in one(lines, "FAIL")
    assert "geheim99" not in "".join(lines)
    https = relay.remote.replace("+http", "+https")
    assert "cannot be trusted" in one(looked(attempt, https, *given, code=4), "FAIL")


def test_remotes_that_are_none(attempt: Attempt) -> None:
    page = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ndate: Wed, 01 Jan 2020 00:00:00 GMT\r\n\r\n<html"
    given = ("--timeout", "1", "--token-command", "echo t")
    with speaking(answering(page)) as address:
        lines = looked(attempt, f"relayfile+http://{address}/w", *given, code=4)
        assert "ahead of the server's" in one(lines, "warn")
        assert "no relayfile server" in one(lines, "FAIL")
    with speaking(silent) as address:
        assert "did not answer" in one(looked(attempt, f"relayfile+http://{address}/w", *given, code=4), "FAIL")


def test_known_mounts(tmp_path: Path, relay: RelayServer) -> None:
    def lines(code: int) -> list[str]:
        done = mount.fsmount("doctor")
        assert (done.returncode, done.stderr) == (code, ""), done.stdout
        return [line for line in done.stdout.splitlines() if str(tmp_path) in line]

    with Mount(tmp_path, relay, "--settle", "60", "--max-settle", "60", "--drain", "0") as mount:
        assert one(lines(0), str(mount.point), "answers").startswith("ok")
        assert one(lines(0), f"pid {mount.pid} holds").startswith("ok")
        os.kill(mount.pid, signal.SIGSTOP)
        try:
            assert f"pid {mount.pid}" in one(lines(6), "FAIL", "does not answer")
        finally:
            os.kill(mount.pid, signal.SIGCONT)
        mount.sh("echo unsent > $MOUNT/unsent")
        mount.kill()
        assert "fsmount umount" in one(lines(0), "warn", "is dead")
        subprocess.run([*FSMOUNT, "umount", str(mount.point)], env=mount.environment, check=True, capture_output=True)
        assert "writeback status" in one(lines(0), "warn", "is not mounted")
        with sqlite3.connect(mount.state / "journal.db") as journal:
            journal.execute("PRAGMA user_version=99")
        journal.close()
        assert one(lines(5), "FAIL", "newer fsmount")
