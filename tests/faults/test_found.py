"""What the random tests found, each held by a test of its own."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from fsmount.errors import FileError
from fsmount.model import Feed
from tests.faults.crash import CrashAt
from tests.faults.life import Life, emptied
from tests.faults.loop import without_threads
from tests.faults.remote import FaultyRemote
from tests.faults.scenes import come_to_rest
from tests.support.trio_clock import TrioClock


@pytest.fixture
async def life(memory: Path, nursery: trio.Nursery) -> AsyncIterator[Life]:
    remote = FaultyRemote(now=TrioClock().now)
    remote.write("/d/f", b"content")
    made = Life(emptied(memory), remote, TrioClock(), CrashAt())
    made.recover()
    nursery.start_soon(made.run)
    with without_threads():
        yield made
    nursery.cancel_scope.cancel()
    made.end()


@pytest.mark.parametrize("write", [False, True])
async def test_a_file_is_read_and_written_while_its_rename_arrives(
    autojump_clock: MockClock, life: Life, write: bool
) -> None:
    """Its bytes leave the old name before the request for them is answered."""
    await life.rename("/d/f", "/d/m")
    number = await life.create("/d/m", truncate=False)
    gate = life.remote.hold("read")
    async with trio.open_nursery() as nursery:

        async def use() -> None:
            if write:
                await life.write(number, b" and more", at=7)
            else:
                assert await life.filesystem.files.read(number, 0, 100) == b"content"

        nursery.start_soon(use)
        await come_to_rest(life)
        assert life.remote.content("/d/f") is None
        gate.set()
    if write:
        await life.flush(number)
    await life.release(number)
    assert await life.read("/d/m") == (b"content and more" if write else b"content")


async def test_a_temporary_keeps_its_directory_when_somebody_empties_it(autojump_clock: MockClock, life: Life) -> None:
    await life.save("/d/.f.swp", b"unsaved")
    await life.rename("/d/f", "/d/f~")
    await come_to_rest(life)
    assert not life.remote.files
    life.filesystem.arrivals.missed()
    assert (await life.read("/d/.f.swp"), await life.read("/d/f~")) == (b"unsaved", b"content")
    life.remote.write("/e/g", b"theirs")
    life.filesystem.arrivals.missed()
    await life.rename("/d/f~", "/e/g~")
    life.remote.remove("/e/g")
    life.filesystem.arrivals.missed()
    assert await life.read("/e/g~") == b"content"


async def test_a_revision_that_is_not_there_is_asked_for_anew(autojump_clock: MockClock, life: Life) -> None:
    """The server named a wrong one, and no event ever corrects it."""
    life.connection.feed = Feed.LIVE
    life.remote.misreport("put", "rev_never")
    await life.save("/d/f", b"mine")
    await come_to_rest(life)
    with pytest.raises(FileError) as caught:
        await life.read("/d/f")
    assert caught.value.errno == errno.ESTALE
    assert await life.read("/d/f") == b"mine"
