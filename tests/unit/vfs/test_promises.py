"""What the kernel is promised, and that it is told of everything that makes a promise untrue."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from fsmount.errors import FileError, Refusal
from fsmount.model import ROOT, Change, Feed, RemotePath
from fsmount.vfs import promises
from fsmount.vfs.promises import LASTING
from tests.support.followed import TTL, Followed


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[Followed]:
    made = Followed(tmp_path)
    made.remote.write("/f", b"first")
    made.remote.write("/d/a", b"a")
    yield made
    made.journal.close()


async def swept(followed: Followed) -> None:
    """What is to be withdrawn is withdrawn; on a virtual clock."""
    with trio.move_on_after(60):
        await followed.promises.run()


# for how long


@pytest.mark.parametrize(("feed", "seconds"), [(Feed.LIVE, LASTING), (Feed.POLLING, TTL), (Feed.NONE, TTL)])
async def test_only_a_live_feed_lets_the_kernel_believe_for_long(
    followed: Followed, feed: Feed, seconds: float
) -> None:
    followed.connection.feed = feed
    node, root = await followed.known("/d/a"), followed.tree.inodes.root
    assert followed.promises.of(node) == followed.promises.of(root) == seconds
    assert followed.promises.of_absence(root, "no") == seconds


async def test_nothing_is_promised_of_what_changed_while_it_was_looked_up(followed: Followed) -> None:
    await followed.known("/d/a")
    followed.changed("/d/b", b"b")
    gate = followed.remote.hold("listing")
    answers: list[float] = []

    async def look() -> None:
        directory, node = await followed.known("/d"), await followed.known("/d/b")
        answers.extend((followed.promises.of(node), followed.promises.of_absence(directory, "c")))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await trio.testing.wait_all_tasks_blocked()
        followed.changed("/d/b", b"newer")
        gate.set()
    assert answers == [0, LASTING], "nothing was told of the other name"
    assert followed.promises.of(await followed.known("/d/b")) == LASTING


async def test_nothing_is_promised_of_what_lost_its_name(followed: Followed) -> None:
    node = await followed.known("/d/a")
    directory = await followed.known("/d")
    followed.removed("/d/a")
    assert await followed.look("/d/a") is None
    assert followed.promises.of(node) == followed.promises.of(directory) == 0
    assert followed.promises.of_absence(directory, "a") == 0


async def test_a_listing_that_is_only_old_lets_the_kernel_answer_for_the_ttl(followed: Followed) -> None:
    followed.connection.feed = Feed.NONE
    node = await followed.known("/d/a")
    followed.clock.advance(TTL + 1)
    followed.remote.fail("listing", Refusal(500), times=9)
    await followed.tree.refresh(node)
    assert followed.promises.of(node) == TTL


# what the feed tells


async def test_a_change_drops_name_and_attributes_and_asks_nothing(followed: Followed) -> None:
    node, asked = await followed.known("/d/a"), followed.listings
    followed.changed("/d/a", b"new")
    assert followed.kernel.told == [("attributes", node.ino), ("name", (await followed.known("/d")).ino, "a")]
    assert followed.listings == asked


async def test_a_thousand_changes_cost_one_listing_when_somebody_looks(followed: Followed) -> None:
    await followed.known("/d/a")
    asked = followed.listings
    for number in range(1000):
        followed.changed(f"/d/{number % 500}", b"x")
    assert followed.listings == asked
    for number in range(500):
        assert await followed.look(f"/d/{number}") is not None
    assert followed.listings == asked + 1


async def test_a_new_name_is_told_where_the_kernel_can_know_it_to_be_absent(followed: Followed) -> None:
    await followed.look("/d/new")
    await followed.look("/fresh/deep/file")
    followed.changed("/d/new", b"x")
    followed.changed("/fresh/deep/file", b"x")
    assert followed.kernel.names() == ["new", "fresh"]


async def test_what_a_listing_told_before_the_feed_did_is_told_to_the_kernel(followed: Followed) -> None:
    await followed.known("/d/a")
    followed.remote.write("/d/a", b"newer")
    followed.changed("/d/other", b"x")
    await followed.known("/d/other")
    followed.kernel.told.clear()
    followed.tell("/d/a")
    assert followed.kernel.names() == ["a"]
    assert followed.tree.listings.fresh(RemotePath("/d")) is not None


async def test_a_directory_that_may_have_gone_keeps_its_name_until_it_is_found_to_have(followed: Followed) -> None:
    directory = await followed.known("/d")
    await followed.known("/d/a")
    followed.removed("/d/a")
    assert ("attributes", directory.ino) in followed.kernel.told
    assert followed.kernel.names() == ["a"]
    with pytest.raises(FileError, match="removed elsewhere"):
        await followed.tree.refresh(directory)
    assert followed.kernel.names() == ["d"]


async def test_a_file_in_the_place_of_a_directory_takes_its_name(followed: Followed) -> None:
    directory = await followed.known("/d")
    followed.removed("/d/a")
    followed.changed("/d", b"file now")
    assert "d" in followed.kernel.names()
    assert (await followed.known("/d")).ino != directory.ino


async def test_an_open_file_keeps_its_version_and_the_name_gets_another_inode(followed: Followed) -> None:
    node = await followed.known("/f")
    number, _ = await followed.open(node)
    assert await followed.filesystem.files.read(number, 0, 99) == b"first"
    followed.changed("/f", b"second")
    assert followed.kernel.names() == ["f"]
    other = await followed.known("/f")
    assert other is not node
    assert await followed.filesystem.files.read(number, 0, 99) == b"first"
    again, keep = await followed.open(other)
    assert not keep
    assert await followed.filesystem.files.read(again, 0, 99) == b"second"


async def test_what_was_written_here_keeps_its_inode_and_what_it_says(followed: Followed) -> None:
    node = await followed.save("/f", b"ours")
    followed.changed("/f", b"theirs")
    assert await followed.known("/f") is node
    number, _ = await followed.open(node)
    assert await followed.filesystem.files.read(number, 0, 99) == b"ours"


# our own changes


async def test_our_own_echo_tells_nothing(followed: Followed) -> None:
    await followed.save("/new", b"ours")
    followed.delivered("/new", b"ours")
    followed.kernel.told.clear()
    asked = followed.listings
    for _ in range(2):
        followed.tell("/new")
    assert followed.kernel.told == []
    assert await followed.look("/new") is not None
    assert followed.listings == asked


async def test_an_echo_that_comes_before_the_answer_tells_nothing(followed: Followed) -> None:
    await followed.save("/new", b"ours")
    (claim,) = followed.journal.claim(1)
    assert claim.op.path == "/new"
    followed.remote.write("/new", b"ours")
    followed.tell("/new")
    assert followed.kernel.told == []


async def test_somebody_elses_delete_is_no_echo_of_ours(followed: Followed) -> None:
    root = followed.tree.inodes.root
    await followed.known("/f")
    await followed.filesystem.unlink(root, "f")
    followed.delivered("/f", None)
    followed.tell("/f")
    assert followed.kernel.names() == []
    followed.changed("/f", b"theirs")
    assert await followed.look("/f") is not None
    followed.removed("/f")
    assert await followed.look("/f") is None


async def test_a_revision_that_was_used_again_is_no_echo(followed: Followed) -> None:
    await followed.save("/new", b"ours")
    revision = followed.delivered("/new", b"ours")
    followed.kernel.told.clear()
    followed.tell("/new", revision, digest="0" * 64)
    assert followed.kernel.names() == ["new"]


async def test_after_a_reset_no_revision_is_ours(followed: Followed) -> None:
    """A remote that was set up anew gives our revision to somebody else's file, and its feed may tell no digest."""
    await followed.save("/new", b"ours")
    revision = followed.delivered("/new", b"ours")
    followed.remote.remove("/new")
    followed.arrivals.missed()
    assert await followed.look("/new") is None
    followed.remote.write("/new", b"theirs")
    followed.arrivals.remote_changed(Change(path=RemotePath("/new"), revision=revision))
    assert await followed.look("/new") is not None


