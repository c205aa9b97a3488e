"""What the remote cannot hold follows the name that it belongs to."""

from __future__ import annotations

import pytest

from fsmount.model import ABSENT, Body, Digest, DraftId, Kind, LocalNode, OpKind, RemotePath, State
from tests.model.world import World
from tests.support.program import deliver, only, refuse, remove, rename, save

A, B = RemotePath("/d/a"), RemotePath("/d/b")
DIRECTORY, ELSEWHERE = RemotePath("/d"), RemotePath("/e")


def keep(world: World, path: str, **fields: object) -> LocalNode:
    node = LocalNode(path=RemotePath(path), **fields)  # type: ignore[arg-type]
    world.journal.keep(node)
    return node


def test_a_symbolic_link_says_any_bytes(world: World) -> None:
    node = keep(world, A, kind=Kind.SYMLINK, target=b"\xff/../x", made_at=3.5)
    world.reopen()
    assert world.journal.node(A) == node


def test_extended_attributes_are_set_replaced_and_removed(world: World) -> None:
    world.journal.keep_xattr(A, "user.two", b"\x00\xff")
    world.journal.keep_xattr(A, "user.one", b"1")
    world.journal.keep_xattr(A, "user.one", b"11")
    world.reopen()
    assert world.journal.xattrs(A) == {"user.one": b"11", "user.two": b"\x00\xff"}
    world.journal.keep_xattr(A, "user.two", None)
    world.journal.keep_xattr(A, "user.none", None)
    assert world.journal.xattrs(A) == {"user.one": b"11"}
    assert world.journal.xattrs(B) == {}


def test_extended_attributes_go_with_the_name(world: World) -> None:
    world.journal.keep_xattr(A, "user.one", b"1")
    world.journal.keep_xattr(B, "user.one", b"2")
    save(world, A, "one")
    rename(world, A, B)
    assert (world.journal.xattrs(A), world.journal.xattrs(B)) == ({}, {"user.one": b"1"})
    remove(world, B)
    assert world.journal.xattrs(B) == {}
    world.journal.keep_xattr(A, "user.one", b"1")
    world.journal.forget(A)
    assert world.journal.xattrs(A) == {}


def test_a_renamed_directory_takes_what_is_kept_of_it_along(world: World) -> None:
    keep(world, "/d", kind=Kind.DIRECTORY, mode=0o700)
    keep(world, "/d/sub/link", kind=Kind.SYMLINK, target=b"x")
    beside = keep(world, "/d-beside", mode=0o600)
    body = Body(size=1, digest=Digest("stands there"))
    keep(world, "/e/sub/link", kind=Kind.FILE, body=body)
    world.journal.keep_xattr(RemotePath("/e/old"), "user.old", b"")
    world.journal.keep_xattr(RemotePath("/d/sub"), "user.new", b"")
    world.journal.begin_draft(DraftId("draft"), RemotePath("/d/sub/open"), ABSENT)
    world.drafts[DraftId("draft")] = "typed"
    world.journal.rename_nodes(DIRECTORY, ELSEWHERE)
    assert world.journal.released() == [body]
    assert world.journal.node(DIRECTORY) is None
    assert world.journal.node(ELSEWHERE) == LocalNode(path=ELSEWHERE, kind=Kind.DIRECTORY, mode=0o700)
    (link,) = world.journal.nodes_in(RemotePath("/e/sub"))
    assert (link.path, link.target) == ("/e/sub/link", b"x")
    assert {node.path for node in world.journal.nodes_in(RemotePath("/"))} == {"/e", "/d-beside"}
    assert world.journal.node(beside.path) == beside
    assert world.journal.xattrs(RemotePath("/e/sub")) == {"user.new": b""}
    assert world.journal.xattrs(RemotePath("/e/old")) == {}
    (op_id,) = world.reopen()
    record = world.journal.record(op_id)
    assert record is not None
    assert record.op.path == "/e/sub/open"


