"""The .relay tree as a program meets it: names, sizes, renderings, verbs."""

from __future__ import annotations

import errno
import itertools
import json

import pytest

from fsmount.model import Base, Ino, Kind, Problem, Receipt, RemotePath, Revision, State
from fsmount.vfs.control import CONTROL_ROOT
from fsmount.vfs.inodes import CONTROL
from tests.support.relay import Relay, refused

DIRECTORIES = {"pending", "dead-letter", "held", "discarded", "content", "conflict", "retry", "force"}
FILES = {
    "README", "status", "status.json", "state.json", "log", ".gitignore", "CACHEDIR.TAG",
    "events", "metrics", "config.json", "problems", "ctl",
}  # fmt: skip
NAMES = DIRECTORIES | FILES


def test_the_root_lists_what_is_there_and_nothing_else(relay: Relay) -> None:
    assert set(relay.ls("")) == NAMES
    assert not relay.exists("x")


def test_everything_belongs_to_the_mounting_user_and_is_private(relay: Relay) -> None:
    relay.mounted.dead("/a/x")
    for name in NAMES:
        attr = relay.tree.lookup(CONTROL_ROOT, name)
        assert (attr.uid, attr.gid) == (1000, 1001)
        assert attr.kind is (Kind.DIRECTORY if name in DIRECTORIES else Kind.FILE)
        assert attr.mode == (0o700 if name in DIRECTORIES else 0o600 if name == "ctl" else 0o400)
        assert attr.ino >= CONTROL
        assert relay.tree.getattr(attr.ino) == attr
    assert relay.tree.root().nlink == 2 + len(DIRECTORIES)


def test_inode_numbers_are_stable_and_differ(relay: Relay) -> None:
    op_id = relay.mounted.dead("/a/x")
    paths = [*NAMES, f"dead-letter/{op_id}.json", f"content/{op_id}"]
    first = [relay.ino(path) for path in paths]
    relay.mounted.clock.advance(10)
    assert [relay.ino(path) for path in paths] == first
    assert len(set(first)) == len(first)
    assert all(CONTROL < ino < 1 << 63 for ino in first)


@pytest.mark.parametrize("name", sorted(FILES))
def test_the_size_is_that_of_what_is_read(relay: Relay, name: str) -> None:
    relay.log.note("mount")
    relay.mounted.dead("/a/x")
    relay.mounted.odd = (Problem(path="/a/..", why="no local name"),)
    assert relay.tree.lookup(CONTROL_ROOT, name).size == len(relay.read(name)) > 0


def test_an_op_is_a_file_of_its_state(relay: Relay) -> None:
    mounted = relay.mounted
    dead, gone = mounted.dead("/a/dead"), mounted.dead("/a/gone")
    mounted.discard(gone)
    sending = mounted.save("/a/sending")
    mounted.claim(sending)
    pending = mounted.save("/a/pending")
    assert relay.ls("pending") == [f"{pending}.json", f"{sending}.json"]
    assert relay.ls("dead-letter") == [f"{dead}.json"]
    assert relay.ls("discarded") == [f"{gone}.json"]
    assert relay.ls("retry") == []
    assert set(relay.ls("content")) == {dead, gone, sending, pending}
    shown = json.loads(relay.read(f"dead-letter/{dead}.json"))
    assert (shown["opId"], shown["state"], shown["path"]) == (dead, "dead-letter", "/a/dead")
    assert relay.tree.getattr(relay.ino(f"dead-letter/{dead}.json")).size == len(relay.read(f"dead-letter/{dead}.json"))


def test_content_is_the_bytes_of_the_op(relay: Relay) -> None:
    content = bytes(range(256)) * 10
    op_id = relay.mounted.dead("/a/x", content)
    assert relay.read(f"content/{op_id}") == content
    assert relay.tree.getattr(relay.ino(f"content/{op_id}")).size == len(content)
    assert not relay.exists(f"content/{op_id}.json")


def test_an_op_without_bytes_has_no_content(relay: Relay) -> None:
    relay.mounted.journal.delete(RemotePath("/a/x"), Base(Revision("r1")))
    (name,) = relay.ls("pending")
    assert relay.ls("content") == []
    assert not relay.exists(f"content/{name.removesuffix('.json')}")


def test_bytes_that_are_gone_are_an_input_error_and_logged(relay: Relay) -> None:
    op_id = relay.mounted.dead("/a/x")
    record = relay.mounted.journal.record(op_id)
    assert record is not None
    assert record.op.body is not None
    relay.mounted.spooled.remove(record.op.body)
    with refused(errno.EIO):
        relay.tree.open(relay.ino(f"content/{op_id}"))
    assert f"spool.missing {op_id} /a/x".encode() in relay.read("log")


def test_an_op_in_another_state_or_unknown_is_not_there(relay: Relay) -> None:
    op_id = relay.mounted.dead("/a/x")
    for path in (f"pending/{op_id}.json", f"discarded/{op_id}.json", f"retry/{op_id}.json", f"dead-letter/{op_id}"):
        assert not relay.exists(path)
    assert not relay.exists("dead-letter/op_unknown.json")
    assert not relay.exists("dead-letter/op_\udcff.json")


# renderings


def test_a_rendering_is_shared_for_a_second(relay: Relay) -> None:
    before = relay.tree.lookup(CONTROL_ROOT, "status.json")
    relay.mounted.clock.advance(0.9)
    assert relay.tree.getattr(before.ino) == before
    relay.mounted.clock.advance(0.2)
    assert relay.tree.getattr(before.ino).mtime == relay.mounted.clock.now()


def test_a_rendering_that_the_queue_has_overtaken_stands_for_a_moment(relay: Relay) -> None:
    before = relay.tree.lookup(CONTROL_ROOT, "status.json")
    relay.mounted.dead("/a/x")
    relay.mounted.clock.advance(0.09)
    assert relay.tree.getattr(before.ino) == before
    assert json.loads(relay.read("status.json"))["queue"]["deadLetter"] == 0
    relay.mounted.clock.advance(0.02)
    after = relay.tree.getattr(before.ino)
    assert after.mtime == after.ctime == relay.mounted.clock.now()
    assert json.loads(relay.read("status.json"))["queue"]["deadLetter"] == 1


def test_a_change_made_here_is_seen_at_once(relay: Relay) -> None:
    relay.read("status.json")
    relay.mounted.save("/a/x")
    relay.tree.changed()
    assert json.loads(relay.read("status.json"))["queue"]["pending"] == 1


def test_a_handle_reads_the_rendering_that_it_opened(relay: Relay) -> None:
    attr = relay.tree.lookup(CONTROL_ROOT, "status")
    handle = relay.tree.open(attr.ino)
    start = relay.tree.read(handle, 0, 10)
    for number in range(3):
        relay.mounted.dead(f"/a/{number}")
    relay.tree.changed()
    relay.mounted.clock.advance(60)
    assert relay.tree.getattr(attr.ino) == attr
    assert len(start + relay.tree.read(handle, 10, 1 << 20)) == attr.size
    relay.tree.release(handle)
    assert relay.tree.getattr(attr.ino).size > attr.size


def test_all_renderings_of_one_moment_agree(relay: Relay) -> None:
    relay.read("status")
    relay.mounted.clock.advance(0.05)
    relay.mounted.dead("/a/x")
    assert json.loads(relay.read("status.json"))["queue"]["deadLetter"] == 0
    assert json.loads(relay.read("state.json"))["outbox"]["failed"] == 0
    times = {relay.tree.lookup(CONTROL_ROOT, name).mtime for name in ("status", "status.json", "state.json")}
    assert len(times) == 1


def test_an_op_that_is_gone_can_be_read_and_stat_by_who_has_it_open(relay: Relay) -> None:
    mounted = relay.mounted
    op_id = mounted.save("/a/x", b"bytes")
    paths = (f"pending/{op_id}.json", f"content/{op_id}")
    inos = [relay.ino(path) for path in paths]
    handles = [relay.tree.open(ino) for ino in inos]
    claim = mounted.claim(op_id)
    receipt = Receipt(path=RemotePath("/a/x"), revision=Revision("r1"))
    mounted.journal.acknowledge(claim, receipt, mounted.answered())
    for path, ino, handle in zip(paths, inos, handles, strict=True):
        assert not relay.exists(path)
        assert relay.tree.getattr(ino).size == len(relay.tree.read(handle, 0, 1 << 20))
        relay.tree.release(handle)
        with refused(errno.ENOENT):
            relay.tree.getattr(ino)


def test_the_log_grows_and_an_old_one_stays_readable(relay: Relay) -> None:
    relay.log.note("first")
    ino = relay.ino("log")
    handle = relay.tree.open(ino)
    size = relay.tree.getattr(ino).size
    relay.log.note("second")
    assert relay.tree.getattr(ino).size > size
    assert b"second" in relay.tree.read(handle, size, 1000)
    while relay.ino("log") == ino:
        relay.log.note("more", "x" * 500)
    end = relay.tree.getattr(ino).size
    assert relay.tree.read(handle, 0, 1 << 20).count(b"first") == 1
    assert relay.tree.read(handle, end, 100) == b""
    relay.tree.release(handle)
    with refused(errno.ESTALE):
        relay.tree.getattr(ino)
    with refused(errno.ESTALE):
        relay.tree.open(ino)


