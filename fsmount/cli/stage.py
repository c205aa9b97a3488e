"""Where the tour takes place: a temporary directory with a server, its sample files and an empty mount point.

Invariant: everything that was started or made is ended and removed, and nothing is removed while something is mounted
in it.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from msgspec import Struct

from fsmount.errors import FsmountError
from fsmount.mounttable import mounts

PATIENCE = 60.0
SAMPLES = {
    "/github/issues/7.json": '{\n  "number": 7,\n  "title": "Say what a mount shows",\n  "state": "open"\n}\n',
    "/github/issues/12.json": '{\n  "number": 12,\n  "title": "Queue survives a crash",\n  "state": "closed"\n}\n',
    "/github/README.md": "# Issues of a project, one file each\n",
    "/notion/pages/welcome.md": "# Welcome\n\nThis page is a file on the remote, and in your mount.\n",
}
RULE = 'PUT /github/issues/8.json 422 {"code":"schema_violation","message":"title is required"}\n'


class Stage(Struct, frozen=True, kw_only=True):
    """What the tour's commands need. ``environment`` keeps the tour's state apart from the user's own."""

    folder: Path
    mountpoint: Path
    remote: str
    token_file: Path
    rules: Path
    environment: dict[str, str]

    def address_of(self, path: str) -> str:
        """The URL of a remote file on the server."""
        origin, _, workspace = self.remote.removeprefix("relayfile+").rpartition("/")
        return f"{origin}/v1/workspaces/{workspace}/fs/file?path={quote(path)}"

    def shell(self, command: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Runs a line as a person would type it; stdout and stderr come together. Raises FsmountError if it hangs."""
        shell = ["sh", "-c", command]
        try:
            return subprocess.run(
                shell, cwd=folder, env=self.environment, text=True, errors="replace", timeout=PATIENCE, check=False,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise FsmountError(f"this did not end within {PATIENCE:g} s: {command}") from error


@contextmanager
def stage(mountpoint: Path | None) -> Iterator[Stage]:
    """Sets everything up, and takes it down whatever happens. Raises FsmountError where the server does not start."""
    folder = Path(tempfile.mkdtemp(prefix="fsmount-try-"))
    server: subprocess.Popen[str] | None = None
    place = folder / "mount" if mountpoint is None else Path(os.path.abspath(mountpoint))
    environment = _environment(folder)
    try:
        _install(folder)
        if mountpoint is None:
            place.mkdir()
        rules = folder / "rules"
        rules.write_text(RULE)
        with _uninterrupted():
            server = _start_server(folder, rules, environment)
        remote, token_file = _where(server)
        ready = Stage(
            folder=folder, mountpoint=place, remote=remote, token_file=token_file, rules=rules, environment=environment
        )
        for path, content in SAMPLES.items():
            _put(ready, path, content)
        yield ready
    finally:
        _strike(folder, place, environment, server)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Puts Ctrl-C off to the end: a process that was just started is known by then, and can be ended."""
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt


def _install(folder: Path) -> None:
    """A command ``fsmount`` that is this very one."""
    command = folder / "bin" / "fsmount"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m fsmount "$@"\n')
    command.chmod(0o755)


def _environment(folder: Path) -> dict[str, str]:
    """The user's, less what would steer fsmount."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FSMOUNT_")}
    path = f"{folder}/bin:{kept.get('PATH', os.defpath)}"
    own = {f"XDG_{kind}_HOME": str(folder / kind.lower()) for kind in ("STATE", "CACHE", "CONFIG")}
    return {**kept, "PATH": path, **own}


def _start_server(folder: Path, rules: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fsmount", "serve", "--data", str(folder / "server"), "--rules", str(rules)]
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def _where(server: subprocess.Popen[str]) -> tuple[str, Path]:
    """The remote and the token file that the server's one line names."""
    assert server.stdout is not None  # noqa: S101 - it was started with a pipe
    readable, _, _ = select.select([server.stdout], [], [], PATIENCE)
    words = server.stdout.readline().split(maxsplit=3) if readable else []
    if len(words) != 4:
        raise FsmountError("the embedded server did not start", hint="run 'fsmount serve' to see why")
    return words[1], Path(words[3].rstrip("\n"))


def _put(ready: Stage, path: str, content: str) -> None:
    kind = "application/json" if path.endswith(".json") else "text/markdown"
    request = Request(  # noqa: S310 - the server's own address
        ready.address_of(path),
        data=json.dumps({"content": content, "contentType": kind}).encode(),
        headers={
            "Authorization": f"Bearer {ready.token_file.read_text().strip()}",
            "Content-Type": "application/json",
            "If-Match": "*",
            "X-Correlation-Id": f"tour-{time.time_ns()}",
        },
        method="PUT",
    )
    try:
        with urlopen(request, timeout=10):  # noqa: S310
            return
    except URLError as error:
        raise FsmountError(f"the embedded server did not take the sample file {path}: {error}") from error


def _strike(folder: Path, place: Path, environment: dict[str, str], server: subprocess.Popen[str] | None) -> None:
    """Unmounts, gently first; ends the server; removes the folder."""
    if _mounted(place):
        _quietly([sys.executable, "-m", "fsmount", "umount", "--lazy", "--drain", "1", str(place)], environment)
    if _mounted(place):
        _quietly(["fusermount3", "-uz", str(place)], environment)
    if server is not None:
        _stop(server)
    if not _mounted(place):
        shutil.rmtree(folder, ignore_errors=True)


def _mounted(place: Path) -> bool:
    return any(line.mountpoint == str(place) for line in mounts())


def _quietly(command: list[str], environment: dict[str, str]) -> None:
    try:
        subprocess.run(command, env=environment, capture_output=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return


def _stop(server: subprocess.Popen[str]) -> None:
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    if server.stdout is not None:
        server.stdout.close()
