"""A handle that is gone leaves nothing behind, whatever fails after close(2) has returned."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsmount.errors import FileError
from fsmount.model import RemotePath
from fsmount.spool.draft import DraftFile
from tests.support.followed import Followed


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[Followed]:
    made = Followed(tmp_path)
    yield made
    made.journal.close()


async def written(followed: Followed, *, flush: bool) -> tuple[int, int]:
    """A new file whose first bytes were written again after a flush, so that its digest is lost: inode and handle."""
    root, files = followed.tree.inodes.root, followed.filesystem.files
    node, number = await followed.filesystem.create(root, "f", mode=0o644, uid=0, gid=0, exclusive=False, truncate=True)
    node.lookups += 1
    if flush:
        await files.write(number, 0, b"headtail")
        await files.flush(number)
    await files.write(number, 0, b"headtail")
    if flush:
        await files.flush(number)
    return node.ino, number


async def test_a_digest_that_cannot_be_reckoned_leaves_no_ghost(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(_: DraftFile) -> None:
        raise OSError(errno.EIO, "the disk cannot be read")

    ino, number = await written(followed, flush=True)
    monkeypatch.setattr(DraftFile, "hashed", damaged)
    await followed.filesystem.files.release(number)
    assert followed.tree.inodes.get(ino).draft is None
    assert list(followed.tree.drafts()) == []
    assert followed.journal.next_due() is not None, "it waits no longer for its writer than others do"
    assert followed.log.of("file.unknown")


async def test_what_cannot_be_journalled_stays_a_draft(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise FileError(errno.ENOSPC, "the disk is full")

    _, number = await written(followed, flush=False)
    monkeypatch.setattr(followed.journal, "put", full)
    with pytest.raises(FileError):
        await followed.filesystem.files.release(number)
    assert list(followed.tree.drafts()) == []
    (dead,) = followed.journal.recover(lambda _: 8)
    record = followed.journal.record(dead)
    assert record is not None
    assert (record.op.path, record.reason) == (RemotePath("/f"), "interrupted")