# what cannot be


def test_nothing_is_opened_for_writing(relay: Relay) -> None:
    op_id = relay.mounted.dead("/a/x")
    for path in ("status", "log", f"dead-letter/{op_id}.json", f"content/{op_id}"):
        with refused(errno.EPERM):
            relay.tree.open(relay.ino(path), writable=True)
    assert relay.tree.refuse("unlink", relay.ino("status")).errno == errno.EPERM


def test_a_directory_is_no_file_and_a_file_no_directory(relay: Relay) -> None:
    with refused(errno.EISDIR):
        relay.tree.open(relay.ino("pending"))
    with refused(errno.ENOTDIR):
        relay.tree.listdir(relay.ino("status"))
    with refused(errno.ENOENT):
        relay.tree.getattr(Ino(CONTROL + 99))
    with refused(errno.ENOENT):
        relay.tree.listdir(Ino((1 << 62) + (1 << 61) + 5))


# verbs


async def test_mv_to_retry_puts_it_back_in_the_queue(relay: Relay) -> None:
    op_id = relay.mounted.dead("/a/x")
    relay.read("status.json")
    await relay.mv(f"dead-letter/{op_id}.json", "retry/")
    assert relay.ls("pending") == [f"{op_id}.json"]
    assert relay.ls("dead-letter") == relay.ls("retry") == []
    assert not relay.exists(f"dead-letter/{op_id}.json")
    assert json.loads(relay.read("status.json"))["queue"]["pending"] == 1
    assert f"op.queued {op_id} /a/x".encode() in relay.read("log")


async def test_a_verbs_destination_answers_for_a_second_unlisted(relay: Relay) -> None:
    op_id = relay.mounted.dead("/a/x")
    ino = relay.ino(f"dead-letter/{op_id}.json")
    await relay.mv(f"dead-letter/{op_id}.json", "retry/")
    echo = relay.tree.lookup(relay.ino("retry"), f"{op_id}.json")
    assert echo.ino not in (ino, relay.ino(f"pending/{op_id}.json"))
    assert relay.tree.getattr(echo.ino) == echo
    assert echo.mode & 0o200, "or mv asks whether to replace it"
    relay.mounted.clock.advance(1.1)
    assert not relay.exists(f"retry/{op_id}.json")


async def test_several_ops_are_retried_one_after_the_other(relay: Relay) -> None:
    ids = [relay.mounted.dead(f"/a/{number}") for number in range(3)]
    for op_id in ids:
        assert not relay.exists(f"retry/{op_id}.json")
        await relay.mv(f"dead-letter/{op_id}.json", "retry/")
    assert all(relay.exists(f"retry/{op_id}.json") for op_id in ids)
    assert len(relay.ls("pending")) == 3


@pytest.mark.parametrize("source", ["pending", "dead-letter"])
async def test_mv_to_discarded_gives_it_up(relay: Relay, source: str) -> None:
    op_id = relay.mounted.save("/a/x") if source == "pending" else relay.mounted.dead("/a/x")
    await relay.mv(f"{source}/{op_id}.json", "discarded/")
    assert relay.ls("discarded") == [f"{op_id}.json"]
    assert relay.ls(source) == []
    assert relay.read(f"content/{op_id}") == b"hello"


async def test_what_was_discarded_can_be_retried(relay: Relay) -> None:
    op_id = relay.mounted.dead("/a/x")
    await relay.mv(f"dead-letter/{op_id}.json", "discarded/")
    await relay.mv(f"discarded/{op_id}.json", "retry/")
    assert relay.ls("pending") == [f"{op_id}.json"]


async def test_an_op_that_failed_again_can_be_retried_over_its_echo(relay: Relay) -> None:
    op_id = relay.mounted.dead("/a/x")
    await relay.mv(f"dead-letter/{op_id}.json", "retry/")
    relay.mounted.refuse(op_id)
    await relay.mv(f"dead-letter/{op_id}.json", "retry/", flags=0)
    record = relay.mounted.journal.record(op_id)
    assert record is not None
    assert (record.state, record.attempts) == (State.PENDING, 2)


