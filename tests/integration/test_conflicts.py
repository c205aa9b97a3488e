"""Other people's work and ours on one path: no foreign version vanishes, no version of ours does, no lost answer is a
conflict."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.mount import Mount, until
from tests.support.ops import Letter, history, ops, revision, settled
from tests.support.server import RelayServer, serving

pytestmark = pytest.mark.mount

LARGE = 300_000
"""More bytes than a batch takes: such a file is put by itself."""
NAMES = (
    "save",
    "same",
    "twice",
    "deleted",
    "kept",
    "moved",
    "theirs",
    "lost/one",
    "lost/two",
    "lost/three",
    "lost/four",
    "open",
    "opened and removed",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayServer]:
    with serving(tmp_path_factory.mktemp("relay")) as running:
        running.put_many({f"/docs/{name}": "base\n" for name in NAMES})
        yield running


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory, server: RelayServer) -> Iterator[Mount]:
    with Mount(tmp_path_factory.mktemp("conflicts"), server, "--settle", "0.3", "--timeout", "3") as one:
        yield one


@pytest.fixture
def mount(mounted: Mount) -> Iterator[Mount]:
    """The module's mount; what a test leaves dead is given up after it."""
    yield mounted
    settled(mounted)


def letter_of(mount: Mount, path: str, count: int = 1) -> Letter:
    """The newest of `count` dead letters of a path, waited for."""

    def found() -> list[Letter]:
        return [letter for letter in ops(mount, "dead-letter") if letter["path"] == path]

    until(lambda: len(found()) == count, f"{path} has {count} dead letters", 8)
    return found()[-1]


def kept(mount: Mount, content: bytes) -> bool:
    """Whether a body with these bytes lies in the spool."""
    digest = hashlib.sha256(content).hexdigest()
    files = [file for file in (mount.state / "spool").rglob(f"*{digest}*") if file.is_file()]
    return any(file.read_bytes() == content for file in files)


def test_a_foreign_change_before_our_put_is_a_conflict_and_both_survive(mount: Mount) -> None:
    base = revision(mount, "/docs/save")
    mount.sh("echo mine > $MOUNT/docs/save")
    theirs = mount.server.put("/docs/save", "theirs\n")
    letter = letter_of(mount, "/docs/save")
    assert (letter["reason"], letter["lastStatus"], letter["baseRevision"]) == ("conflict", 409, base)
    assert (mount.server.get("/docs/save"), revision(mount, "/docs/save")) == (b"theirs\n", theirs)
    assert mount.out(f"cat $MOUNT/.relay/content/{letter['opId']} $MOUNT/docs/save") == "mine\nmine\n"
    assert kept(mount, b"theirs\n")

    mount.sh("echo mine again > $MOUNT/docs/save")
    until(lambda: bool(mount.ops("discarded")), "the newer conflict takes the older one's place")
    newer = letter_of(mount, "/docs/save")
    assert (newer["reason"], newer["baseRevision"], newer["opId"] != letter["opId"]) == ("conflict", base, True)
    assert [op["supersededBy"] for op in mount.ops("discarded")] == [newer["opId"]]
    assert mount.server.get("/docs/save") == b"theirs\n"
    mount.sh("mv $MOUNT/.relay/dead-letter/*.json $MOUNT/.relay/discarded/")
    until(lambda: mount.out("cat $MOUNT/docs/save") == "theirs\n", "the path shows the remote's version")
    mount.sh("echo merged > $MOUNT/docs/save")
    mount.delivered()
    assert mount.server.get("/docs/save") == b"merged\n"


def test_the_same_bytes_from_elsewhere_are_no_conflict(mount: Mount) -> None:
    mount.sh("echo agreed > $MOUNT/docs/same")
    theirs = mount.server.put("/docs/same", "agreed\n")
    mount.delivered()
    assert revision(mount, "/docs/same") == theirs
    assert mount.out("cat $MOUNT/docs/same") == "agreed\n"


def test_a_touch_elsewhere_that_kept_the_bytes_is_no_conflict(mount: Mount) -> None:
    assert mount.out("cat $MOUNT/docs/twice") == "base\n"
    mount.sh("echo mine > $MOUNT/docs/twice")
    mount.server.put("/docs/twice", "base\n")
    mount.delivered()
    assert mount.server.get("/docs/twice") == b"mine\n"


def test_a_foreign_delete_before_our_put(mount: Mount) -> None:
    mount.sh("echo mine > $MOUNT/docs/deleted")
    mount.server.delete("/docs/deleted")
    letter = letter_of(mount, "/docs/deleted")
    assert (letter["reason"], mount.server.get("/docs/deleted")) == ("remote-deleted", None)
    assert mount.out("cat $MOUNT/docs/deleted") == "mine\n"
    mount.sh(f"mv $MOUNT/.relay/dead-letter/{letter['opId']}.json $MOUNT/.relay/discarded/")
    until(lambda: "deleted" not in mount.out("ls $MOUNT/docs").split(), "the path is gone here too")
    assert mount.out(f"cat $MOUNT/.relay/content/{letter['opId']}") == "mine\n"


@pytest.mark.parametrize("size", [5, LARGE])
def test_a_foreign_create_before_ours(mount: Mount, size: int) -> None:
    path, theirs = f"/docs/made{size}", b"t" * size
    mount.sh(f"head -c {size} /dev/zero > $MOUNT{path}")
    mount.server.put(path, theirs)
    letter = letter_of(mount, path)
    assert (letter["reason"], letter["baseRevision"], letter["size"]) == ("conflict", None, size)
    assert mount.server.get(path) == theirs
    assert kept(mount, theirs)
    assert mount.out(f"head -c {size} /dev/zero | cmp - $MOUNT{path}") == ""


