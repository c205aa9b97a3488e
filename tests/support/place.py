"""One mount for a whole module of tests, each in a directory of its own."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator

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

    def queued(self) -> list[str]:
        """`KIND NAME` of everything pending here, oldest first."""
        prefix = self.path + "/"
        ops = [op for op in self.mount.ops("pending") if op["path"].startswith(prefix)]
        return [f"{op['op']} {op['path'].removeprefix(prefix)}" for op in ops]


@pytest.fixture(scope="module")
def shared_mount(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A mount for tests that do not disturb each other; their directories are there before it is."""
    folder = tmp_path_factory.mktemp("shared")
    tests = [test for test in request.session.items if test.path == request.path]
    with serving(folder / "relay") as server:
        server.put_many({f"/{directory_of(test)}/there.txt": "there\n" for test in tests})
        with Mount(folder, server, "--drain", "0.5") as mount:
            yield mount


@pytest.fixture
def place(shared_mount: Mount, request: pytest.FixtureRequest) -> Place:
    """A directory of the module's mount, named like the test, that somebody else made."""
    return Place(shared_mount, directory_of(request.node))


def directory_of(test: pytest.Item) -> str:
    return test.name.translate(str.maketrans("[]/ ", "----"))
