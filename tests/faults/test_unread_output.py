"""What a mount in the foreground says of itself is taken by nobody: it goes on all the same."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.mount import FSMOUNT, Mount, until
from tests.support.server import RelayServer, serving

pytestmark = pytest.mark.mount


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayServer]:
    with serving(tmp_path_factory.mktemp("unread") / "relay") as one:
        yield one


def full_pipe() -> tuple[int, int]:
    """Its reader has stopped: descriptors to read from and to write to."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for piece in (bytes(4096), b"\0"):
        try:
            while os.write(writer, piece):
                pass
        except BlockingIOError:
            pass
    os.set_blocking(writer, True)
    return reader, writer


def pipe_without_reader() -> tuple[int, int]:
    reader, writer = os.pipe()
    os.close(reader)
    return os.open(os.devnull, os.O_RDONLY), writer


def terminal_that_is_gone() -> tuple[int, int]:
    master, terminal = os.openpty()
    os.close(master)
    return os.open(os.devnull, os.O_RDONLY), terminal


@pytest.mark.parametrize(
    ("made", "redirected"),
    [(full_pipe, ""), (full_pipe, ">&- 2>&-"), (pipe_without_reader, ""), (terminal_that_is_gone, "")],
    ids=["full", "closed", "no reader", "no terminal"],
)
def test_nobody_takes_what_it_says(
    tmp_path: Path, server: RelayServer, made: Callable[[], tuple[int, int]], redirected: str
) -> None:
    mount = Mount(tmp_path, server)
    mount.point.mkdir()
    command = f'exec "$@" -f --debug --state-dir {mount.state} --token-file {server.token_file} {redirected}'
    reader, writer = made()
    with subprocess.Popen(
        ["bash", "-c", command, "bash", *FSMOUNT, "mount", server.remote, str(mount.point)],
        stdin=subprocess.DEVNULL, stdout=writer, stderr=writer, env=mount.environment,
    ) as daemon:  # fmt: skip
        mount.pid = daemon.pid
        try:
            until(lambda: mount.sh("cat $MOUNT/.relay/status", check=False).returncode == 0, "it answers")
            mount.sh(
                "mkdir $MOUNT/d; for n in $(seq 20); do echo $n > $MOUNT/d/f; ls $MOUNT/d; done; cat $MOUNT/none; true"
            )
            daemon.send_signal(signal.SIGHUP)
            mount.delivered()
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(10) == 0
        finally:
            mount.end()
            os.close(reader)
            os.close(writer)
    assert server.get("/d/f") == b"20\n"
