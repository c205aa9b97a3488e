"""The spool on a real directory: lengths and digests are true, sealed bytes never change, the books are right."""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fsmount.errors import MachineLacks
from fsmount.model import Body, Digest, DraftId
from fsmount.ports import Spool
from fsmount.spool import RESERVE, DraftFile, FileSpool


def digest_of(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).hexdigest())


def body_path(directory: Path, content: bytes) -> Path:
    digest = digest_of(content)
    return directory / "bodies" / digest[:2] / digest


def whole(spool: FileSpool, body: Body) -> bytes:
    source = spool.open(body)
    content = source.read(0, source.size)
    source.close()
    return content


def sealed(spool: FileSpool, content: bytes) -> Body:
    draft = spool.create()
    draft.write(0, content)
    told = draft.body
    draft.close()
    return spool.seal(draft.draft_id, told.digest)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def spool(directory: Path) -> FileSpool:
    return FileSpool(directory, 1 << 30)


@pytest.fixture
def draft(spool: FileSpool) -> Iterator[DraftFile]:
    draft = spool.create()
    yield draft
    draft.close()


@pytest.fixture
def fsynced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The path of every descriptor that is fsynced, in order, at the time it was."""
    paths: list[str] = []
    real = os.fsync

    def noted(fd: int) -> None:
        paths.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr(os, "fsync", noted)
    return paths


def test_is_the_port(spool: FileSpool) -> None:
    port: Spool = spool
    assert port.used == 0
    assert port.limit == 1 << 30


class TestDraft:
    def test_reads_what_was_written(self, draft: DraftFile) -> None:
        assert draft.write(0, b"hello ") == 6
        assert draft.write(6, b"world") == 5
        assert draft.read(3, 5) == b"lo wo"
        assert draft.read(9, 100) == b"ld"
        assert draft.size == 11

    def test_front_to_back_has_a_digest_each_time(self, draft: DraftFile) -> None:
        written = b""
        for part in (b"one", b"x" * 300_000, b"", b"three"):
            draft.write(len(written), part)
            written += part
            assert draft.body == Body(size=len(written), digest=digest_of(written), draft=draft.draft_id)

    def test_empty_has_the_digest_of_nothing(self, draft: DraftFile) -> None:
        assert draft.body.digest == digest_of(b"")

    def test_a_hole_is_zeros(self, draft: DraftFile) -> None:
        draft.write(0, b"a")
        draft.write(5, b"b")
        assert draft.body.digest == digest_of(b"a\0\0\0\0b")

    @pytest.mark.parametrize("length", [100, 200_000])
    def test_a_change_of_hashed_bytes_loses_the_digest(self, draft: DraftFile, length: int) -> None:
        draft.write(0, b"x" * length)
        assert draft.body.digest is not None
        draft.write(length - 1, b"yz")
        assert draft.body == Body(size=length + 1, digest=None, draft=draft.draft_id)
        draft.write(length + 1, b"more")
        assert draft.body.digest is None

    def test_a_change_of_bytes_not_hashed_yet_does_not(self, draft: DraftFile) -> None:
        draft.write(0, b"x" * 200_000)
        draft.write(10, b"changed")
        assert draft.body.digest == digest_of(b"x" * 10 + b"changed" + b"x" * 199_983)

    @pytest.mark.parametrize("write", [b"abcdef", b"abcdef" * 50_000])
    def test_truncate_to_nothing_starts_again(self, draft: DraftFile, write: bytes) -> None:
        draft.write(0, write)
        assert draft.body.digest is not None
        draft.truncate(0)
        draft.write(0, b"new")
        assert draft.body.digest == digest_of(b"new")

    def test_truncate_below_what_was_hashed_loses_the_digest(self, draft: DraftFile) -> None:
        draft.write(0, b"abcdef")
        draft.truncate(3)
        assert draft.body == Body(size=3, digest=None, draft=draft.draft_id)
        assert draft.read(0, 10) == b"abc"

    def test_truncate_that_lengthens_keeps_it(self, draft: DraftFile) -> None:
        draft.write(0, b"abc")
        draft.truncate(5)
        assert draft.body.digest == digest_of(b"abc\0\0")

    @pytest.mark.parametrize("change", [lambda draft: draft.write(10, b"changed"), lambda draft: draft.truncate(10)])
    def test_a_change_while_another_thread_hashes_loses_the_digest(
        self, draft: DraftFile, monkeypatch: pytest.MonkeyPatch, change: Callable[[DraftFile], object]
    ) -> None:
        draft.write(0, b"x" * 200_000)
        real = os.pread

        def read_and_change(fd: int, size: int, offset: int) -> bytes:
            content = real(fd, size, offset)
            change(draft)
            return content

        with monkeypatch.context() as hashing:
            hashing.setattr(os, "pread", read_and_change)
            assert draft.body.digest is None
        assert draft.body.digest is None

    def test_a_truncate_to_nothing_while_another_thread_hashes_starts_again(
        self, draft: DraftFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        draft.write(0, b"x" * 200_000)
        real = os.pread

        def read_and_empty(fd: int, size: int, offset: int) -> bytes:
            content = real(fd, size, offset)
            draft.truncate(0)
            return content

        with monkeypatch.context() as hashing:
            hashing.setattr(os, "pread", read_and_empty)
            assert draft.body.digest is None
        assert draft.body == Body(size=0, digest=digest_of(b""), draft=draft.draft_id)

    def test_names_sort_by_creation_over_restarts(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        names = [draft.draft_id for draft in drafts_of(FileSpool(directory), 3)]
        monkeypatch.setattr("time.time_ns", lambda: 1)  # a clock that was set back
        names += [draft.draft_id for draft in drafts_of(FileSpool(directory), 3)]
        assert names == sorted(set(names))

    def test_is_private(self, spool: FileSpool, directory: Path, draft: DraftFile) -> None:
        assert (directory / "drafts" / draft.draft_id).stat().st_mode & 0o777 == 0o600
        assert directory.stat().st_mode & 0o777 == 0o700

    def test_after_a_crash_is_found_with_its_bytes(self, directory: Path) -> None:
        draft = FileSpool(directory).create()
        draft.write(0, b"half a file")
        again = FileSpool(directory).open_draft(draft.draft_id)
        assert again.size == 11
        assert again.body.digest == digest_of(b"half a file")
        again.write(11, b" and more")
        assert again.body.digest == digest_of(b"half a file and more")
        again.close()
        draft.close()

    def test_that_is_not_there(self, spool: FileSpool) -> None:
        for name in ("0" * 16 + "-" + "0" * 8 + "-" + "0" * 8, "../../etc/passwd"):
            with pytest.raises(FileNotFoundError):
                spool.open_draft(DraftId(name))


def drafts_of(spool: FileSpool, count: int) -> list[DraftFile]:
    made = [spool.create() for _ in range(count)]
    for draft in made:
        draft.close()
    return made


class TestSeal:
    def test_names_the_body_by_its_digest(self, spool: FileSpool, directory: Path) -> None:
        body = sealed(spool, b"content")
        assert body == Body(size=7, digest=digest_of(b"content"))
        assert body_path(directory, b"content").read_bytes() == b"content"
        assert os.listdir(directory / "drafts") == []
        assert whole(spool, body) == b"content"
        assert spool.verify(body)

    def test_reckons_a_digest_that_is_not_known(self, spool: FileSpool, draft: DraftFile) -> None:
        draft.write(0, b"abcdef")
        draft.write(2, b"X")
        assert draft.body.digest is None
        assert spool.seal(draft.draft_id, None) == Body(size=6, digest=digest_of(b"abXdef"))
        assert draft.body == Body(size=6, digest=digest_of(b"abXdef"))

    def test_open_handles_go_on_reading_and_cannot_write(self, spool: FileSpool, draft: DraftFile) -> None:
        draft.write(0, b"content")
        body = spool.seal(draft.draft_id, draft.body.digest)
        assert draft.read(0, 100) == b"content"
        with pytest.raises(RuntimeError, match="sealed"):
            draft.write(0, b"X")
        with pytest.raises(RuntimeError, match="sealed"):
            draft.truncate(0)
        assert spool.verify(body)

    def test_twice_is_refused(self, spool: FileSpool, draft: DraftFile) -> None:
        spool.seal(draft.draft_id, None)
        with pytest.raises(FileNotFoundError):
            spool.seal(draft.draft_id, None)

    def test_that_fails_leaves_a_draft_that_can_be_written(
        self, spool: FileSpool, draft: DraftFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        draft.write(0, b"content")
        with monkeypatch.context() as broken:
            broken.setattr(os, "rename", failing(errno.EIO))
            with pytest.raises(OSError, match="Input/output"):
                spool.seal(draft.draft_id, draft.body.digest)
        draft.write(7, b" more")
        assert spool.seal(draft.draft_id, draft.body.digest).size == 12

    def test_equal_bodies_share_one_file(self, spool: FileSpool, directory: Path) -> None:
        first = sealed(spool, b"same")
        inode = body_path(directory, b"same").stat().st_ino
        assert sealed(spool, b"same") == first
        assert body_path(directory, b"same").stat().st_ino == inode
        assert spool.used == 4
        assert os.listdir(directory / "drafts") == []

    def test_a_damaged_body_is_replaced_by_the_fresh_one(self, spool: FileSpool, directory: Path) -> None:
        body = sealed(spool, b"same")
        body_path(directory, b"same").write_bytes(b"sXme")
        assert not spool.verify(body)
        sealed(spool, b"same")
        assert spool.verify(body)

    def test_an_earlier_ops_removal_spares_a_body_just_taken_over(self, spool: FileSpool) -> None:
        body = sealed(spool, b"same")
        sealed(spool, b"same")
        spool.remove(body)  # the first op is acknowledged before the journal knows the second one's digest
        assert whole(spool, body) == b"same"
        spool.remove(body)
        assert spool.used == 0

    def test_a_body_can_be_opened_by_the_name_of_its_draft_before_and_after(self, spool: FileSpool) -> None:
        draft = spool.create()
        draft.write(0, b"content")
        told = draft.body
        assert whole(spool, told) == b"content"
        draft.write(7, b" added later")
        assert whole(spool, told) == b"content"
        draft.truncate(7)
        spool.seal(draft.draft_id, None)
        assert whole(spool, told) == b"content"
        draft.close()

    def test_a_missing_body_says_so(self, spool: FileSpool) -> None:
        for digest in (digest_of(b"never seen"), Digest("../../x"), None):
            body = Body(size=1, digest=digest)
            with pytest.raises(FileNotFoundError):
                spool.open(body)
            assert not spool.verify(body)


class TestVerify:
    @pytest.mark.parametrize("damage", [b"", b"conten", b"cOntent", b"content and more"])
    def test_finds_damage(self, spool: FileSpool, directory: Path, damage: bytes) -> None:
        body = sealed(spool, b"content")
        body_path(directory, b"content").write_bytes(damage)
        assert not spool.verify(body)

    def test_a_cut_file_reads_as_far_as_it_goes(self, spool: FileSpool, directory: Path) -> None:
        body = sealed(spool, b"content")
        body_path(directory, b"content").write_bytes(b"con")
        assert whole(spool, body) == b"con"


class TestSync:
    def test_of_a_draft_syncs_its_bytes_and_name(self, draft: DraftFile, directory: Path, fsynced: list[str]) -> None:
        draft.sync()
        assert fsynced == [f"{directory}/drafts/{draft.draft_id}", f"{directory}/drafts"]

    def test_then_seal_syncs_the_new_name(
        self, spool: FileSpool, draft: DraftFile, directory: Path, fsynced: list[str]
    ) -> None:
        draft.write(0, b"content")
        draft.sync()
        fsynced.clear()
        spool.seal(draft.draft_id, None)
        place = body_path(directory, b"content")
        assert fsynced == [str(place), str(place.parent)]

    def test_then_seal_keeps_the_draft_until_its_twin_is_on_disk(
        self, spool: FileSpool, draft: DraftFile, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sealed(spool, b"same")
        draft.write(0, b"same")
        draft.sync()
        present: list[bool] = []
        real = os.fsync

        def noted(fd: int) -> None:
            present.append((directory / "drafts" / draft.draft_id).exists())
            real(fd)

        monkeypatch.setattr(os, "fsync", noted)
        spool.seal(draft.draft_id, None)
        assert present == [True, True]
        assert not (directory / "drafts" / draft.draft_id).exists()

    def test_after_seal_syncs_the_body_that_took_its_place(
        self, spool: FileSpool, draft: DraftFile, directory: Path, fsynced: list[str]
    ) -> None:
        sealed(spool, b"same")
        draft.write(0, b"same")
        spool.seal(draft.draft_id, None)
        assert fsynced == []
        draft.sync()
        place = body_path(directory, b"same")
        assert fsynced == [str(place), str(place.parent)]

    def test_after_delivery_has_nothing_to_do(self, spool: FileSpool, draft: DraftFile, fsynced: list[str]) -> None:
        spool.remove(spool.seal(draft.draft_id, None))
        draft.sync()
        assert fsynced == []

    def test_a_draft_of_an_earlier_run_counts_as_synced(self, directory: Path, fsynced: list[str]) -> None:
        draft = FileSpool(directory).create()
        draft.close()
        spool = FileSpool(directory)
        fsynced.clear()
        spool.seal(draft.draft_id, None)
        assert len(fsynced) == 2

    def test_nothing_is_synced_unasked(self, spool: FileSpool, fsynced: list[str]) -> None:
        sealed(spool, b"content")
        assert fsynced == []


class TestRoom:
    def test_counts_what_is_there(self, spool: FileSpool, directory: Path) -> None:
        draft = spool.create()
        draft.write(0, b"x" * 100)
        draft.write(50, b"x" * 100)
        assert spool.used == 150
        draft.truncate(20)
        assert spool.used == 20
        draft.truncate(40)
        body = spool.seal(draft.draft_id, None)
        draft.close()
        assert spool.used == 40
        assert FileSpool(directory).used == 40
        spool.remove(body)
        spool.remove(body)
        assert spool.used == 0

    def test_a_removed_draft_counts_until_it_closes(self, spool: FileSpool) -> None:
        draft = spool.create()
        draft.write(0, b"x" * 100)
        spool.remove(draft.body)
        draft.write(100, b"x" * 100)
        assert draft.read(150, 100) == b"x" * 50
        assert spool.used == 200
        draft.close()
        assert spool.used == 0

    def test_a_twin_counts_until_it_closes(self, spool: FileSpool) -> None:
        sealed(spool, b"same")
        draft = spool.create()
        draft.write(0, b"same")
        spool.seal(draft.draft_id, None)
        assert spool.used == 8
        draft.close()
        assert spool.used == 4

    @pytest.mark.parametrize("grow", [lambda draft: draft.write(90, b"x" * 20), lambda draft: draft.truncate(101)])
    def test_the_limit_is_edquot_and_leaves_the_draft_as_it_was(
        self, directory: Path, grow: Callable[[DraftFile], object]
    ) -> None:
        spool = FileSpool(directory, 100)
        draft = spool.create()
        draft.write(0, b"x" * 100)
        with pytest.raises(OSError, match="--spool-limit") as raised:
            grow(draft)
        assert raised.value.errno == errno.EDQUOT
        assert (spool.used, draft.size, draft.body.digest) == (100, 100, digest_of(b"x" * 100))
        draft.write(90, b"y" * 10)  # what does not grow is always taken
        draft.close()

    def test_a_full_disk_takes_the_refused_bytes_back(
        self, spool: FileSpool, draft: DraftFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        draft.write(0, b"kept")
        real = os.pwrite

        def full(fd: int, content: bytes, offset: int) -> int:
            if len(content) < 1000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(fd, content[:100], offset)

        with monkeypatch.context() as disk:
            disk.setattr(os, "pwrite", full)
            with pytest.raises(OSError, match="No space") as raised:
                draft.write(4, b"x" * 1000)
        assert raised.value.errno == errno.ENOSPC
        assert (spool.used, draft.size, draft.read(0, 100)) == (4, 4, b"kept")
        assert draft.body.digest == digest_of(b"kept")

    def test_what_a_used_up_quota_does_not_even_let_cut_is_no_part_of_the_body(
        self, spool: FileSpool, draft: DraftFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        draft.write(0, b"kept")
        path = Path(spool.drafts) / draft.draft_id

        def exceeded(*_: object) -> None:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")

        def half(fd: int, offset: int, content: bytes) -> None:
            os.pwrite(fd, content[:500], offset)
            exceeded()

        with monkeypatch.context() as disk:
            disk.setattr("fsmount.spool.draft.write_all", half)
            disk.setattr(os, "ftruncate", exceeded)
            for _ in range(2):
                with pytest.raises(OSError, match="quota"):
                    draft.write(4, b"x" * 1000)
        assert path.stat().st_size == spool.used == 504
        assert (draft.size, draft.read(0, 100), draft.body.digest) == (4, b"kept", digest_of(b"kept"))
        draft.close()
        body = spool.seal(draft.draft_id, digest_of(b"kept"), 4)
        assert (spool.used, body.size, whole(spool, body)) == (4, 4, b"kept")

    def test_no_body_grows_while_the_journal_lives_on_its_reserve(self, directory: Path) -> None:
        lacking = errno.EDQUOT
        spool = FileSpool(directory, 1 << 30, lambda: lacking)
        draft = spool.create()
        with pytest.raises(OSError, match="journal") as raised:
            draft.write(0, b"x")
        assert raised.value.errno == errno.EDQUOT
        lacking = 0
        draft.write(0, b"x")
        draft.close()

    def test_the_reserve_of_the_disk_is_left_alone(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        spool = FileSpool(directory)
        draft = spool.create()
        real = os.statvfs(directory)
        blocks = (RESERVE + 1000) // real.f_frsize
        monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*real[:4], blocks, *real[5:])))
        with pytest.raises(OSError, match="reserve") as raised:
            draft.write(0, b"x" * 5000)
        assert raised.value.errno == errno.ENOSPC
        assert spool.used == 0
        draft.close()

    def test_without_a_limit_is_most_of_the_disk(self, directory: Path) -> None:
        spool = FileSpool(directory)
        disk = os.statvfs(directory)
        assert spool.limit == int(disk.f_blocks * disk.f_frsize * 0.8)


class TestUnnamed:
    def test_is_what_no_row_names_and_nothing_that_is_not_ours(self, directory: Path) -> None:
        spool = FileSpool(directory)
        kept, orphan = sealed(spool, b"kept"), sealed(spool, b"orphan")
        drafts = drafts_of(spool, 2)
        foreign = [
            directory / "drafts" / "notes.txt",
            directory / "bodies" / "zz",
            directory / "bodies" / "00" / ("1" * 64),
        ]
        for path in foreign:
            path.write_bytes(b"not ours")
        spool = FileSpool(directory)
        assert spool.used == 10
        assert kept.digest is not None
        unnamed = spool.unnamed([kept.digest], [drafts[0].draft_id])
        assert {body.draft or body.digest for body in unnamed} == {orphan.digest, drafts[1].draft_id}
        for body in unnamed:
            spool.remove(body)
        assert spool.used == 4
        assert whole(spool, kept) == b"kept"
        assert not spool.verify(orphan)
        spool.open_draft(drafts[0].draft_id).close()
        assert all(path.exists() for path in foreign)


def test_a_directory_that_cannot_be_used_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MachineLacks, match="cannot use the spool") as raised:
        FileSpool(tmp_path / "file" / "spool")
    assert raised.value.hint is not None


def failing(code: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail
