"""What is known of the remote's directories, and what it costs to know it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import trio
import trio.testing

from fsmount.cache import KnownListings
from fsmount.connection import Connection
from fsmount.errors import Refusal, Unreachable
from fsmount.model import ROOT, Entry, Feed, Kind, RemotePath, Revision
from fsmount.vfs.listings import Listings
from tests.support.clock import ManualClock
from tests.support.fake_remote import FakeRemote
from tests.support.notes import Notes


class Known:
    """Listings of a remote with a live feed."""

    def __init__(self, known: KnownListings | None = None) -> None:
        self.clock = ManualClock()
        self.remote = FakeRemote()
        self.remote.write("/old/file", b"x")
        connection = Connection(self.remote, self.clock, Notes())
        connection.feed = Feed.POLLING
        self.listings = Listings(self.remote, connection, self.clock, 5.0, 10.0, known)

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


async def test_a_directory_that_went_while_changes_were_missed_is_found_when_it_comes_back(known: Known) -> None:
    assert await known.names("/old") == ["file"]
    known.remote.remove("/old/file")
    known.listings.expire()
    assert await known.names(ROOT) == []
    assert await known.names("/old") == []
    known.remote.write("/old/new", b"x")
    known.listings.outdated(RemotePath("/old/new"), gone=False)
    assert await known.names("/old") == ["new"]


async def known_files(known: Known, count: int) -> None:
    for number in range(count):
        known.remote.write(f"/many/{number}", b"x")
    known.listings.expire()
    assert len(await known.names("/many")) == count


@pytest.mark.parametrize(("files", "limit"), [(0, 100), (21, 100), (22, 11), (60, 30), (198, 99), (400, 100)])
async def test_how_many_deletes_are_too_many(known: Known, files: int, limit: int) -> None:
    await known_files(known, files)
    assert known.listings.brake(100) == limit


async def test_a_burst_of_deletes_is_measured_by_the_tree_that_it_began_with(known: Known) -> None:
    await known_files(known, 60)
    for number in range(40):
        assert known.listings.brake(100) == 30
        known.listings.learn(RemotePath(f"/many/{number}"), None)
        known.clock.advance(1.0)
    known.clock.advance(60.0)
    assert known.listings.brake(100) == 100
    await known_files(known, 62)
    assert known.listings.brake(100) == 31


async def test_when_the_remote_last_confirmed_a_listing(known: Known) -> None:
    began = known.clock.monotonic()
    known.clock.advance(100.0)
    known.listings._connection.contacted()
    known.clock.advance(3.0)
    known.listings.renew()
    listing = known.listings.held(ROOT)
    assert listing is not None
    assert listing.confirmed_at == began + 100.0
    assert listing.expires == began + 108.0


async def test_a_directory_that_we_emptied_without_having_listed_it_is_asked_for(known: Known) -> None:
    known.remote.remove("/old/file")
    known.listings.learn(RemotePath("/old/file"), None)
    assert await known.names(ROOT) == []
    assert known.requests == 2


async def test_a_listing_under_way_says_nothing_of_a_directory_that_we_emptied_meanwhile(known: Known) -> None:
    known.listings.expire()
    gate = known.remote.hold("listing")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(known.names, ROOT)
        await trio.testing.wait_all_tasks_blocked()
        known.listings.learn(RemotePath("/old/file"), None)
        gate.set()
    known.remote.faults.clear()
    known.remote.remove("/old/file")
    assert await known.names(ROOT) == []


@pytest.mark.parametrize("held", [False, True])
async def test_a_listing_under_way_does_not_hide_what_we_delivered_meanwhile(known: Known, held: bool) -> None:
    """Its answer was made before: who looks for the file at that moment must find it, and not find one that went."""
    directory, mine = RemotePath("/old"), RemotePath("/old/mine")
    if held:
        await known.names(directory)
        known.listings.expire()
    gate = known.remote.hold("listing")
    found: list[str] = []

    async def look() -> None:
        found.extend(await known.names(directory))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await trio.testing.wait_all_tasks_blocked()
        known.listings.learn(mine, Entry(path=mine, kind=Kind.FILE, revision=Revision("r")))
        known.listings.learn(RemotePath("/old/file"), None)
        gate.set()
    assert found == ["mine"]


async def test_a_directory_that_we_emptied_stays_where_something_else_may_be_in_it(known: Known) -> None:
    assert await known.names("/old") == ["file"]
    known.remote.write("/old/theirs", b"x")
    known.listings.outdated(RemotePath("/old/theirs"), gone=False)
    known.remote.remove("/old/file")
    known.listings.learn(RemotePath("/old/file"), None)
    assert await known.names(ROOT) == ["old"]


async def test_a_change_outdates_its_name_and_no_other(known: Known) -> None:
    known.listings.outdated(RemotePath("/old"), gone=False)
    assert known.listings.fresh(ROOT, "other") is not None
    assert known.listings.fresh(ROOT, "old") is known.listings.fresh(ROOT) is None
    await known.listings.directory(ROOT, "other")
    assert known.requests == 1
    await known.listings.directory(ROOT, "old")
    assert known.requests == 2
    assert known.listings.fresh(ROOT) is not None


async def test_a_request_that_began_before_a_change_serves_nobody_who_knows_of_it(known: Known) -> None:
    known.listings.expire()
    gate = known.remote.hold("listing")

    async def look(name: str) -> None:
        await known.listings.directory(ROOT, name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look, "old")
        await trio.testing.wait_all_tasks_blocked()
        known.listings.outdated(RemotePath("/new"), gone=False)
        nursery.start_soon(look, "old")
        nursery.start_soon(look, "new")
        nursery.start_soon(look, "new")
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert known.requests == 3, "the first, the one that was under way, and one more for both who knew"


async def test_what_a_former_run_knew_is_served_where_there_is_no_answer_and_only_there(tmp_path: Path) -> None:
    store = KnownListings(tmp_path, "remote")
    before = Known(store)
    await before.names("/old")
    before.listings.keep_now()

    offline = Known(store)
    offline.remote.online = False
    assert await offline.names("/old") == ["file"]
    held = offline.listings.held(RemotePath("/old"))
    assert held is not None
    assert held.confirmed_at < offline.clock.monotonic(), "it is as old as it is"
    with pytest.raises(Unreachable):
        await offline.names("/never-listed")
    offline.remote.online = True
    offline.remote.write("/old/new", b"x")
    assert await offline.names("/old") == ["file", "new"]

    refused = Known(store)
    refused.remote.authorized = False
    with pytest.raises(Refusal):
        await refused.names("/old")


async def test_a_directory_that_was_not_there_is_empty_while_there_is_no_answer(known: Known) -> None:
    known.listings.expire()
    known.remote.online = False
    assert await known.names("/made/here") == []
    with pytest.raises(Unreachable):
        await known.names("/old")
    known.remote.online = True
    known.remote.write("/made/here/elsewhere", b"x")
    assert await known.names("/made/here") == ["elsewhere"]


async def test_a_disk_that_does_not_answer_keeps_the_loop_going(tmp_path: Path) -> None:
    """The system call that asked for the directory waits for its deadline; nothing else does."""
    store, goes_on = KnownListings(tmp_path, "remote"), threading.Event()
    store.keep({RemotePath("/old"): []}, 0.0)
    assert store._reader is not None
    store._reader.set_progress_handler(lambda: not goes_on.wait(10), 1)
    offline = Known(store)
    offline.remote.online = False
    with trio.move_on_after(0.1) as asked:
        await offline.names("/old")
    assert asked.cancelled_caught
    assert not goes_on.is_set()
    goes_on.set()
    assert await offline.names("/old") == []
    store.close()
