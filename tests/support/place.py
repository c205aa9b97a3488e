"""One mount for a whole module of tests, each in a directory of its own."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.mount import Mount
from tests.support.server import RelayServer, serving


class Place:
    """A directory of a shared mount: `path` on the remote, `$HERE` for programs, which start in it if it is there."""

    def __init__(self, mount: Mount, name: str) -> None:
        self.mount = mount
        self.server: RelayServer = mount.server
        self.path = f"/{name}"
        self.local = f"{mount.point}/{name}"

    def put(self, name: str, content: str | bytes) -> str:
        """A file of somebody else; its revision."""
        return self.server.put(f"{self.path}/{name}", content)

    def remote(self, name: str) -> bytes | None:
        """What the server holds under that name."""
        return self.server.get(f"{self.path}/{name}")

    def sh(self, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A shell command here; fails the test unless it ends with 0."""
        return self.mount.sh(f"export HERE={self.local}; cd $HERE 2>/dev/null || cd /; {command}", check=check)

    def out(self, command: str) -> str:
        """What a command printed."""
        return self.sh(command).stdout

    def fails(self, command: str) -> str:
        """What a command that has to fail complained of."""
        done = self.sh(command, check=False)
        assert done.returncode, f"{command!r} ended with 0: {done.stdout}"
        return done.stderr

    def start(self, command: str) -> subprocess.Popen[str]:
        """A shell command here that runs beside the test, for 20 s at most; stdin and stdout are pipes."""
        return subprocess.Popen(
            ["timeout", "-s", "KILL", "20", "bash", "-c", f"cd {self.local} && {command}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self.mount.environment,
        )  # fmt: skip

    def python(self, program: str) -> str:
        """What a Python program here printed; it finds os, errno, mmap, sys and time imported."""
        return self.out(self.program(program))

    def program(self, text: str) -> str:
        """The command that runs a Python program."""
        file = self.mount.folder / f"{self.path[1:]}.py"
        file.write_text("import errno, mmap, os, sys, time\n" + textwrap.dedent(text), encoding="utf-8")
        return f"{sys.executable} -I -S {file}"

    def requests(self, *words: str) -> list[str]:
        """The requests until now that speak of this place and all of `words`."""
        return [line for line in self.server.requests() if f"{self.path}" in line and all(w in line for w in words)]

    def pending(self) -> list[dict[str, Any]]:
        """Every op here that waits, oldest first; those of other places may be delivered meanwhile."""
        text, ops = self.mount.sh("cat $MOUNT/.relay/pending/* 2>/dev/null", check=False).stdout.strip(), []
        while text:
            op, end = json.JSONDecoder().raw_decode(text)
            text = text[end:].lstrip()
            ops.append(op)
        return [op for op in ops if op["path"].startswith(self.path + "/")]

    def queued(self) -> list[str]:
        """`KIND NAME` of each of them."""
        return [f"{op['kind']} {op['path'].removeprefix(self.path + '/')}" for op in self.pending()]


@pytest.fixture(scope="module")
def shared_mount(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A mount for tests that do not disturb each other; their directories are there before it is."""
    yield from _mounted(request, tmp_path_factory, "--drain", "0.5")


@pytest.fixture(scope="module")
def resting_mount(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """The same, but what is written stays in the queue."""
    resting = ("--settle", "60", "--max-settle", "60", "--open-settle", "60", "--drain", "0")
    yield from _mounted(request, tmp_path_factory, *resting)


@pytest.fixture
def place(shared_mount: Mount, request: pytest.FixtureRequest) -> Place:
    """A directory of the module's mount, named like the test, that somebody else made."""
    return Place(shared_mount, _directory_of(request.node))


@pytest.fixture
def resting(resting_mount: Mount, request: pytest.FixtureRequest) -> Place:
    """The same where writes stay in the queue, for tests of what is queued."""
    return Place(resting_mount, _directory_of(request.node))


def _mounted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, *options: str
) -> Iterator[Mount]:
    folder = tmp_path_factory.mktemp("shared")
    tests = [test for test in request.session.items if test.path == request.path]
    with serving(folder / "relay") as server:
        server.put_many({f"/{_directory_of(test)}/there.txt": "there\n" for test in tests})
        with Mount(folder, server, *options) as mount:
            yield mount


def _directory_of(test: pytest.Item) -> str:
    return test.name.translate(str.maketrans("[]/ ", "----"))
