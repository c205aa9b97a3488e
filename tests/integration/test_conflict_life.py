"""A conflict from its beginning to its end: somebody changes, deletes or replaces what is being changed here. Both
versions are there all the time, and each way to settle it does what it says, also after a second foreign change."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.mount import Mount, until
from tests.support.ops import Letter, ops, settled
from tests.support.server import RelayServer, serving

pytestmark = pytest.mark.mount

NAMES = (
    "discard", "force", "again", "merge", "accept", "gone", "gone-discard", "rm", "rm-discard", "moved", "dir",
    "dir-force", "unread", "crash", "late",
)  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayServer]:
    with serving(tmp_path_factory.mktemp("relay")) as running:
        running.put_many({f"/docs/{name}": "base\n" for name in NAMES} | {"/docs/there": "there\n"})
        yield running


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory, server: RelayServer) -> Iterator[Mount]:
    options = ("--settle", "0.1", "--timeout", "3", "--drain", "0.5")
    with Mount(tmp_path_factory.mktemp("conflict-life"), server, *options) as one:
        yield one


@pytest.fixture
def mount(mounted: Mount) -> Iterator[Mount]:
    yield mounted
    settled(mounted)


def dead(mount: Mount, path: str) -> list[Letter]:
    return [letter for letter in ops(mount, "dead-letter") if path in (letter["path"], letter["toPath"])]


def the_dead(mount: Mount, path: str, *, after: str = "") -> str:
    """The only dead letter of a path, waited for; another one than ``after``."""
    until(lambda: [letter["opId"] for letter in dead(mount, path)] not in ([], [after]), f"{path} has a dead letter", 8)
    (letter,) = dead(mount, path)
    assert letter["reason"] in ("conflict", "remote-deleted")
    return str(letter["opId"])


def conflict(mount: Mount, name: str, mine: str = "mine", theirs: str = "theirs") -> str:
    """Saves a file while somebody else does; the op."""
    mount.sh(f"cat $MOUNT/docs/{name}; echo {mine} > $MOUNT/docs/{name}")
    mount.server.put(f"/docs/{name}", f"{theirs}\n")
    return the_dead(mount, f"/docs/{name}")


def verb(mount: Mount, op: str, directory: str) -> None:
    mount.sh(f"mv $MOUNT/.relay/dead-letter/{op}.json $MOUNT/.relay/{directory}/")


def remote(mount: Mount, name: str) -> str | None:
    content = mount.server.get(f"/docs/{name}")
    return None if content is None else content.decode()


def shown(mount: Mount, name: str) -> str:
    return mount.out(f"cat $MOUNT/docs/{name}")


def given_up(mount: Mount, path: str) -> list[str]:
    """The bytes of what is discarded of a path."""
    found = [letter for letter in ops(mount, "discarded") if path == letter["path"]]
    return [mount.out(f"cat $MOUNT/.relay/content/{letter['opId']}") for letter in found if letter["size"] is not None]


def side(mount: Mount, op: str, name: str) -> str:
    return mount.out(f"cat $MOUNT/.relay/conflict/{op}/{name}")


def test_both_versions_are_there_until_somebody_decides(mount: Mount) -> None:
    op = conflict(mount, "discard")
    assert (shown(mount, "discard"), remote(mount, "discard")) == ("mine\n", "theirs\n")
    assert (side(mount, op, "mine"), side(mount, op, "theirs")) == ("mine\n", "theirs\n")
    verb(mount, op, "discarded")
    until(lambda: shown(mount, "discard") == "theirs\n", "the other version is shown")
    assert "mine\n" in given_up(mount, "/docs/discard")
    assert remote(mount, "discard") == "theirs\n"


def test_force_makes_mine_win_and_keeps_what_it_replaced(mount: Mount) -> None:
    verb(mount, conflict(mount, "force"), "force")
    mount.delivered()
    assert (shown(mount, "force"), remote(mount, "force")) == ("mine\n", "mine\n")
    assert given_up(mount, "/docs/force") == ["theirs\n"]


def test_a_version_still_newer_is_a_new_conflict(mount: Mount) -> None:
    op = conflict(mount, "again")
    mount.server.put("/docs/again", "newer\n")
    verb(mount, op, "force")
    until(lambda: bool(dead(mount, "/docs/again")), "it conflicts again")
    assert (side(mount, op, "theirs"), remote(mount, "again")) == ("newer\n", "newer\n")
    verb(mount, op, "force")
    mount.delivered()
    assert remote(mount, "again") == "mine\n"
    assert "newer\n" in given_up(mount, "/docs/again")


def test_a_merge_is_saved_and_forced(mount: Mount) -> None:
    first = conflict(mount, "merge")
    mount.sh("echo merged > $MOUNT/docs/merge")
    second = the_dead(mount, "/docs/merge", after=first)
    assert "mine\n" in given_up(mount, "/docs/merge"), "the newer conflict replaces the older one"
    mount.server.put("/docs/merge", "later\n")
    verb(mount, second, "force")
    until(lambda: bool(dead(mount, "/docs/merge")), "it conflicts once more")
    mount.sh("echo merged with later > $MOUNT/docs/merge")
    verb(mount, the_dead(mount, "/docs/merge", after=second), "force")
    mount.delivered()
    assert remote(mount, "merge") == "merged with later\n"
    assert {"mine\n", "merged\n", "later\n"} <= set(given_up(mount, "/docs/merge"))


def test_a_save_made_from_theirs_needs_no_force(mount: Mount) -> None:
    conflict(mount, "accept")
    setxattr = "import os, sys; os.setxattr(sys.argv[1], 'user.relay.base', b'theirs')"
    mount.sh(f'python3 -I -S -c "{setxattr}" $MOUNT/docs/accept && echo merged > $MOUNT/docs/accept')
    mount.delivered()
    assert remote(mount, "accept") == "merged\n"
    assert dead(mount, "/docs/accept") == []
    assert {"mine\n", "theirs\n"} <= set(given_up(mount, "/docs/accept"))


def test_what_somebody_deleted_is_made_again_by_force(mount: Mount) -> None:
    mount.sh("cat $MOUNT/docs/gone; echo mine > $MOUNT/docs/gone")
    mount.server.delete("/docs/gone")
    op = the_dead(mount, "/docs/gone")
    assert (shown(mount, "gone"), remote(mount, "gone")) == ("mine\n", None)
    verb(mount, op, "force")
    mount.delivered()
    assert remote(mount, "gone") == "mine\n"


def test_what_somebody_deleted_goes_here_when_it_is_given_up(mount: Mount) -> None:
    mount.sh("cat $MOUNT/docs/gone-discard; echo mine > $MOUNT/docs/gone-discard")
    mount.server.delete("/docs/gone-discard")
    verb(mount, the_dead(mount, "/docs/gone-discard"), "discarded")
    until(lambda: mount.sh("test -e $MOUNT/docs/gone-discard", check=False).returncode == 1, "it is gone here too")
    assert given_up(mount, "/docs/gone-discard") == ["mine\n"]


@pytest.mark.parametrize("name", ["rm", "rm-discard"])
def test_a_delete_of_what_somebody_changed_brings_the_file_back(mount: Mount, name: str) -> None:
    mount.sh(f"cat $MOUNT/docs/{name}; rm $MOUNT/docs/{name}")
    mount.server.put(f"/docs/{name}", "theirs\n")
    op = the_dead(mount, f"/docs/{name}")
    until(lambda: shown(mount, name) == "theirs\n", "it is back")
    verb(mount, op, "force" if name == "rm" else "discarded")
    if name == "rm":
        mount.delivered()
        assert remote(mount, name) is None
        assert given_up(mount, "/docs/rm") == ["theirs\n"]
    else:
        assert (shown(mount, name), remote(mount, name)) == ("theirs\n", "theirs\n")


def test_a_file_renamed_here_and_changed_there(mount: Mount) -> None:
    mount.sh("cat $MOUNT/docs/moved; mv $MOUNT/docs/moved $MOUNT/docs/moved-here")
    mount.server.put("/docs/moved", "theirs\n")
    op = the_dead(mount, "/docs/moved")
    assert remote(mount, "moved") == "theirs\n"
    verb(mount, op, "force")
    mount.delivered()
    assert remote(mount, "moved") is None
    assert "theirs\n" in (remote(mount, "moved-here"), *given_up(mount, "/docs/moved"))


@pytest.mark.parametrize("name", ["dir", "dir-force"])
def test_a_file_that_became_a_directory_there(mount: Mount, name: str) -> None:
    mount.sh(f"cat $MOUNT/docs/{name}; echo mine > $MOUNT/docs/{name}")
    mount.server.delete(f"/docs/{name}")
    mount.server.put(f"/docs/{name}/x", "theirs\n")
    op = the_dead(mount, f"/docs/{name}")
    assert side(mount, op, "mine") == "mine\n"
    assert remote(mount, f"{name}/x") == "theirs\n"
    verb(mount, op, "force" if name == "dir-force" else "discarded")
    if name == "dir":
        until(lambda: mount.sh(f"cat $MOUNT/docs/{name}/x", check=False).stdout == "theirs\n", "the directory is shown")
        assert given_up(mount, f"/docs/{name}") == ["mine\n"]
    else:
        until(lambda: not ops(mount, "pending"), "it was tried")
        assert remote(mount, name) == "mine\n"
    assert remote(mount, f"{name}/x") == "theirs\n"


def test_what_could_not_be_read_when_it_conflicted_is_fetched_before_it_is_replaced(mount: Mount) -> None:
    mount.sh("cat $MOUNT/docs/unread; echo mine > $MOUNT/docs/unread")
    mount.server.rules("GET /docs/unread 403 times=1\n")
    mount.server.put("/docs/unread", "theirs\n")
    op = the_dead(mount, "/docs/unread")
    assert "theirs" not in mount.out(f"ls $MOUNT/.relay/conflict/{op}").split()
    mount.server.rules("")
    verb(mount, op, "force")
    mount.delivered()
    assert remote(mount, "unread") == "mine\n"
    assert given_up(mount, "/docs/unread") == ["theirs\n"]


def test_a_forced_op_outlives_the_daemon(mount: Mount) -> None:
    op = conflict(mount, "crash")
    mount.server.rules("* /** 503\n")
    verb(mount, op, "force")
    mount.kill()
    mount.server.rules("")
    mount.start()
    mount.delivered()
    assert remote(mount, "crash") == "mine\n"
    assert given_up(mount, "/docs/crash") == ["theirs\n"]


def test_the_events_tell_the_whole_story(mount: Mount) -> None:
    op = conflict(mount, "late")
    verb(mount, op, "force")
    mount.delivered()
    lines = [json.loads(line) for line in mount.out("cat $MOUNT/.relay/events").splitlines()]
    story = [line["event"] for line in lines if line.get("opId") == op]
    assert story[0] == "op.queued"
    assert story[-1] == "op.acknowledged"
    assert [event for event in story if event in ("op.dead", "op.queued")] == ["op.queued", "op.dead", "op.queued"]
    died = next(line for line in lines if line.get("opId") == op and line["event"] == "op.dead")
    assert (died["reason"], died["status"], died["kind"], died["mountPath"]) == ("conflict", 409, "put", "docs/late")


def test_only_conflicts_can_be_forced(mount: Mount) -> None:
    mount.server.rules("PUT /docs/there 422\n")
    mount.sh("echo mine > $MOUNT/docs/there")
    until(lambda: bool(dead(mount, "/docs/there")), "it is refused")
    (letter,) = dead(mount, "/docs/there")
    refused = mount.sh(f"mv $MOUNT/.relay/dead-letter/{letter['opId']}.json $MOUNT/.relay/force/", check=False)
    assert "Operation not permitted" in refused.stderr
