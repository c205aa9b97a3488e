"""A file that the remote renames by itself keeps what is unsent of it, its inode and its handles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from fsmount.cache import FileCache
from fsmount.config import Config, parse_remote
from fsmount.connection import Connection
from fsmount.journal import open_journal
from fsmount.model import Attempt, Base, Change, Feed, LocalNode, Reason, RemotePath, State, Timing
from fsmount.spool import FileSpool
from fsmount.vfs.filesystem import Filesystem
from fsmount.vfs.inodes import Node
from tests.support.clock import ManualClock
from tests.support.fake_remote import FakeRemote
from tests.support.notes import Notes
from tests.support.uploads import digest_of

TIMING = Timing(settle=0.0, max_settle=0.0, delete_settle=0.0, open_settle=0.0)
DRAFT, ISSUE = RemotePath("/github/new.json"), RemotePath("/github/42.json")


class Kernel:
    """What the kernel was told."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def entry_changed(self, parent: int, name: str, ino: int | None = None) -> None:
        self.names.append(name)

    def attributes_changed(self, ino: int) -> None: ...
    def entries_changed(self, directory: int, entries: Sequence[tuple[str | None, int]]) -> None: ...


class Drafted:
    """A filesystem that has looked at a file which its remote is about to rename."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.remote = FakeRemote()
        self.remote.write(DRAFT, b"draft")
        self.before = self.remote.base(DRAFT)
        self.journal = open_journal(folder / "journal.db", self.clock, TIMING)
        self.kernel = Kernel()
        connection = Connection(self.remote, self.clock, Notes())
        connection.feed = Feed.POLLING
        remote = parse_remote("relayfile+http://127.0.0.1:1/ws")
        config = Config(
            remote=remote, mountpoint=folder, name="m", state_dir=folder, cache_dir=folder, log_file=folder / "log"
        )
        self.files = Filesystem(
            config, self.journal, FileSpool(folder / "spool"), FileCache(folder / "cache", 1 << 20), self.remote,
            connection, self.kernel, self.clock, Notes(),
        )  # fmt: skip

    async def node(self, path: str) -> Node | None:
        node: Node | None = self.files.tree.inodes.root
        for name in path.strip("/").split("/"):
            assert node is not None
            node = await self.files.tree.find(node, name)
            if node is not None:
                node.lookups += 1
        return node

    async def save(self, content: bytes, path: str = DRAFT) -> None:
        node = await self.node(path)
        assert node is not None
        number, _ = await self.files.files.open(node, writable=True, truncate=True)
        await self.files.files.write(number, 0, content)
        await self.files.files.flush(number)
        await self.files.files.release(number)

    def events(self) -> tuple[Change, Change]:
        """The remote renames it; deletion and creation as the feed tells them."""
        content = self.remote.files[DRAFT].content
        self.remote.remove(DRAFT)
        revision = self.remote.write(ISSUE, content)
        made = Change(path=ISSUE, revision=revision, digest=digest_of(content), at=1.0, system=True)
        return Change(path=DRAFT, revision=None, at=1.0, system=True), made

    def tell(self, *changes: Change) -> None:
        for change in changes:
            self.files.arrivals.remote_changed(change)

    def rename(self) -> None:
        self.tell(*self.events())

    @property
    def now(self) -> Base:
        return self.remote.base(ISSUE)


@pytest.fixture
async def drafted(tmp_path: Path) -> Iterator[Drafted]:  # type: ignore[misc]
    made = Drafted(tmp_path)
    yield made
    made.journal.close()


@pytest.mark.parametrize("order", [1, -1])
async def test_the_inode_and_its_handles_go_along(drafted: Drafted, order: int) -> None:
    node = await drafted.node(DRAFT)
    assert node is not None
    number, _ = await drafted.files.files.open(node, writable=False, truncate=False)
    drafted.tell(*drafted.events()[::order])
    assert await drafted.node(ISSUE) is node
    assert await drafted.node(DRAFT) is None
    assert await drafted.files.files.read(number, 0, 100) == b"draft"
    assert {"new.json", "42.json"} <= set(drafted.kernel.names)


@pytest.mark.parametrize("order", [1, -1])
async def test_what_is_unsent_goes_to_the_new_name(drafted: Drafted, order: int) -> None:
    await drafted.save(b"better")
    drafted.tell(*drafted.events()[::order])
    (record,) = drafted.journal.records(State.PENDING)
    assert (record.op.path, record.op.base) == (ISSUE, drafted.now)
    assert drafted.journal.shown(DRAFT) is None
    node = await drafted.node(ISSUE)
    assert node is not None
    assert node.shown is not None
    assert node.shown.base == drafted.now


async def test_an_open_draft_goes_along(drafted: Drafted) -> None:
    node = await drafted.node(DRAFT)
    assert node is not None
    number, _ = await drafted.files.files.open(node, writable=True, truncate=False)
    await drafted.files.files.write(number, 5, b"ed")
    drafted.rename()
    await drafted.files.files.flush(number)
    (record,) = drafted.journal.records(State.PENDING)
    assert (record.op.path, record.op.base) == (ISSUE, drafted.now)
    assert await drafted.files.files.read(number, 0, 100) == b"drafted"
    await drafted.files.files.release(number)


async def test_modes_times_and_attributes_go_along(drafted: Drafted) -> None:
    kept = LocalNode(path=DRAFT, mode=0o640, mtime=7.0, mtime_revision=drafted.before.revision)
    drafted.journal.keep(kept)
    drafted.journal.keep_xattr(DRAFT, "user.a", b"1")
    await drafted.node(DRAFT)
    drafted.rename()
    assert drafted.journal.node(ISSUE) == replace(kept, path=ISSUE, mtime_revision=drafted.now.revision)
    assert drafted.journal.xattrs(ISSUE) == {"user.a": b"1"}
    assert drafted.journal.node(DRAFT) is None


async def test_a_delete_and_a_rename_that_wait_follow_too(drafted: Drafted) -> None:
    node = await drafted.node("/github")
    assert node is not None
    await drafted.node(DRAFT)
    await drafted.files.rename(node, "new.json", node, "mine.json", replace_target=False)
    drafted.rename()
    (record,) = drafted.journal.records(State.PENDING)
    assert (record.op.path, record.op.base, record.op.to_path) == (ISSUE, drafted.now, "/github/mine.json")


async def test_what_was_on_its_way_comes_back_under_the_new_name(drafted: Drafted) -> None:
    await drafted.save(b"better")
    (claim,) = drafted.journal.claim(1)
    drafted.rename()
    attempt = Attempt(at=0, status=404, error="gone", duration=0)
    drafted.journal.bury(claim, Reason.REMOTE_DELETED, "gone", attempt, charged=True)
    drafted.files.arrivals.changed(claim.op)
    (record,) = drafted.journal.records(State.PENDING)
    assert (record.op.path, record.op.base, drafted.journal.counts().dead) == (ISSUE, drafted.now, 0)


async def test_an_op_from_another_version_keeps_its_base(drafted: Drafted) -> None:
    await drafted.save(b"better")
    drafted.remote.write(DRAFT, b"theirs")
    drafted.files.tree.listings.expire()
    await drafted.node(DRAFT)
    drafted.rename()
    (record,) = drafted.journal.records(State.PENDING)
    assert (record.op.path, record.op.base) == (ISSUE, drafted.before)


async def test_a_name_that_is_looked_up_in_between_is_found_again(drafted: Drafted) -> None:
    node = await drafted.node(DRAFT)
    assert node is not None
    number, _ = await drafted.files.files.open(node, writable=False, truncate=False)
    gone, made = drafted.events()
    drafted.tell(gone)
    assert await drafted.node(DRAFT) is None
    drafted.tell(made)
    assert await drafted.node(ISSUE) is node
    await drafted.files.files.release(number)


@pytest.mark.parametrize("what", ["by somebody", "too late", "of other bytes", "unknown"])
async def test_other_pairs_are_what_they_say(drafted: Drafted, what: str) -> None:
    node = None if what == "unknown" else await drafted.node(DRAFT)
    gone, made = drafted.events()
    if what == "by somebody":
        gone, made = replace(gone, system=False), replace(made, system=False)
    if what == "of other bytes":
        made = replace(made, digest=digest_of(b"other"))
    drafted.tell(gone)
    if what == "too late":
        drafted.clock.advance(60)
    drafted.tell(made)
    found = await drafted.node(ISSUE)
    assert found is not None
    assert found is not node
    assert await drafted.node(DRAFT) is None


async def test_a_new_name_that_is_taken_here_is_left_alone(drafted: Drafted) -> None:
    await drafted.save(b"better")
    parent = await drafted.node("/github")
    assert parent is not None
    node, number = await drafted.files.create(
        parent, "42.json", mode=0o644, uid=0, gid=0, exclusive=True, truncate=False
    )
    await drafted.files.files.write(number, 0, b"mine")
    drafted.rename()
    await drafted.files.files.release(number)
    assert {record.op.path for record in drafted.journal.records(State.PENDING)} == {DRAFT, ISSUE}
    assert node.shown is not None


@pytest.mark.parametrize("order", ["deleted first", "created first", "crossed"])
async def test_of_two_files_with_the_same_bytes_neither_is_followed(drafted: Drafted, order: str) -> None:
    """Which draft became which record cannot be told: what is unsent of one must not land in the other."""
    twin, record = RemotePath("/github/twin.json"), RemotePath("/github/43.json")
    drafted.remote.write(twin, b"draft")
    await drafted.save(b"of the first")
    await drafted.save(b"of the twin", twin)
    gone, made = drafted.events()
    drafted.remote.remove(twin)
    revision = drafted.remote.write(record, b"draft")
    gone_too, made_too = replace(gone, path=twin), replace(made, path=record, revision=revision)
    match order:
        case "deleted first":
            drafted.tell(gone, gone_too, made, made_too)
        case "created first":
            drafted.tell(made, made_too, gone_too, gone)
        case _:
            drafted.tell(gone, gone_too, made_too, made)
    assert {record.op.path for record in drafted.journal.records(State.PENDING)} == {DRAFT, twin}


async def test_two_renames_one_after_the_other_are_both_followed(drafted: Drafted) -> None:
    twin, record = RemotePath("/github/twin.json"), RemotePath("/github/43.json")
    drafted.remote.write(twin, b"draft")
    nodes = [await drafted.node(DRAFT), await drafted.node(twin)]
    gone, made = drafted.events()
    drafted.tell(gone, made)
    drafted.remote.remove(twin)
    revision = drafted.remote.write(record, b"draft")
    drafted.tell(replace(gone, path=twin), replace(made, path=record, revision=revision))
    assert [await drafted.node(ISSUE), await drafted.node(record)] == nodes