# pages


async def test_pages_are_kept_once_a_read_shows_that_they_are_of_the_version(followed: Followed) -> None:
    """An open that is answered may not have been carried out when the next one is."""
    node = await followed.known("/f")
    first, keep = await followed.open(node)
    assert not keep
    second, keep = await followed.open(node)
    assert not keep
    await followed.filesystem.files.read(first, 0, 9)
    third, keep = await followed.open(node)
    assert keep
    for number in (first, second, third):
        await followed.filesystem.files.release(number)
    followed.changed("/f", b"other")
    _, keep = await followed.open(await followed.known("/f"))
    assert not keep


async def test_pages_of_what_was_saved_outlive_its_delivery(followed: Followed) -> None:
    node = await followed.save("/new", b"ours")
    number, keep = await followed.open(node)
    assert not keep
    await followed.filesystem.files.read(number, 0, 9)
    followed.delivered("/new", b"ours")
    followed.tell("/new")
    _, keep = await followed.open(node)
    assert keep


# when the feed cannot be relied on any more


async def test_with_the_feed_goes_everything_that_was_promised(
    followed: Followed, autojump_clock: trio.testing.MockClock
) -> None:
    root = followed.tree.inodes.root
    node, directory = await followed.known("/f"), await followed.known("/d")
    followed.promises.of_absence(root, "no")
    followed.promises.of_absence(root, "made")
    await followed.filesystem.mkdir(root, "made", mode=0o755, uid=0, gid=0)
    followed.connection.feed = Feed.POLLING
    await swept(followed)
    told = followed.kernel.told
    assert {("attributes", node.ino), ("attributes", directory.ino), ("attributes", root.ino)} <= set(told)
    # not the directories, in which somebody may work
    assert followed.kernel.names() == ["f", "no"]


