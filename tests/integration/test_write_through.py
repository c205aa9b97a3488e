"""`--write-through`: a close that returns 0 says that the remote has it."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.support.mount import Mount, until
from tests.support.ops import letters, ops, settled
from tests.support.server import RelayServer, serving

pytestmark = pytest.mark.mount

SAVE = """
import errno, os, sys
def save(name, content=b"mine\\n", sync=False):
    file = os.open(os.environ["MOUNT"] + "/d/" + name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
    try:
        os.write(file, content)
        if sync:
            os.fsync(file)
    finally:
        try:
            os.close(file)
            print("0")
        except OSError as error:
            print(errno.errorcode[error.errno])
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayServer]:
    with serving(tmp_path_factory.mktemp("relay")) as running:
        running.put_many({f"/d/{name}": "base\n" for name in ("f", "conflict", "gone")})
        yield running


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory, server: RelayServer) -> Iterator[Mount]:
    folder = tmp_path_factory.mktemp("through")
    slow = ("--settle", "30", "--max-settle", "30", "--open-settle", "30")
    with Mount(folder, server, "--write-through", "--timeout", "3", "--drain", "0", *slow) as one:
        yield one


@pytest.fixture
def mount(mounted: Mount) -> Iterator[Mount]:
    yield mounted
    settled(mounted)


def python(mount: Mount, program: str) -> list[str]:
    file = mount.folder / "save.py"
    file.write_text(SAVE + program)
    return mount.out(f"python3 -I -S {file}").split()


def test_a_close_waits_for_the_remote(mount: Mount) -> None:
    assert python(mount, "save('new')\nsave('f')") == ["0", "0"]
    assert mount.server.get("/d/new") == mount.server.get("/d/f") == b"mine\n"
    assert mount.status()["queue"]["pending"] == 0
    mount.sh("cd $MOUNT/d; echo again >> f; cp f copy; echo x > litter~")
    assert mount.server.get("/d/copy") == b"mine\nagain\n"


def test_every_close_and_fsync_of_a_handle(mount: Mount) -> None:
    program = "save('synced', b'x' * 300_000, sync=True)"
    assert python(mount, program) == ["0"]
    assert mount.server.get("/d/synced") == b"x" * 300_000
    mount.sh("cd $MOUNT/d; { echo 1; echo 2; echo 3; } > burst")
    assert mount.server.get("/d/burst") == b"1\n2\n3\n"


@pytest.mark.parametrize(
    ("rule", "code"), [("403", "EACCES"), ("413", "EFBIG"), ("422", "EIO")], ids=["forbidden", "too-large", "rejected"]
)
def test_a_refusal_fails_the_close(mount: Mount, rule: str, code: str) -> None:
    mount.server.rules(f"PUT /d/refused {rule}\n")
    assert python(mount, "save('refused')") == [code]
    (letter,) = letters(mount, 1)
    assert letter["path"] == "/d/refused"
    assert mount.out("cat $MOUNT/d/refused") == "mine\n"


@pytest.mark.parametrize("name", ["conflict", "gone"])
def test_somebody_was_faster(mount: Mount, name: str) -> None:
    mount.server.rules(f"LIST /d delay=1s\nEVENTS / delay=1s\nPUT /d/{name} delay=1s\n")
    mount.out(f"cat $MOUNT/d/{name}")
    done = mount.folder / "go"
    file = mount.folder / "slow.py"
    file.write_text(
        SAVE
        + f"""
import time
path = os.environ["MOUNT"] + "/d/{name}"
handle = os.open(path, os.O_WRONLY)
os.write(handle, b"mine")
open({str(done)!r}, "w").close()
sys.stdin.readline()
try:
    os.close(handle)
    print("0")
except OSError as error:
    print(errno.errorcode[error.errno])
"""
    )
    with subprocess.Popen(
        ["timeout", "-s", "KILL", "20", "python3", "-I", "-S", str(file)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, env=mount.environment,
    ) as program:  # fmt: skip
        until(done.exists, "the file is open and written")
        done.unlink()
        if name == "conflict":
            mount.server.put("/d/conflict", "theirs")
        else:
            mount.server.delete("/d/gone")
        mount.server.rules("")
        said, _ = program.communicate("\n", timeout=20)
    assert said == "ESTALE\n"
    (letter,) = letters(mount, 1)
    assert letter["reason"] == {"conflict": "conflict", "gone": "remote-deleted"}[name]


def test_silence_ends_within_the_timeout(mount: Mount) -> None:
    mount.server.rules("PUT /d/slow hang\n")
    assert python(mount, "save('slow')") == ["ETIMEDOUT"]
    assert [op["path"] for op in ops(mount, "pending")] == ["/d/slow"]
    mount.server.rules("")
    until(lambda: mount.server.get("/d/slow") == b"mine\n", "it is delivered later", 20)


def test_while_offline(mount: Mount) -> None:
    mount.server.stop()
    assert python(mount, "save('off')") == ["EHOSTUNREACH"]
    until(lambda: mount.status()["connection"]["state"] == "offline", "it is offline")
    assert python(mount, "save('off2')") == ["EHOSTUNREACH"]
    assert mount.out("cat $MOUNT/d/off2") == "mine\n"
    mount.server.start()
    until(lambda: mount.server.get("/d/off2") == b"mine\n", "it is delivered later", 40)
