"""What is known of the remote's directories, and what it costs to know it."""

from __future__ import annotations

import pytest

from fsmount.connection import Connection
from fsmount.model import ROOT, Entry, Feed, Kind, RemotePath, Revision
from fsmount.vfs.listings import Listings
from tests.support.clock import ManualClock
from tests.support.fake_remote import FakeRemote
from tests.support.notes import Notes


class Known:
    """Listings of a remote with a live feed."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.remote = FakeRemote()
        self.remote.write("/old/file", b"x")
        connection = Connection(self.remote, self.clock, Notes())
        connection.feed = Feed.POLLING
        self.listings = Listings(self.remote, connection, self.clock, 5.0, 10.0)

    async def names(self, directory: str) -> list[str]:
        return sorted((await self.listings.directory(RemotePath(directory))).entries)

    def put(self, path: str) -> None:
        """Our own file arrives."""
        revision = self.remote.write(path, b"ours")
        self.listings.learn(RemotePath(path), Entry(path=RemotePath(path), kind=Kind.FILE, revision=Revision(revision)))

    @property
    def requests(self) -> int:
        return self.remote.calls["listing"]


@pytest.fixture
async def known() -> Known:
    """The root was listed."""
    made = Known()
    assert await made.names(ROOT) == ["old"]
    assert made.requests == 1
    return made


async def test_directories_that_only_we_made_cost_no_request(known: Known) -> None:
    assert await known.names("/new/deep/deeper") == []
    known.put("/new/deep/deeper/a")
    known.put("/new/deep/b")
    assert await known.names(ROOT) == ["new", "old"]
    assert await known.names("/new") == ["deep"]
    assert await known.names("/new/deep") == ["b", "deeper"]
    assert await known.names("/new/deep/deeper") == ["a"]
    assert known.requests == 1


async def test_what_appears_there_from_elsewhere_is_asked_for(known: Known) -> None:
    known.put("/new/deep/a")
    known.remote.write("/new/theirs", b"x")
    known.listings.outdated(RemotePath("/new/theirs"))
    assert await known.names("/new") == ["deep", "theirs"]
    assert await known.names("/new/deep") == ["a"]
    assert known.requests == 2


async def test_what_appeared_there_before_our_first_file_is_asked_for(known: Known) -> None:
    known.remote.write("/new/theirs", b"x")
    known.listings.outdated(RemotePath("/new/theirs"))
    known.put("/new/ours")
    assert await known.names("/new") == ["ours", "theirs"]


async def test_a_directory_that_the_remote_has_is_asked_for(known: Known) -> None:
    known.put("/old/ours")
    assert await known.names("/old") == ["file", "ours"]
    assert await known.names("/old/not-there") == []
    assert known.requests == 2


async def test_a_new_directory_is_asked_for_once_changes_may_have_been_missed(known: Known) -> None:
    known.put("/new/ours")
    known.remote.write("/new/theirs", b"x")
    known.listings.expire()
    assert await known.names("/new") == ["ours", "theirs"]
