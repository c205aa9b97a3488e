"""Mounting by mount(8), /etc/fstab and ``-o``; and what the configuration file makes of a real mount."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.attempt import Attempt
from tests.support.server import RelayServer, serving

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.getuid() != 0, reason="mount(8) is root's"),
    pytest.mark.skipif(shutil.which("mount.fuse3") is None, reason="mount.fuse3 is not installed"),
]


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayServer]:
    with serving(tmp_path_factory.mktemp("fstab") / "relay") as server:
        server.put("/there.txt", "there\n")
        yield server


class Machine:
    """A mount namespace whose /usr/local/bin has the command ``fsmount``: mount(8) looks in the usual places only."""

    def __init__(self, folder: Path, relay: RelayServer) -> None:
        self.attempt = Attempt(folder)
        self.names = {
            **self.attempt.environment,
            "REMOTE": relay.remote,
            "TOKEN": str(relay.token_file),
            "M": str(self.attempt.point),
        }
        self.bin = folder / "bin"
        self.bin.mkdir()
        command = self.bin / "fsmount"
        command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m fsmount "$@"\n')
        command.chmod(0o755)
        root = str(Path(__file__).parents[2])
        self.names["PYTHONPATH"] = root

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """The script, with a lazy unmount after it whatever happened."""
        away = "trap 'code=$?; umount -lq $M || true; exit $code' EXIT"
        whole = f"mount --bind {shlex.quote(str(self.bin))} /usr/local/bin\n{away}\n{script}"
        return subprocess.run(
            ["timeout", "40", "unshare", "-m", "sh", "-ec", whole], env=self.names, cwd=self.attempt.folder,
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path, relay: RelayServer) -> Machine:
    return Machine(tmp_path, relay)


def test_mount_and_umount(machine: Machine) -> None:
    options = "ro,noexec,token_file=$TOKEN,attr-ttl=5,x-systemd.automount,nofail,_netdev"
    done = machine.run(
        f"mount -t fuse.fsmount $REMOTE $M -o {options}\n"
        "cat $M/there.txt; touch $M/new || echo refused\n"
        "grep $M /proc/self/mountinfo\n"
        "pid=$(cat $XDG_STATE_HOME/fsmount/*/lock | grep -o '\"pid\":[0-9]*' | cut -d: -f2)\n"
        "umount $M\n"
        "timeout 10 tail --pid=$pid -f /dev/null\n"
        "fsmount writeback status\n"
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "there" in lines
    assert "refused" in lines
    (line,) = [line for line in lines if " - fuse.fsmount " in line]
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(line.split()[5].split(","))
    assert lines[-1] == "no mounts", "umount(8) is a clean end"


def test_fstab(machine: Machine) -> None:
    """The line of README's; found by mount point alone."""
    fstab = machine.attempt.folder / "fstab"
    options = f"noauto,user,_netdev,nofail,x-systemd.automount,comment=mine,token_file={machine.names['TOKEN']}"
    fstab.write_text(f"{machine.names['REMOTE']} {machine.attempt.point} fuse.fsmount {options} 0 0\n")
    done = machine.run("mount -T fstab $M; cat $M/there.txt; echo more > $M/more.txt; fsmount umount $M")
    assert done.returncode == 0, done.stderr
    assert "there\n" in done.stdout
    assert "everything was delivered" in done.stdout


def test_a_command_that_is_elsewhere(machine: Machine) -> None:
    """By its whole path, before the ``#``: nothing has to be installed into /usr/local/bin."""
    done = machine.run(
        "umount /usr/local/bin\n"
        'mount -t fuse "$PWD/bin/fsmount#$REMOTE" $M -o token_file=$TOKEN; cat $M/there.txt; umount $M'
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("there\n")


def test_what_cannot_be(machine: Machine) -> None:
    done = machine.run("mount -t fuse.fsmount $REMOTE $M -o token_file=$TOKEN,sharp")
    assert done.returncode == 2
    assert done.stderr.startswith("fsmount: error: -o sharp: ")


def test_the_configuration_file_holds_for_a_real_mount(tmp_path: Path, relay: RelayServer) -> None:
    attempt = Attempt(tmp_path)
    file = tmp_path / "xdg-config/fsmount/config.toml"
    file.parent.mkdir()
    file.write_text(
        f"drain = 1\n[mount.'{attempt.point}']\nname = 'desk'\nread_only = true\ntoken_file = '{relay.token_file}'\n"
    )
    done = attempt.run("mount", relay.remote, "m")
    try:
        assert done.returncode == 0, done.stderr
        assert f"state {tmp_path}/xdg-state/fsmount/desk\n" in done.stdout.decode()
        shown = subprocess.run(
            ["timeout", "10", "cat", f"{attempt.point}/.relay/config.json"], capture_output=True, check=True
        ).stdout.decode()
        assert '"read_only": true' in shown
        assert '"drain": 1' in shown
    finally:
        assert attempt.run("umount", "m").returncode == 0