def test_a_directory_renamed_to_a_longer_name_beside_itself(world: World) -> None:
    keep(world, "/d", kind=Kind.DIRECTORY)
    keep(world, "/d/a", mode=0o600)
    world.journal.rename_nodes(DIRECTORY, RemotePath("/dd/é"))
    assert [node.path for node in world.journal.nodes_in(RemotePath("/dd/é"))] == ["/dd/é/a"]
    assert [node.path for node in world.journal.nodes_in(RemotePath("/dd"))] == ["/dd/é"]


def test_the_moves_of_one_directory_rename_share_a_group(world: World) -> None:
    for path in (A, B):
        world.remote.write(path, "old")
        base = world.shown_base(path)
        world.journal.rename(path, RemotePath(f"/e{path}"), base, ABSENT, group="g1")
    rename(world, "/d/c", "/d/d")
    world.remote.write(RemotePath("/d/c"), "old")
    rename(world, "/d/c", "/d/d")
    groups = {record.op.path: record.op.group for record in world.journal.records() if record.op.kind is OpKind.MOVE}
    assert groups == {A: "g1", B: "g1", "/d/c": None}


def test_what_only_this_mount_keeps_is_counted_by_name(world: World) -> None:
    save(world, A, "one")
    assert world.journal.counts().local == 0
    keep(world, "/d", kind=Kind.DIRECTORY)
    keep(world, "/l", kind=Kind.SYMLINK, target=b"x")
    keep(world, "/m", mode=0o600)
    keep(world, "/t", mtime=3.0)
    world.journal.keep_xattr(RemotePath("/m"), "user.one", b"")
    world.journal.keep_xattr(A, "user.one", b"")
    world.journal.keep_xattr(A, "user.two", b"")
    assert world.journal.counts().local == 4


def test_settings_outlive_the_daemon(world: World) -> None:
    assert world.journal.setting("paused") is None
    world.journal.keep_setting("paused", "since noon")
    world.journal.keep_setting("paused", "yes")
    world.reopen()
    assert world.journal.setting("paused") == "yes"
    world.journal.keep_setting("paused", None)
    assert world.journal.setting("paused") is None


@pytest.mark.parametrize("undone", ["discarded", "failed", "held and discarded"])
def test_a_file_that_comes_back_has_its_attributes(world: World, undone: str) -> None:
    world.remote.write(A, "old")
    node = keep(world, A, mode=0o755, mtime=3.5, made_at=1.0)
    world.journal.keep_xattr(A, "user.one", b"1")
    remove(world, A, brake=0 if undone.startswith("held") else None)
    assert (world.journal.node(A), world.journal.xattrs(A), world.journal.counts().local) == (None, {}, 0)
    world.reopen()
    if undone == "failed":
        refuse(world)
    else:
        world.journal.discard(only(world, State.HELD if undone.startswith("held") else State.PENDING).op.op_id)
    assert (world.journal.node(A), world.journal.xattrs(A)) == (node, {"user.one": b"1"})


def test_a_delete_that_is_tried_again_takes_the_attributes_again(world: World) -> None:
    world.remote.write(A, "old")
    keep(world, A, mode=0o755)
    remove(world, A)
    world.journal.retry(refuse(world))
    assert world.journal.node(A) is None
    deliver(world)
    assert world.journal.rows() == 0


def test_a_file_made_again_begins_without_attributes(world: World) -> None:
    world.remote.write(A, "old")
    keep(world, A, mode=0o755)
    world.journal.keep_xattr(A, "user.one", b"1")
    remove(world, A, brake=0)
    save(world, A, "new")
    node = world.journal.node(A)
    assert node is not None
    assert (node.mode, world.journal.xattrs(A)) == (None, {})
    deliver(world)
    assert [node.path for node in world.journal.nodes_in(DIRECTORY)] == [A]
    assert world.journal.rows() == 1
