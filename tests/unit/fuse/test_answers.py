"""What the answer to a request promises the kernel, with the real handlers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyfuse3
import pytest
import trio
import trio.testing

from fsmount.fuse.operations import Operations
from fsmount.model import Capabilities, Feed
from fsmount.vfs.promises import LASTING
from tests.support.fake_remote import FakeRemote
from tests.support.followed import TTL, Followed
from tests.support.relay import Relay

CONTEXT = pyfuse3.RequestContext()
ROOT = pyfuse3.ROOT_INODE


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[Followed]:
    """A listing of this remote tells no sizes."""
    made = Followed(tmp_path, FakeRemote(Capabilities(feed=True)))
    made.remote.write("/f", b"first")
    yield made
    made.journal.close()


@pytest.fixture
def operations(followed: Followed, tmp_path: Path) -> Operations:
    folder = tmp_path / "relay"
    folder.mkdir()
    return Operations(
        followed.filesystem, Relay(folder).tree, followed.kernel, followed.clock, followed.log,  # type: ignore[arg-type]
        timeout=10, state_dir=str(tmp_path),
    )  # fmt: skip


async def test_an_answer_that_waited_for_the_size_promises_nothing(followed: Followed, operations: Operations) -> None:
    gate = followed.remote.hold("read")
    answers: list[pyfuse3.EntryAttributes] = []

    async def look() -> None:
        answers.append(await operations.lookup(ROOT, b"f", CONTEXT))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await trio.testing.wait_all_tasks_blocked()
        followed.tell("/f", "rev_99", digest="9" * 64)
        await followed.tree.find(followed.tree.inodes.root, "f")
        gate.set()
    (answer,) = answers
    assert (answer.entry_timeout, answer.attr_timeout) == (0, 0)
    answer = await operations.lookup(ROOT, b"f", CONTEXT)
    assert (answer.st_size, answer.entry_timeout, answer.attr_timeout) == (5, LASTING, LASTING)


@pytest.mark.parametrize(("feed", "seconds"), [(Feed.LIVE, LASTING), (Feed.NONE, TTL)])
async def test_an_absent_name_is_promised_like_a_present_one(
    followed: Followed, operations: Operations, feed: Feed, seconds: float
) -> None:
    followed.connection.feed = feed
    answer = await operations.lookup(ROOT, b"no", CONTEXT)
    assert (answer.st_ino, answer.entry_timeout) == (0, seconds)


async def test_nothing_is_promised_of_the_control_tree(operations: Operations) -> None:
    answer = await operations.lookup(ROOT, b".relay", CONTEXT)
    assert (answer.entry_timeout, answer.attr_timeout) == (0, 0)
