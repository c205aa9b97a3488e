"""A long body is not sent where a look shows that it would be refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from fsmount.errors import Refusal
from fsmount.model import ABSENT, Capabilities, Reason
from fsmount.uploader import beforehand
from tests.support.fake_remote import FakeRemote
from tests.support.uploading import UploadRig

MINE = b"m" * 300_000


@pytest.fixture
async def rig(tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadRig]:  # type: ignore[misc]
    autojump_clock.autojump_threshold = 0.01
    monkeypatch.setattr(beforehand, "LONG", len(MINE))
    made = UploadRig(tmp_path, remote=FakeRemote(Capabilities(ranges=True, batch_put=True)))
    made.remote.write("/there", b"old")
    yield made
    made.journal.close()


@pytest.mark.parametrize(
    ("path", "foreign", "reason"),
    [
        ("/there", lambda remote: remote.write("/there", b"theirs"), Reason.CONFLICT),
        ("/there", lambda remote: remote.remove("/there"), Reason.REMOTE_DELETED),
        ("/new", lambda remote: remote.write("/new", b"theirs"), Reason.CONFLICT),
    ],
)
async def test_what_cannot_be_delivered_is_not_sent(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery, path: str,
    foreign: Callable[[FakeRemote], object], reason: Reason,
) -> None:  # fmt: skip
    rig.save(path, MINE)
    foreign(rig.remote)
    nursery.start_soon(rig.run)
    await rig.settled()
    dead = rig.the_dead()
    assert (dead.reason, dead.attempts, rig.remote.calls["put"]) == (reason, 1, 0)
    if reason is Reason.CONFLICT:
        assert dead.theirs is not None
        assert dead.theirs.base == rig.remote.base(path)
        assert dead.theirs.body is not None
        assert "not sent" in str(dead.history[-1].error)


async def test_what_is_there_already_is_not_sent_again(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.save("/new", MINE)
    rig.remote.lose_answer("put")
    nursery.start_soon(rig.run)
    await rig.settled()
    assert (rig.dead(), rig.remote.calls["put"], rig.remote.content("/new")) == ([], 1, MINE)


async def test_what_stands_as_it_was_is_replaced(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    rig.save("/there", MINE)
    rig.save("/new", MINE, base=ABSENT)
    rig.remote.fail("read", Refusal(403, message="not to be read"))
    nursery.start_soon(rig.run)
    await rig.settled()
    assert (rig.dead(), rig.remote.calls["put"]) == ([], 2)
    assert rig.remote.content("/there") == rig.remote.content("/new") == MINE