def test_a_foreign_change_before_our_delete_brings_the_file_back(mount: Mount) -> None:
    mount.sh("rm $MOUNT/docs/kept")
    mount.server.put("/docs/kept", "theirs\n")
    letter = letter_of(mount, "/docs/kept")
    assert (letter["kind"], letter["reason"]) == ("delete", "conflict")
    assert mount.out("cat $MOUNT/docs/kept") == "theirs\n"
    assert mount.server.get("/docs/kept") == b"theirs\n"


def test_a_foreign_change_before_our_rename_loses_nothing(mount: Mount) -> None:
    assert mount.out("cat $MOUNT/docs/moved") == "base\n"
    mount.sh("mv $MOUNT/docs/moved $MOUNT/docs/away")
    mount.server.put("/docs/moved", "theirs\n")
    letter = letter_of(mount, "/docs/moved")
    assert (letter["kind"], letter["toPath"], letter["reason"]) == ("move", "/docs/away", "conflict")
    assert mount.server.get("/docs/moved") == b"theirs\n"
    assert "deleted" not in history(mount, "/docs/moved")


def test_a_foreign_change_between_the_two_steps_of_a_rename(mount: Mount) -> None:
    mount.server.rules("DELETE /docs/theirs delay=700ms\n")
    assert mount.out("cat $MOUNT/docs/theirs") == "base\n"
    mount.sh("mv $MOUNT/docs/theirs $MOUNT/docs/stepped")
    until(lambda: mount.server.get("/docs/stepped") == b"base\n", "the new name is there")
    mount.server.put("/docs/theirs", "theirs\n")
    letter = letter_of(mount, "/docs/theirs")
    assert letter["reason"] == "conflict"
    assert (mount.server.get("/docs/theirs"), mount.server.get("/docs/stepped")) == (b"theirs\n", b"base\n")


@pytest.mark.parametrize(
    ("rule", "command", "path", "events"),
    [
        ("PUT /docs/lost/one drop times=1", "echo mine > one", "one", ["created", "updated"]),
        ("PUT /docs/lost/large drop times=1", f"head -c {LARGE} /dev/zero > large", "large", ["created"]),
        ("DELETE /docs/lost/two drop times=1", "rm two", "two", ["created", "deleted"]),
        ("PUT /docs/lost/new drop times=1", "cat three; mv three new", "new", ["created"]),
        ("DELETE /docs/lost/four drop times=1", "cat four; mv four five", "four", ["created", "deleted"]),
    ],
)
def test_a_lost_answer_is_no_conflict(mount: Mount, rule: str, command: str, path: str, events: list[str]) -> None:
    mount.server.rules(f"{rule}\n")
    before = len(mount.server.requests())
    mount.sh(f"cd $MOUNT/docs/lost; {command}")
    mount.delivered()
    assert history(mount, f"/docs/lost/{path}") == events
    assert ops(mount, "dead-letter") == []
    assert any(line.endswith(" -") for line in mount.server.requests()[before:]), "an answer was lost"


def test_a_new_file_whose_save_failed_and_that_is_removed_leaves_what_others_made(mount: Mount) -> None:
    mount.sh("echo mine > $MOUNT/docs/both")
    mount.server.put("/docs/both", "theirs\n")
    letter_of(mount, "/docs/both")
    mount.sh("rm $MOUNT/docs/both")
    assert ops(mount, "dead-letter") == ops(mount, "pending") == []
    assert mount.server.get("/docs/both") == b"theirs\n"
    assert mount.out("cat $MOUNT/docs/both") == "theirs\n"


def hold_open(mount: Mount, name: str) -> subprocess.Popen[str]:
    """A program that has read the file, is about to write to it, and writes at a line from the test."""
    script = 'exec 3<>"$1"; read -u 3 line; echo "$line"; read go; echo mine >&3; exec 3>&-; echo "closed $?"'
    return subprocess.Popen(
        ["timeout", "-s", "KILL", "20", "bash", "-c", script, "-", f"{mount.point}/docs/{name}"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=mount.environment,
    )  # fmt: skip


def test_what_is_written_to_a_version_that_was_replaced_meanwhile_is_a_conflict(mount: Mount) -> None:
    base = revision(mount, "/docs/open")
    with hold_open(mount, "open") as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "base\n"
        theirs = mount.server.put("/docs/open", "theirs\n")
        until(lambda: mount.out("cat $MOUNT/docs/open") == "theirs\n", "others see the new version")
        assert writer.communicate("go\n")[0] == "closed 0\n"
    letter = letter_of(mount, "/docs/open")
    assert (letter["reason"], letter["baseRevision"]) == ("conflict", base)
    assert mount.out(f"cat $MOUNT/.relay/content/{letter['opId']}") == "base\nmine\n"
    assert (mount.server.get("/docs/open"), revision(mount, "/docs/open")) == (b"theirs\n", theirs)


def test_what_is_written_to_a_file_that_was_removed_meanwhile_is_not_lost(mount: Mount) -> None:
    with hold_open(mount, "opened and removed") as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "base\n"
        mount.server.delete("/docs/opened and removed")
        until(lambda: "opened" not in mount.out("ls $MOUNT/docs"), "others see that it is gone")
        assert writer.communicate("go\n")[0] == "closed 0\n"
    letter = letter_of(mount, "/docs/opened and removed")
    assert letter["reason"] == "remote-deleted"
    assert mount.out(f"cat $MOUNT/.relay/content/{letter['opId']}") == "base\nmine\n"