async def test_a_listing_is_current_for_the_ttl_after_the_feed_has_ended(followed: Followed) -> None:
    await followed.known("/f")
    followed.connection.feed = Feed.NONE
    followed.clock.advance(TTL - 1)
    assert followed.tree.listings.fresh(ROOT) is not None
    followed.clock.advance(2)
    assert followed.tree.listings.fresh(ROOT) is None


async def test_much_is_withdrawn_in_slices(
    followed: Followed, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promises, "SLICE", 10)
    count = 100
    for number in range(count):
        followed.remote.write(f"/many/{number}", b"x")
    directory = await followed.known("/many")
    for name, shown in await followed.tree.children(directory):
        followed.tree.bind(directory, name, shown)
    turns: list[int] = []

    async def others() -> None:
        while True:
            turns.append(len(followed.kernel.told))
            await trio.sleep(promises.PAUSE / 2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        followed.arrivals.missed()
        await swept(followed)
        nursery.cancel_scope.cancel()
    assert len(followed.kernel.names()) == count
    assert max(after - before for before, after in itertools.pairwise(turns)) <= 3 * promises.SLICE


async def test_only_what_lies_below_is_looked_at_again(
    followed: Followed, autojump_clock: trio.testing.MockClock
) -> None:
    other, directory, node = await followed.known("/f"), await followed.known("/d"), await followed.known("/d/a")
    followed.promises.of_absence(directory, "no")
    followed.promises.of_absence(followed.tree.inodes.root, "nor")
    followed.arrivals.missed(RemotePath("/d"))
    await swept(followed)
    assert ("attributes", node.ino) in followed.kernel.told
    assert ("attributes", other.ino) not in followed.kernel.told
    assert followed.kernel.names() == ["a", "no"]


async def test_the_oldest_absent_names_are_told_when_there_are_too_many(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promises, "ABSENT_NAMES", 2)
    await followed.known("/d/a")
    directory = await followed.known("/d")
    for name in ("x", "y", "x", "z"):
        assert followed.promises.of_absence(directory, name) == LASTING
    assert followed.kernel.names() == ["y"]
