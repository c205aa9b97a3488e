"""``.relay/README`` is enough: its own commands, as they stand there, settle what a newcomer meets."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.support.mount import Mount, until
from tests.support.ops import letters, settled
from tests.support.server import serving

pytestmark = pytest.mark.mount

OPTIONS = ("--settle", "0.1", "--timeout", "3", "--max-deletes", "3", "--drain", "0.5")


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    with serving(tmp_path_factory.mktemp("relay")) as server:
        server.put_many({f"/many/{number}": "x" for number in range(30)} | {"/github/f.txt": "old\n"})
        with Mount(tmp_path_factory.mktemp("readme"), server, *OPTIONS) as one:
            yield one


@pytest.fixture
def mount(mounted: Mount) -> Iterator[Mount]:
    yield mounted
    settled(mounted)


def commands(mount: Mount) -> list[str]:
    """What the README gives as commands: indented, up to what two blanks or more set apart."""
    lines = mount.out("cat $MOUNT/.relay/README").splitlines()
    indented = [re.split(r"\s{2,}", line.strip())[0] for line in lines if line.startswith("  ")]
    return [line for line in indented if re.match(r"(mv|echo|sync|getfattr|setfattr|jq|tail) ", line)]


def the(mount: Mount, wanted: str, *, op: str = "OP", file: str = "FILE") -> str:
    """The README's one command that begins so, for an op and a file; to be run in ``.relay``."""
    (found,) = {command for command in commands(mount) if command.startswith(wanted)}
    return found.replace("OP", op).replace("FILE", file)


def do(mount: Mount, command: str) -> str:
    return mount.out(f"cd $MOUNT/.relay && {command}")


def conflict(mount: Mount, name: str) -> str:
    """A file that was saved here and changed by somebody else; its op."""
    mount.server.put(f"/github/{name}", "old\n")
    until(lambda: mount.sh(f"grep -q old $MOUNT/github/{name}", check=False).returncode == 0, "the file is seen")
    do(mount, the(mount, "echo").replace("retry github", "pause"))
    mount.sh(f"echo mine > $MOUNT/github/{name}")
    mount.server.put(f"/github/{name}", "theirs\n")
    do(mount, the(mount, "echo").replace("retry github", "resume"))
    (letter,) = letters(mount, 1)
    assert letter["reason"] == "conflict"
    both = do(mount, f"cat conflict/{letter['opId']}/theirs conflict/{letter['opId']}/mine")
    assert both == "theirs\nmine\n"
    return str(letter["opId"])


def test_a_conflict_is_settled_for_theirs(mount: Mount) -> None:
    op = conflict(mount, "theirs.txt")
    do(mount, the(mount, "mv dead-letter/OP.json discarded/", op=op))
    do(mount, the(mount, "sync"))
    assert mount.out("cat $MOUNT/github/theirs.txt") == "theirs\n"


def test_a_conflict_is_settled_for_mine(mount: Mount) -> None:
    op = conflict(mount, "mine.txt")
    do(mount, the(mount, "mv dead-letter/OP.json force/", op=op))
    do(mount, the(mount, "sync"))
    assert mount.server.get("/github/mine.txt") == b"mine\n"


def test_a_conflict_is_settled_by_a_merge(mount: Mount) -> None:
    conflict(mount, "merged.txt")
    do(mount, the(mount, "setfattr", file="github/merged.txt"))
    mount.sh("printf 'theirs\\nmine\\n' > $MOUNT/github/merged.txt")
    do(mount, the(mount, "sync"))
    assert mount.server.get("/github/merged.txt") == b"theirs\nmine\n"


def test_everything_of_a_provider_is_tried_again(mount: Mount) -> None:
    mount.server.rules("PUT /github/no*.txt 422\n")
    mount.sh("echo 1 > $MOUNT/github/no1.txt; echo 2 > $MOUNT/github/no2.txt")
    letters(mount, 2)
    state = the(mount, "getfattr", file="github/no1.txt")
    assert 'user.relay.state="dead-letter"' in do(mount, state)
    assert do(mount, the(mount, "jq")).strip() == "failing"
    mount.server.rules("")
    do(mount, the(mount, "echo retry github"))
    do(mount, the(mount, "sync"))
    assert 'user.relay.state="clean"' in do(mount, state)
    assert mount.server.get("/github/no2.txt") == b"2\n"


def test_one_op_is_tried_again_given_up_and_sent_after_all(mount: Mount) -> None:
    mount.server.rules("PUT /github/one.txt 422\n")
    mount.sh("echo 1 > $MOUNT/github/one.txt")
    (letter,) = letters(mount, 1)
    op = str(letter["opId"])
    do(mount, the(mount, "mv dead-letter/OP.json retry/", op=op))
    letters(mount, 1)
    do(mount, the(mount, "mv dead-letter/OP.json discarded/", op=op))
    assert mount.sh("test -e $MOUNT/github/one.txt", check=False).returncode != 0
    mount.server.rules("")
    do(mount, the(mount, "mv discarded/OP.json retry/", op=op))
    do(mount, the(mount, "sync"))
    assert mount.server.get("/github/one.txt") == b"1\n"


def test_a_mass_delete_is_undone_and_another_let_go(mount: Mount) -> None:
    mount.sh("rm $MOUNT/many/1?")
    do(mount, the(mount, "mv held/* discarded/"))
    assert mount.out("ls $MOUNT/many | wc -l").strip() == "30"
    mount.sh("rm $MOUNT/many/1?")
    do(mount, the(mount, "mv held/* retry/"))
    do(mount, the(mount, "sync"))
    assert mount.server.get("/many/15") is None
    assert mount.server.get("/many/5") == b"x"


def test_sync_says_that_something_failed(mount: Mount) -> None:
    mount.server.rules("PUT /github/fails.txt 422 delay=0.5s\n")
    done = mount.sh(f"cd $MOUNT/.relay && echo 1 > ../github/fails.txt && {the(mount, 'sync')}", check=False)
    assert done.returncode == 1
    assert "Input/output error" in done.stderr


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("rm README", "Operation not permitted"),
        ("mv status retry/", "Operation not permitted"),
        ("mv dead-letter/op_00000000000000000000000000.json retry/", "No such file"),
        ("echo nonsense > ctl", "Invalid argument"),
    ],
)
def test_what_it_says_is_refused_is_refused_so(mount: Mount, command: str, word: str) -> None:
    done = mount.sh(f"cd $MOUNT/.relay && {command}", check=False)
    assert done.returncode != 0
    assert word in done.stderr


def test_everything_that_it_names_is_there(mount: Mount) -> None:
    listed = set(mount.out("ls -A $MOUNT/.relay").split())
    assert listed == {
        "README", "status", "status.json", "state.json", "pending", "dead-letter", "held", "discarded", "retry",
        "force", "content", "conflict", "log", "events", "metrics", "config.json", "problems", "ctl", ".gitignore",
        "CACHEDIR.TAG",
    }  # fmt: skip
    text = mount.out("cat $MOUNT/.relay/README")
    assert all(name in text for name in listed)
