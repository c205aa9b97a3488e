"""What every remote must do, as checks that take any implementation and somebody else who writes to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

import pytest
import trio

from fsmount.errors import Refusal, RemoteError
from fsmount.model import ABSENT, Base, Change, Kind, Receipt, RemotePath, Revision, Told
from fsmount.ports import Remote
from tests.support.uploads import digest_of, upload_of

BYTES = b"\x00\xff binary \x80"


class Foreign(Protocol):
    """Another writer of the same remote, past the implementation under test."""

    def write(self, path: str, content: bytes) -> Revision: ...
    def remove(self, path: str) -> None: ...
    def content(self, path: str) -> bytes | None: ...


Check = Callable[[Remote, Foreign], Awaitable[None]]
CHECKS: list[Check] = []


def _check(function: Check) -> Check:
    CHECKS.append(function)
    return function


async def check_remote(remote: Remote, foreign: Foreign, check: Check) -> None:
    """Runs one of ``CHECKS``; none may take long."""
    with trio.fail_after(20):
        await remote.probe()
        await check(remote, foreign)


@_check
async def a_listing_has_files_and_implicit_directories(remote: Remote, foreign: Foreign) -> None:
    revision = foreign.write("/d/a.txt", b"one")
    foreign.write("/d/deep/er/b.txt", b"two")
    found = {entry.path: entry for entry in await remote.listing(RemotePath("/d"))}
    assert set(found) == {"/d/a.txt", "/d/deep"}
    file, directory = found[RemotePath("/d/a.txt")], found[RemotePath("/d/deep")]
    assert (file.kind, file.revision, file.digest) == (Kind.FILE, revision, digest_of(b"one"))
    assert file.mtime > 1e9
    assert directory.kind is Kind.DIRECTORY
    assert file.size == (3 if remote.capabilities.exact_sizes else None)


@_check
async def a_directory_that_is_not_there_lists_empty(remote: Remote, foreign: Foreign) -> None:
    assert await remote.listing(RemotePath("/nowhere")) == []


@_check
async def sizes_are_bytes(remote: Remote, foreign: Foreign) -> None:
    foreign.write("/bin", BYTES)
    foreign.write("/utf", "größe".encode())
    sizes = {entry.path: entry.size for entry in await remote.listing(RemotePath("/"))}
    if remote.capabilities.exact_sizes:
        assert sizes == {"/bin": len(BYTES), "/utf": 7}


@_check
async def a_read_covers_what_was_asked(remote: Remote, foreign: Foreign) -> None:
    revision = foreign.write("/bin", BYTES)
    chunk = await remote.read(RemotePath("/bin"), revision, 2, 4)
    assert chunk.start <= 2
    assert chunk.data[2 - chunk.start : 6 - chunk.start] == BYTES[2:6]
    assert (chunk.total, chunk.revision) == (len(BYTES), revision)


@_check
async def a_read_of_nothing_is_refused_404(remote: Remote, foreign: Foreign) -> None:
    await _refused(404, lambda: remote.read(RemotePath("/gone"), None, 0, 1))


@_check
async def a_put_creates_updates_and_keeps_bytes(remote: Remote, foreign: Foreign) -> None:
    first = await remote.put(upload_of("/p/ä b&c?+.txt", BYTES))
    assert foreign.content("/p/ä b&c?+.txt") == BYTES
    second = await remote.put(upload_of("/p/ä b&c?+.txt", b"text\n", Base(first.revision)))
    assert foreign.content("/p/ä b&c?+.txt") == b"text\n"
    assert second.revision not in (None, first.revision)
    assert second.digest == digest_of(b"text\n")


@_check
async def an_empty_file_can_be_put(remote: Remote, foreign: Foreign) -> None:
    await remote.put(upload_of("/empty", b""))
    assert foreign.content("/empty") == b""
    assert (await remote.read(RemotePath("/empty"), None, 0, 10)).total == 0
    (entry,) = await remote.listing(RemotePath("/"))
    assert entry.size == 0 or (entry.size is None and not remote.capabilities.exact_sizes)


@_check
async def a_put_respects_its_base(remote: Remote, foreign: Foreign) -> None:
    current = foreign.write("/f", b"theirs")
    refusal = await _refused(409, lambda: remote.put(upload_of("/f", b"mine")))
    assert refusal.current_revision == current
    await _refused(409, lambda: remote.put(upload_of("/f", b"mine", Base(Revision("rev_0")))))
    await _refused(404, lambda: remote.put(upload_of("/gone", b"mine", Base(current))))
    assert foreign.content("/f") == b"theirs"


@_check
async def a_delete_respects_its_base(remote: Remote, foreign: Foreign) -> None:
    old = foreign.write("/f", b"1")
    new = foreign.write("/f", b"2")
    await _refused(409, lambda: remote.delete(RemotePath("/f"), Base(old)))
    await _refused(409, lambda: remote.delete(RemotePath("/f"), ABSENT))
    assert (await remote.delete(RemotePath("/f"), Base(new))).revision is None
    assert foreign.content("/f") is None
    await _refused(404, lambda: remote.delete(RemotePath("/f"), Base(new)))


@_check
async def a_batch_gives_each_file_its_verdict(remote: Remote, foreign: Foreign) -> None:
    current = foreign.write("/b/changed", b"theirs")
    uploads = [
        upload_of("/b/new", BYTES),
        upload_of("/b/changed", b"mine"),
        upload_of("/b/gone", b"mine", Base(current)),
        upload_of("/b/same", b"text"),
    ]
    new, changed, gone, same = await remote.put_many(uploads)
    assert isinstance(new, Receipt)
    assert isinstance(same, Receipt)
    assert isinstance(changed, Refusal)
    assert isinstance(gone, Refusal)
    assert (changed.status, changed.current_revision, gone.status) == (409, current, 404)
    assert (new.path, same.path) == ("/b/new", "/b/same")
    assert (foreign.content("/b/new"), foreign.content("/b/changed")) == (BYTES, b"theirs")
    listed = {entry.path: entry.revision for entry in await remote.listing(RemotePath("/b"))}
    assert (listed[new.path], listed[same.path]) == (new.revision, same.revision)


@_check
async def a_repeated_batch_is_recognised(remote: Remote, foreign: Foreign) -> None:
    uploads = [upload_of("/r/1", b"a", key="k1"), upload_of("/r/2", b"b", key="k2")]
    assert _revisions(await remote.put_many(uploads)) == _revisions(await remote.put_many(uploads))


@_check
async def without_the_metadata_of_a_source_that_is_gone_nothing_is_created(remote: Remote, foreign: Foreign) -> None:
    for content in (b"x", b"x" * 100_000):
        upload = upload_of("/new", content)
        await _refused(404, partial(remote.copy_metadata, upload, RemotePath("/old"), Revision("rev_1")))
        assert foreign.content("/new") is None


@_check
async def only_an_empty_directory_is_removed(remote: Remote, foreign: Foreign) -> None:
    foreign.write("/d/sub/f", b"1")
    refusal = await _refused(409, lambda: remote.remove_directory(RemotePath("/d")))
    assert refusal.code == "not_empty"
    foreign.remove("/d/sub/f")
    await remote.remove_directory(RemotePath("/d"))


@_check
async def the_feed_tells_foreign_changes(remote: Remote, foreign: Foreign) -> None:
    foreign.write("/before", b"0")
    told: list[Told | None] = []

    async with trio.open_nursery() as nursery:
        nursery.start_soon(remote.follow, told.append, lambda _: None)
        revision = await _until_told(foreign, told)
        foreign.remove("/fed")
        while told[-1] is None or told[-1].revision is not None:
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    changes = [change for change in told if isinstance(change, Change)]
    assert all(change.path == "/fed" for change in changes)
    assert [change.digest for change in changes if change.revision == revision] == [digest_of(b"news")]
    assert changes[-1].revision is None


async def _until_told(foreign: Foreign, told: list[Told | None]) -> Revision:
    """Writes until the feed, which begins at some moment, tells of the last one."""
    while True:
        revision = foreign.write("/fed", b"news")
        with trio.move_on_after(0.5):
            while not any(change is not None and change.revision == revision for change in told):
                await trio.sleep(0.01)
            return revision


def _revisions(verdicts: list[Receipt | RemoteError]) -> list[Revision | None]:
    assert all(isinstance(verdict, Receipt) for verdict in verdicts), verdicts
    return [verdict.revision for verdict in verdicts if isinstance(verdict, Receipt)]


async def _refused(status: int, call: Callable[[], Awaitable[object]]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await call()
    assert caught.value.status == status
    return caught.value
