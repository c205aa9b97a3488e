"""The credential is nowhere but in the daemon's memory, whatever the remote does with it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mount import Mount, until
from tests.support.ops import letters, queued
from tests.support.server import RelayServer

PRIVATE = """
import ctypes, resource
from fsmount.app.process import keep_memory_private
keep_memory_private()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))
"""


def test_the_daemons_memory_is_nobodys_else() -> None:
    """PR_GET_DUMPABLE is 3."""
    done = subprocess.run([sys.executable, "-c", PRIVATE], capture_output=True, text=True, check=True)
    assert done.stdout == "0 (0, 0)\n"


@pytest.fixture
def token(tmp_path: Path, relay_server: RelayServer) -> Path:
    """One that is found wherever it may have got to."""
    file = tmp_path / "token"
    file.write_text(f"{relay_server.sign(sub='marked')}\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def mount(tmp_path: Path, relay_server: RelayServer, token: Path) -> Iterator[Mount]:
    with Mount(tmp_path, relay_server, "--settle", "0.1", "--debug", "--token-file", str(token)) as mounted:
        yield mounted


def everything(mount: Mount, token: Path) -> Iterator[tuple[str, str]]:
    """What a mount leaves anywhere: where, and the text."""
    for command in (
        ("list",), ("doctor", mount.remote), ("writeback", "status"), ("writeback", "status", "--json"),
        ("writeback", "list", "--json"), ("wait", "--timeout", "0.1"),
    ):  # fmt: skip
        done = mount.fsmount(*command)
        yield " ".join(command), done.stdout + done.stderr
    for verb in ("show", "diff"):
        done = mount.fsmount("writeback", verb, letters(mount, 3)[0]["opId"])
        yield verb, done.stdout + done.stderr
    yield ".relay", mount.out("cd $MOUNT/.relay && find . -type f -print -exec cat -v {} ';'")
    yield "attributes", mount.out("getfattr -d -m - -R $MOUNT/refused 2>&1; true")
    for path in mount.folder.rglob("*"):
        kept = mount.point not in path.parents and mount.server.folder not in path.parents and path != token
        if kept and path.is_file():
            yield str(path), path.read_bytes().decode("latin-1")
    for told in [*Path("/proc").glob("[0-9]*/cmdline"), *Path("/proc").glob("[0-9]*/environ")]:
        with contextlib.suppress(OSError):
            yield str(told), told.read_text(errors="replace")


@pytest.mark.mount
def test_a_remote_that_echoes_the_credential_puts_it_nowhere(mount: Mount, token: Path) -> None:
    secret = token.read_text().strip()
    echo = f'{{"code":"x","message":"you sent Authorization: Bearer {secret}"}}'
    mount.server.rules(
        f"PUT /refused/a 422 {echo}\nPUT /refused/b 403 {echo}\nPUT /refused/c 302 {echo}\n"
        f"GET /refused/seen 500 {echo}\nLIST /gone 404 {echo}\n"
    )
    mount.sh("mkdir $MOUNT/refused; cd $MOUNT/refused; for n in a b c; do echo $n > $n; done")
    letters(mount, 3)
    mount.sh("cat $MOUNT/refused/seen; ls $MOUNT/gone", check=False)
    places = dict(everything(mount, token))
    assert len(places) > 20
    head, _, signature = secret.rpartition(".")
    leaks = [place for place, text in places.items() if secret in text or signature in text or head in text]
    assert leaks == []
    assert "***" in places[".relay"], "the answer was shown, without the secret"
    mount.umount()
    assert secret not in mount.log()


@pytest.mark.mount
def test_a_storm_of_401_charges_nothing_and_ends_by_itself(mount: Mount) -> None:
    mount.sh("mkdir $MOUNT/storm; ls $MOUNT/storm")
    mount.server.rules("PUT /** 401\nDELETE /** 401\nGET /** 401\nLIST /** 401\nEVENTS / 401\n")
    mount.sh("cd $MOUNT/storm; for n in $(seq 40); do echo $n > $n; done")
    until(lambda: mount.status()["health"] == "auth", "health is auth")
    waiting = queued(mount, 40)
    assert {(op["state"], op["attempts"], op["reason"]) for op in waiting} == {("pending", 0, None)}
    assert (mount.status()["failedWritebacks"], mount.status()["queue"]["deadLetter"]) == (0, 0)
    asked = len(mount.server.requests())
    assert asked < 60, "a refused credential is not tried with each op"
    mount.server.rules("")
    mount.delivered(30)
    assert len(mount.server.tree("/storm")) == 40


@pytest.mark.mount
def test_a_daemon_leaves_no_core(mount: Mount) -> None:
    mount.umount()
    mount.options = tuple(option for option in mount.options if option != "--debug")
    mount.start()
    limits = Path(f"/proc/{mount.pid}/limits").read_text()
    assert [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core")] == [["0", "0"]]
    assert os.stat(f"/proc/{mount.pid}/environ").st_uid == 0
