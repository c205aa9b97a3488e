"""A mount of a part of the remote: paths are absolute there, and relative to the mount here."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mount import Mount, until
from tests.support.ops import letters
from tests.support.server import RelayServer

pytestmark = pytest.mark.mount


@pytest.fixture
def subtree(tmp_path: Path, relay_server: RelayServer) -> Iterator[Mount]:
    """A mount of `…/local/github`."""
    relay_server.put_many({"/github/file.md": "theirs\n", "/github/issues/7.json": "{}", "/other/file.md": "no\n"})
    with Mount(
        tmp_path, relay_server, "--settle", "0.1", "--drain", "0.5", remote=f"{relay_server.remote}/github"
    ) as mounted:
        yield mounted


def test_what_lies_there_is_shown_and_saved(subtree: Mount) -> None:
    assert subtree.out("cd $MOUNT; ls -A; cat file.md issues/7.json") == ".relay\nfile.md\nissues\ntheirs\n{}"
    subtree.sh("cd $MOUNT; echo mine > file.md; echo new > issues/8.json; mv issues moved; rm moved/7.json")
    subtree.delivered()
    assert subtree.server.files() == {
        "/github/file.md": b"mine\n",
        "/github/moved/8.json": b"new\n",
        "/other/file.md": b"no\n",
    }
    subtree.server.put("/github/late", "late\n")
    until(lambda: "late" in subtree.out("ls $MOUNT"), "what comes later is seen")


def test_both_paths_of_a_dead_letter(subtree: Mount) -> None:
    subtree.server.rules('PUT /github/** 422 {"code":"bad","message":"no"}\n')
    subtree.sh("echo mine > $MOUNT/file.md; echo new > $MOUNT/issues/8.json")
    found = {letter["path"]: letter for letter in letters(subtree, 2)}
    letter = found["/github/file.md"]
    assert (letter["mountPath"], letter["provider"]) == ("file.md", "github")
    assert found["/github/issues/8.json"]["mountPath"] == "issues/8.json"
    assert "/github" not in letter["hint"]
    status = subtree.out("cat $MOUNT/.relay/status")
    assert "/github/file.md" in status or "file.md" in status
    events = [json.loads(line) for line in subtree.out("cat $MOUNT/.relay/events").splitlines()]
    dead = [event for event in events if event["event"] == "op.dead"]
    assert {(event["path"], event["mountPath"]) for event in dead} == {
        ("/github/file.md", "file.md"),
        ("/github/issues/8.json", "issues/8.json"),
    }
    subtree.server.rules("")
    subtree.sh(f"cd $MOUNT/.relay && mv dead-letter/{letter['opId']}.json retry/")
    until(lambda: subtree.server.get("/github/file.md") == b"mine\n", "the retry arrives")
    other = found["/github/issues/8.json"]["opId"]
    done = subtree.fsmount("writeback", "retry", "--opId", other, "--wait", str(subtree.point))
    assert done.returncode == 0, done.stdout + done.stderr
    assert subtree.server.get("/github/issues/8.json") == b"new\n"


def test_a_conflict_within_the_subtree(subtree: Mount) -> None:
    subtree.sh("echo mine > $MOUNT/file.md")
    subtree.server.put("/github/file.md", "theirs again\n")
    (letter,) = letters(subtree, 1)
    assert letter["reason"] == "conflict"
    assert subtree.out("getfattr --only-values -n user.relay.state $MOUNT/file.md") == "conflict"
    subtree.sh(f"mv $MOUNT/.relay/dead-letter/{letter['opId']}.json $MOUNT/.relay/force/")
    subtree.delivered()
    assert subtree.server.get("/github/file.md") == b"mine\n"
