"""The cache on a real directory: what is read is what was stored, or nothing, whatever happens to its files."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsmount.cache import BLOCK, FileCache
from fsmount.errors import MachineLacks
from fsmount.model import Body, Chunk, Digest, RemotePath, Revision
from fsmount.ports import Cache

PATH = RemotePath("/github/issues/7.json")
ONE = Revision("rev_1")
LONG = os.urandom(3 * BLOCK + 100)


def chunk(content: bytes, start: int = 0, total: int | None = None, revision: Revision = ONE) -> Chunk:
    return Chunk(data=content, start=start, total=start + len(content) if total is None else total, revision=revision)


def path_of(number: int) -> RemotePath:
    return RemotePath(f"/github/{number}.json")


def block_files(directory: Path) -> list[Path]:
    return [path for path in (directory / "blocks").rglob("*") if path.is_file()]


class Bytes:
    """A source of ``content`` that says it has ``size`` bytes."""

    def __init__(self, content: bytes, size: int | None = None) -> None:
        self.content = content
        self.size = len(content) if size is None else size

    def read(self, offset: int, size: int) -> bytes:
        return self.content[offset : offset + size]

    def close(self) -> None:
        pass


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(directory: Path) -> Iterator[FileCache]:
    cache = FileCache(directory, 1 << 30)
    yield cache
    cache.close()


def test_is_the_port(cache: FileCache) -> None:
    port: Cache = cache
    assert (port.used, port.limit, port.hits, port.misses) == (0, 1 << 30, 0, 0)


class TestRead:
    def test_gives_what_was_stored(self, cache: FileCache) -> None:
        cache.store(PATH, ONE, chunk(LONG))
        for offset, size in [
            (0, len(LONG)),
            (0, 10),
            (BLOCK - 5, 10),
            (BLOCK, BLOCK),
            (3 * BLOCK, 1 << 20),
            (5, 1 << 30),
        ]:
            assert cache.read(PATH, ONE, offset, size) == LONG[offset : offset + size]
        assert cache.read(PATH, ONE, len(LONG), 10) == b""
        assert (cache.used, cache.hits, cache.misses) == (len(LONG), 7, 0)

    def test_of_another_revision_or_path_is_a_miss(self, cache: FileCache) -> None:
        cache.store(PATH, ONE, chunk(b"content"))
        assert cache.read(PATH, Revision("rev_2"), 0, 10) is None
        assert cache.read(path_of(1), ONE, 0, 10) is None
        assert (cache.hits, cache.misses) == (0, 2)

    def test_an_empty_file_is_held(self, cache: FileCache) -> None:
        cache.store(PATH, ONE, chunk(b""))
        assert cache.read(PATH, ONE, 0, 10) == b""
        assert cache.total(PATH, ONE) == 0

    def test_needs_every_block_that_it_touches(self, cache: FileCache) -> None:
        cache.store(PATH, ONE, chunk(LONG[:BLOCK], total=len(LONG)))
        cache.store(PATH, ONE, chunk(LONG[2 * BLOCK :], start=2 * BLOCK))
        assert cache.read(PATH, ONE, 0, BLOCK) == LONG[:BLOCK]
        assert cache.read(PATH, ONE, 0, BLOCK + 1) is None
        assert cache.read(PATH, ONE, 2 * BLOCK, 1 << 20) == LONG[2 * BLOCK :]
        cache.store(PATH, ONE, chunk(LONG[BLOCK : 2 * BLOCK], start=BLOCK, total=len(LONG)))
        assert cache.read(PATH, ONE, 0, 1 << 20) == LONG
        assert cache.used == len(LONG)

    def test_a_name_that_is_not_utf8(self, cache: FileCache) -> None:
        odd = RemotePath(os.fsdecode(b"/a/\xff"))
        cache.store(odd, ONE, chunk(b"content"))
        assert cache.read(odd, ONE, 0, 10) == b"content"

    def test_of_a_file_of_many_blocks(self, cache: FileCache) -> None:
        content = os.urandom(70 * BLOCK + 1)
        for start in range(0, len(content), 10 * BLOCK):
            cache.store(PATH, ONE, chunk(content[start : start + 10 * BLOCK], start=start, total=len(content)))
        cache.store(PATH, ONE, chunk(content[: 10 * BLOCK], total=len(content)))
        assert cache.used == len(content)
        assert cache.read(PATH, ONE, 0, 1 << 30) == content


class TestStore:
    def test_keeps_whole_blocks_only(self, cache: FileCache) -> None:
        cache.store(PATH, ONE, chunk(LONG[5 : 2 * BLOCK + 5], start=5, total=len(LONG)))
        assert cache.used == BLOCK
        assert cache.read(PATH, ONE, BLOCK, BLOCK) == LONG[BLOCK : 2 * BLOCK]
        assert cache.read(PATH, ONE, 5, 10) is None

    def test_of_a_part_of_a_block_tells_the_size_at_least(self, cache: FileCache) -> None:
        cache.store(PATH, ONE, chunk(b"abc", total=1000))
        assert (cache.total(PATH, ONE), cache.used) == (1000, 0)

    def test_twice_counts_once(self, cache: FileCache) -> None:
        cache.store(PATH, ONE, chunk(LONG))
        cache.store(PATH, ONE, chunk(LONG))
        assert cache.used == len(LONG)

    @pytest.mark.parametrize("wrong", [chunk(b"abc", total=2), chunk(b"abc", start=-1)])
    def test_what_cannot_be_right_is_not_kept(self, cache: FileCache, wrong: Chunk) -> None:
        cache.store(PATH, ONE, wrong)
        assert cache.total(PATH, ONE) is None
        assert cache.read(PATH, ONE, 0, 1) is None

    def test_another_size_of_one_revision_replaces_it(self, cache: FileCache) -> None:
        cache.store(PATH, ONE, chunk(LONG))
        cache.store(PATH, ONE, chunk(b"short"))
        assert cache.read(PATH, ONE, 0, 1 << 20) == b"short"
        assert (cache.total(PATH, ONE), cache.used) == (5, 5)


class TestAdopt:
    def test_copies_a_body(self, cache: FileCache) -> None:
        content = os.urandom((2 << 20) + 17)
        cache.adopt(PATH, ONE, Body(size=len(content), digest=Digest("")), Bytes(content))
        assert cache.read(PATH, ONE, 0, 1 << 30) == content

    def test_an_empty_body(self, cache: FileCache) -> None:
        cache.adopt(PATH, ONE, Body(size=0, digest=None), Bytes(b""))
        assert cache.read(PATH, ONE, 0, 10) == b""

    def test_of_a_long_body_keeps_the_size(self, cache: FileCache) -> None:
        cache.adopt(PATH, ONE, Body(size=1 << 30, digest=None), Bytes(b"", size=1 << 30))
        assert cache.total(PATH, ONE) == 1 << 30
        assert cache.read(PATH, ONE, 0, 10) is None

    @pytest.mark.parametrize("source", [Bytes(b"abc"), Bytes(b"abc", size=10)])
    def test_of_a_cut_body_holds_nothing(self, cache: FileCache, source: Bytes) -> None:
        cache.adopt(PATH, ONE, Body(size=10, digest=None), source)
        assert cache.read(PATH, ONE, 0, 10) is None


class TestDamage:
    @pytest.mark.parametrize("at", [0, BLOCK + 7, len(LONG) - 1])
    def test_a_flipped_byte_is_a_miss_and_what_is_stored_next_is_read(
        self, cache: FileCache, directory: Path, at: int
    ) -> None:
        cache.store(PATH, ONE, chunk(LONG))
        (held,) = block_files(directory)
        with held.open("r+b") as file:
            file.seek(at)
            file.write(bytes([LONG[at] ^ 1]))
        assert cache.read(PATH, ONE, 0, 1 << 20) is None
        assert (cache.used, cache.total(PATH, ONE), block_files(directory)) == (0, len(LONG), [])
        cache.store(PATH, ONE, chunk(LONG))
        assert cache.read(PATH, ONE, 0, 1 << 20) == LONG

    def test_a_flipped_byte_of_a_small_file_is_a_miss(self, cache: FileCache, directory: Path) -> None:
        cache.store(PATH, ONE, chunk(b"content"))
        block_files(directory)[0].write_bytes(b"cOntent")
        assert cache.read(PATH, ONE, 0, 10) is None

    @pytest.mark.parametrize("length", [0, BLOCK, len(LONG) - 1])
    def test_a_cut_file_is_a_miss(self, cache: FileCache, directory: Path, length: int) -> None:
        cache.store(PATH, ONE, chunk(LONG))
        os.truncate(block_files(directory)[0], length)
        assert cache.read(PATH, ONE, 3 * BLOCK, 100) is None
        assert cache.used == 0

    def test_a_removed_file_is_a_miss(self, cache: FileCache, directory: Path) -> None:
        cache.store(PATH, ONE, chunk(LONG))
        block_files(directory)[0].unlink()
        assert cache.read(PATH, ONE, 0, 1) is None

    @pytest.mark.parametrize("garbage", [b"this is no database" * 1000, b"SQLite format 3\0" + b"\xff" * 8000])
    def test_a_damaged_index_is_moved_aside(self, directory: Path, garbage: bytes) -> None:
        first = FileCache(directory, 1 << 30)
        first.store(PATH, ONE, chunk(LONG))
        first.close()
        (directory / "cache.db").write_bytes(garbage)
        cache = FileCache(directory, 1 << 30)
        assert cache.read(PATH, ONE, 0, 1) is None
        assert (directory / "cache.db.damaged").read_bytes() == garbage
        cache.store(PATH, ONE, chunk(LONG))
        assert cache.read(PATH, ONE, 0, 1 << 20) == LONG
        assert cache.sweeping is not None
        cache.sweeping.join(10)
        assert len(block_files(directory)) == 1
        assert sorted(path.name for path in directory.glob("discarded-*")) == []
        cache.close()

    def test_an_index_damaged_in_use_is_replaced(self, directory: Path) -> None:
        first = FileCache(directory, 1 << 30)
        for number in range(2000):
            first.store(path_of(number), ONE, chunk(b"x"))
        first.close()
        index = directory / "cache.db"
        content = bytearray(index.read_bytes())
        content[4096:] = b"\xa5" * (len(content) - 4096)
        index.write_bytes(content)
        cache = FileCache(directory, 1 << 30)
        assert all(cache.read(path_of(number), ONE, 0, 1) in (None, b"x") for number in range(2000))
        assert (directory / "cache.db.damaged").exists()
        cache.store(PATH, ONE, chunk(LONG))
        assert cache.read(PATH, ONE, 0, 1 << 20) == LONG
        cache.close()

    def test_a_size_that_was_damaged_is_not_believed(self, directory: Path) -> None:
        first = FileCache(directory, 1 << 30)
        first.store(PATH, ONE, chunk(b"content"))
        first.close()
        with sqlite3.connect(directory / "cache.db") as database:
            database.execute("UPDATE file SET total = 3")
        database.close()
        cache = FileCache(directory, 1 << 30)
        assert cache.total(PATH, ONE) is None
        assert cache.read(PATH, ONE, 0, 10) is None
        cache.store(PATH, ONE, chunk(b"content"))
        assert cache.read(PATH, ONE, 0, 10) == b"content"
        cache.close()


class TestLimit:
    def test_what_was_used_longest_ago_goes_first(self, directory: Path) -> None:
        cache = FileCache(directory, 100_000)
        for number in range(100):
            cache.store(path_of(number), ONE, chunk(bytes([number]) * 1000))
        assert cache.used == 100_000
        assert cache.read(path_of(0), ONE, 0, 1) is not None
        cache.store(path_of(100), ONE, chunk(b"x" * 1000))
        assert cache.used <= 100_000
        assert cache.read(path_of(0), ONE, 0, 1) is not None
        assert cache.read(path_of(100), ONE, 0, 1) is not None
        assert cache.read(path_of(1), ONE, 0, 1) is None
        assert cache.read(path_of(99), ONE, 0, 1) is not None
        assert cache.used == sum(path.stat().st_size for path in block_files(directory))
        assert cache.total(path_of(1), ONE) == 1000
        cache.close()

    def test_a_file_larger_than_the_limit_pushes_nothing_out(self, directory: Path) -> None:
        cache = FileCache(directory, 2 * BLOCK)
        cache.store(path_of(1), ONE, chunk(b"small"))
        cache.store(PATH, ONE, chunk(LONG))
        assert cache.read(path_of(1), ONE, 0, 10) == b"small"
        assert cache.read(PATH, ONE, 0, 10) is None
        assert cache.total(PATH, ONE) == len(LONG)
        cache.close()

    def test_a_smaller_limit_after_a_restart(self, directory: Path) -> None:
        first = FileCache(directory, 1 << 30)
        for number in range(300):
            first.store(path_of(number), ONE, chunk(b"x" * 1000))
        first.close()
        cache = FileCache(directory, 10_000)
        cache.store(PATH, ONE, chunk(b"x" * 1000))
        assert cache.used <= 10_000
        assert len(block_files(directory)) <= 10
        cache.close()

    def test_a_disk_with_little_left_gets_nothing(
        self, cache: FileCache, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.statvfs(directory)
        monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*real[:4], 1000, *real[5:])))
        cache.store(PATH, ONE, chunk(LONG))
        assert (cache.used, block_files(directory)) == (0, [])
        assert cache.total(PATH, ONE) == len(LONG)

    def test_a_full_disk_is_no_error(self, cache: FileCache, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as disk:
            disk.setattr(os, "pwrite", full)
            cache.store(PATH, ONE, chunk(LONG))
        assert cache.read(PATH, ONE, 0, 10) is None
        assert cache.used == 0
        cache.store(PATH, ONE, chunk(LONG))
        assert cache.read(PATH, ONE, 0, 10) == LONG[:10]


class TestRestart:
    def test_keeps_content_sizes_and_order_of_use(self, directory: Path) -> None:
        first = FileCache(directory, 1 << 30)
        for number in range(50):
            first.store(path_of(number), ONE, chunk(b"x" * 1000))
        first.store(PATH, ONE, chunk(LONG))
        assert first.read(path_of(0), ONE, 0, 1) == b"x"
        first.close()
        first.close()
        cache = FileCache(directory, first.used)
        assert cache.used == first.used
        assert cache.sweeping is None
        assert cache.read(PATH, ONE, 0, 1 << 20) == LONG
        cache.store(path_of(50), ONE, chunk(b"x" * 1000))
        assert cache.read(path_of(0), ONE, 0, 1) == b"x"
        assert cache.read(path_of(1), ONE, 0, 1) is None
        cache.close()

    def test_after_a_crash_keeps_all_but_the_last_and_sweeps_what_is_not_listed(self, directory: Path) -> None:
        pid = os.fork()
        if pid == 0:  # dies without closing, as kill -9 would
            crashed = FileCache(directory, 1 << 30)
            for number in range(500):
                crashed.store(path_of(number), ONE, chunk(b"x" * 10))
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        for path in block_files(directory):
            os.utime(path, (1, 1))
        cache = FileCache(directory, 1 << 30)
        assert cache.sweeping is not None
        cache.sweeping.join(10)
        held = [cache.read(path_of(number), ONE, 0, 10) for number in range(500)]
        assert held[:400] == [b"x" * 10] * 400
        assert set(held) <= {b"x" * 10, None}
        assert len(block_files(directory)) == cache.hits == cache.used // 10
        cache.close()

    def test_after_close_everything_is_a_miss(self, cache: FileCache) -> None:
        cache.store(PATH, ONE, chunk(b"content"))
        cache.close()
        assert cache.read(PATH, ONE, 0, 10) is None
        assert cache.total(PATH, ONE) is None
        cache.store(PATH, ONE, chunk(b"content"))


def test_more_files_than_are_kept_in_memory(cache: FileCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsmount.cache.index._HOT", 10)
    for number in range(100):
        cache.store(path_of(number), ONE, chunk(f"{number}".encode()))
    assert [cache.read(path_of(number), ONE, 0, 10) for number in range(100)] == [f"{n}".encode() for n in range(100)]


def test_files_are_private(cache: FileCache, directory: Path) -> None:
    cache.store(PATH, ONE, chunk(b"content"))
    assert directory.stat().st_mode & 0o777 == 0o700
    assert block_files(directory)[0].stat().st_mode & 0o777 == 0o600


def test_a_directory_that_cannot_be_used_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MachineLacks, match="cannot use the cache directory") as raised:
        FileCache(tmp_path / "file" / "cache", 1000)
    assert raised.value.hint is not None
