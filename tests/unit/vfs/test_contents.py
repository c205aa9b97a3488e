"""Remote content: one fetch a block, one block ahead, never another version's bytes."""

from __future__ import annotations

import errno
import traceback
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from fsmount.cache import FileCache
from fsmount.connection import Connection
from fsmount.errors import FileError, Unreachable
from fsmount.model import Capabilities, RemotePath, Revision
from fsmount.spool import FileSpool
from fsmount.vfs.contents import BLOCK, Contents
from fsmount.vfs.shown import AtRemote
from tests.support.fake_remote import FakeRemote
from tests.support.notes import Notes
from tests.support.trio_clock import TrioClock
from tests.support.uploads import digest_of

PATH = RemotePath("/large")
LARGE = b"".join(bytes([number]) * (BLOCK // 4) for number in range(14))
RANGED = Capabilities(ranges=True, batch_read=True)
PIECE = 128 * 1024


class Reader:
    """A reader of one remote through a cache of ``limit`` bytes."""

    def __init__(self, folder: Path, capabilities: Capabilities = RANGED, *, limit: int = 1 << 30) -> None:
        self.remote = FakeRemote(capabilities)
        self.cache = FileCache(folder / "cache", limit)
        self.spool = FileSpool(folder / "spool")
        connection = Connection(self.remote, TrioClock(), Notes())
        self.contents = Contents(self.remote, self.cache, connection, Notes())

    def write(self, content: bytes = LARGE) -> AtRemote:
        return AtRemote(PATH, self.remote.write(PATH, content), digest_of(content))

    async def front_to_back(self, at: AtRemote) -> bytes:
        got = b""
        while piece := await self.contents.read(at, len(got), PIECE):
            got += piece
        return got


@pytest.mark.parametrize("limit", [1 << 30, 1 << 20], ids=["cached", "larger than the cache"])
async def test_a_block_is_fetched_once_and_the_next_ahead_of_its_reader(
    tmp_path: Path, nursery: trio.Nursery, limit: int
) -> None:
    reader = Reader(tmp_path, limit=limit)
    at = reader.write()
    nursery.start_soon(reader.contents.run)
    assert await reader.front_to_back(at) == LARGE
    assert reader.remote.calls["read"] == -(-len(LARGE) // BLOCK)
    assert reader.contents.bytes_down == len(LARGE)


@pytest.mark.parametrize(("limit", "hits"), [(1 << 30, 1), (1 << 20, 0)], ids=["cached", "larger than the cache"])
async def test_what_the_cache_keeps_leaves_memory_with_its_last_reader(tmp_path: Path, limit: int, hits: int) -> None:
    reader = Reader(tmp_path, limit=limit)
    at = reader.write()
    first = await reader.contents.read(at, 0, PIECE)
    assert (await reader.contents.read(at, 0, PIECE), reader.cache.hits) == (first, 0)
    reader.contents.closed(at)
    assert (await reader.contents.read(at, 0, PIECE), reader.cache.hits) == (first, hits)
    assert reader.remote.calls["read"] == 1


async def test_while_one_block_is_read_the_next_is_under_way(tmp_path: Path, nursery: trio.Nursery) -> None:
    reader = Reader(tmp_path)
    at = reader.write()
    nursery.start_soon(reader.contents.run)
    await reader.contents.read(at, 0, PIECE)
    reader.remote.hold("read")
    nursery.start_soon(reader.contents.read, at, BLOCK, PIECE)
    with trio.fail_after(5):
        while reader.remote.calls["read"] < 3:
            await trio.sleep(0.01)
    assert (await reader.contents.read(at, 2 * BLOCK, 1)) == LARGE[2 * BLOCK : 2 * BLOCK + 1]


async def test_a_look_at_the_beginning_fetches_one_block(tmp_path: Path, nursery: trio.Nursery) -> None:
    reader = Reader(tmp_path)
    at = reader.write()
    nursery.start_soon(reader.contents.run)
    await reader.contents.read(at, 0, BLOCK)
    await trio.testing.wait_all_tasks_blocked()
    assert reader.remote.calls["read"] == 1


async def test_a_read_across_blocks(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    at = reader.write()
    begin = BLOCK - 1000
    assert await reader.contents.read(at, begin, BLOCK + 2000) == LARGE[begin : begin + BLOCK + 2000]
    assert await reader.contents.read(at, len(LARGE) - 10, BLOCK) == LARGE[-10:]
    assert await reader.contents.read(at, len(LARGE), 10) == b""


async def test_a_file_that_shrank_is_another_version(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    at = reader.write()
    reader.write(b"short")
    with pytest.raises(FileError) as caught:
        await reader.contents.read(at, 2 * BLOCK, PIECE)
    assert caught.value.errno == errno.ESTALE


async def test_a_revision_that_is_used_again_for_other_bytes_is_fetched_again(tmp_path: Path) -> None:
    reader = Reader(tmp_path, Capabilities())
    one = reader.write(b"one")
    assert await reader.contents.read(one, 0, 10) == b"one"
    reader.remote.files.clear()
    reader.remote._counter = 0
    two = reader.write(b"two")
    assert two.revision == one.revision
    assert await reader.contents.read(two, 0, 10) == b"two"
    reader.cache.close()
    other = Reader(tmp_path / "other", Capabilities())
    other.remote.files = reader.remote.files
    with pytest.raises(FileError) as caught:
        await other.contents.read(one, 0, 10)
    assert caught.value.errno == errno.ESTALE


async def test_a_copy_is_whole_or_raises(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    content = LARGE[: BLOCK + 1000]
    at = reader.write(content)
    draft = reader.spool.create()
    await reader.contents.copy(at, draft)
    assert draft.read(0, len(LARGE)) == content
    draft.close()
    lied_to = AtRemote(PATH, at.revision, digest_of(b"something else"))
    for start in range(0, len(content), BLOCK):
        reader.contents._recent.keep(lied_to, await reader.remote.read(PATH, None, start, BLOCK))
    draft = reader.spool.create()
    with pytest.raises(FileError, match="not what its digest says"):
        await reader.contents.copy(lied_to, draft)
    draft.close()


async def test_what_lies_below_a_directory_comes_in_one_request(tmp_path: Path) -> None:
    reader = Reader(tmp_path, Capabilities(batch_read=True))
    revisions = {RemotePath(f"/d/{n}"): reader.remote.write(f"/d/{n}", b"x" * n) for n in range(1, 6)}
    reader.remote.write("/d/deep/er", b"deeper")
    wanted = {path: AtRemote(path, revision) for path, revision in revisions.items()}
    await reader.contents.learn_below(RemotePath("/d"), wanted)
    assert [reader.contents.known_size(at) for at in wanted.values()] == [1, 2, 3, 4, 5]
    deeper = AtRemote(RemotePath("/d/deep/er"), Revision("rev_6"), digest_of(b"deeper"))
    assert await reader.contents.read(deeper, 0, 10) == b"deeper"
    assert reader.remote.calls == {"read_below": 1}


async def test_progress_gives_a_waiting_system_call_its_time_anew(tmp_path: Path) -> None:
    from fsmount.vfs.patience import progressed, serving

    with trio.CancelScope() as scope:
        scope.deadline = trio.current_time() + 0.05
        serving(scope, 60)
        progressed()
        await trio.sleep(0.1)
    assert not scope.cancelled_caught


async def test_who_asks_for_what_just_timed_out_is_answered_at_once(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The kernel passes a page from one waiting reader to the next: each would wait for its whole deadline."""
    reader = Reader(tmp_path)
    at = reader.write(b"content")
    reader.remote.hold("read")
    with trio.move_on_after(5):
        await reader.contents.read(at, 0, 10, anew=False)
    began = trio.current_time()
    for _ in range(10):
        with pytest.raises(FileError) as caught:
            await reader.contents.read(at, 0, 10, anew=False)
        assert caught.value.errno == errno.ETIMEDOUT
    assert (trio.current_time(), reader.remote.calls["read"]) == (began, 1)
    await trio.sleep(1.0)
    assert await reader.contents.read(at, 0, 10, anew=False) == b"content"


async def test_a_whole_copy_asks_anew(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    reader = Reader(tmp_path)
    at = reader.write(b"content")
    reader.remote.hold("read")
    with trio.move_on_after(5):
        await reader.contents.read(at, 0, 10, anew=False)
    assert await reader.contents.read(at, 0, 10) == b"content"


async def test_without_ranges_a_file_that_the_cache_does_not_keep_is_fetched_once(tmp_path: Path) -> None:
    reader = Reader(tmp_path, Capabilities(), limit=1 << 20)
    at = reader.write()
    assert await reader.front_to_back(at) == LARGE
    draft = reader.spool.create()
    await reader.contents.copy(at, draft)
    assert draft.read(0, len(LARGE)) == LARGE
    draft.close()
    assert reader.remote.calls["read"] == 1


async def test_of_files_that_come_whole_one_is_held_and_none_that_is_cached(tmp_path: Path) -> None:
    reader = Reader(tmp_path, Capabilities(), limit=1 << 20)
    one = reader.write()
    other = AtRemote(RemotePath("/other"), reader.remote.write("/other", LARGE[::-1]))
    assert await reader.contents.read(one, BLOCK, 1) == LARGE[BLOCK : BLOCK + 1]
    assert await reader.contents.read(other, BLOCK, 1) == LARGE[::-1][BLOCK : BLOCK + 1]
    assert reader.contents._recent.read(one, BLOCK, 1) is None
    caching = Reader(tmp_path / "caching", Capabilities())
    at = caching.write()
    assert await caching.contents.read(at, BLOCK, 1) == LARGE[BLOCK : BLOCK + 1]
    assert caching.contents._recent.read(at, BLOCK, 1) is None


async def test_an_error_that_many_get_does_not_grow_with_them(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    at = reader.write(b"content")
    lengths = []

    async def meet(*, anew: bool) -> None:
        with pytest.raises(Unreachable) as caught:
            await reader.contents.read(at, 0, 10, anew=anew)
        lengths.append(len(list(traceback.walk_tb(caught.value.__traceback__))))

    gate = reader.remote.hold("read")
    reader.remote.fail("read", Unreachable("gone"))
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(partial(meet, anew=True))
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    for _ in range(5):
        await meet(anew=False)
    assert reader.remote.calls["read"] == 1
    assert len(set(lengths[1:5])) == len(set(lengths[5:])) == 1