async def test_every_other_rename_is_not_permitted(relay: Relay) -> None:
    mounted = relay.mounted
    ids = {"pending": mounted.save("/a/p"), "dead-letter": mounted.dead("/b/d"), "discarded": mounted.dead("/c/x")}
    mounted.discard(ids["discarded"])
    allowed = {("pending", "discarded"), ("dead-letter", "discarded"), ("dead-letter", "retry"), ("discarded", "retry")}
    for source, target in itertools.product(ids, ("pending", "dead-letter", "discarded", "retry", "content", "")):
        if (source, target) not in allowed:
            with refused(errno.EPERM):
                await relay.mv(f"{source}/{ids[source]}.json", f"{target}/")
    with refused(errno.EPERM):
        await relay.mv(f"dead-letter/{ids['dead-letter']}.json", "retry/other.json")
    with refused(errno.EPERM):
        await relay.mv(f"content/{ids['pending']}", "discarded/")
    with refused(errno.EPERM):
        await relay.mv("status", "retry/")
    with refused(errno.EPERM):
        await relay.tree.rename(Ino(7), "x.json", relay.ino("retry"), "x.json")
    with refused(errno.EPERM):
        await relay.tree.rename(relay.ino("pending"), f"{ids['pending']}.json", Ino(7), f"{ids['pending']}.json")
    assert [len(relay.ls(name)) for name in ids] == [1, 1, 1]


async def test_names_cannot_be_exchanged(relay: Relay) -> None:
    op_id = relay.mounted.dead("/a/x")
    with refused(errno.EINVAL):
        await relay.mv(f"dead-letter/{op_id}.json", "retry/", flags=2)
    assert relay.ls("pending") == []


async def test_an_op_that_is_gone_or_has_moved_on_is_not_there(relay: Relay) -> None:
    op_id = relay.mounted.dead("/a/x")
    relay.mounted.retry(op_id)
    for name in (op_id, "op_unknown"):
        with refused(errno.ENOENT):
            await relay.mv(f"dead-letter/{name}.json", "retry/")


async def test_an_op_that_is_being_sent_is_busy_and_the_log_says_so(relay: Relay) -> None:
    op_id = relay.mounted.save("/a/x")
    relay.mounted.claim(op_id)
    with refused(errno.EBUSY):
        await relay.mv(f"pending/{op_id}.json", "discarded/")
    assert f"warning verb.refused {op_id} /a/x {op_id} is being sent".encode() in relay.read("log")


async def test_an_op_with_a_newer_one_on_its_path_is_busy(relay: Relay) -> None:
    op_id = relay.mounted.dead("/a/x")
    relay.mounted.save("/a/x", b"newer")
    with refused(errno.EBUSY):
        await relay.mv(f"dead-letter/{op_id}.json", "retry/")
    assert b"verb.refused" in relay.read("log")
    assert relay.ls("dead-letter") == [f"{op_id}.json"]


async def test_a_damaged_record_is_shown_refused_and_kept(relay: Relay) -> None:
    op_id = relay.mounted.dead("/a/x")
    connection = relay.mounted.journal._db.connection
    connection.execute("PRAGMA ignore_check_constraints = 1")
    connection.execute("UPDATE op SET kind = 'zap' WHERE op_id = ?", (op_id,))
    assert relay.ls("dead-letter") == [f"{op_id}.json"]
    shown = json.loads(relay.read(f"dead-letter/{op_id}.json"))
    assert shown["state"] == "malformed"
    assert "zap" in shown["raw"]
    with refused(errno.EBUSY):
        await relay.mv(f"dead-letter/{op_id}.json", "retry/")
    assert b"damaged" in relay.read("log")
    relay.mounted.clock.advance(2)
    assert json.loads(relay.read("status.json"))["queue"]["deadLetter"] == 1
    assert relay.ls("dead-letter") == [f"{op_id}.json"]


# size


def test_a_listing_is_one_moment(relay: Relay) -> None:
    relay.mounted.save("/a/x")
    listing = relay.tree.listdir(relay.ino("pending"))
    relay.mounted.save("/a/y")
    assert len(listing) == 1
    assert listing[0] == listing[:][0]
    assert next(iter(listing))[1].ino == relay.ino(f"pending/{listing[0][0]}")


def test_ops_that_are_gone_are_forgotten(relay: Relay) -> None:
    relay.tree._ops._forget_above = 8
    for number in range(40):
        op_id = relay.mounted.save(f"/a/{number}")
        assert relay.exists(f"pending/{op_id}.json")
        relay.mounted.journal.acknowledge(
            relay.mounted.claim(op_id),
            Receipt(path=RemotePath(f"/a/{number}"), revision=Revision("r")),
            relay.mounted.answered(),
        )
        relay.tree._ops._forget_above = min(relay.tree._ops._forget_above, 8)
    assert len(relay.tree._ops._known) <= 8
