"""Waiting for ops ends when only a person could move them on, and not before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from fsmount.errors import Refusal
from fsmount.model import ABSENT, Reason, Record, RemotePath, State
from fsmount.vfs.deliveries import Deliveries
from tests.support.uploading import UploadRig


@pytest.fixture
async def rig(tmp_path: Path, autojump_clock: MockClock) -> AsyncIterator[UploadRig]:
    made = UploadRig(tmp_path)
    yield made
    made.journal.close()


async def test_nothing_is_told_of_what_was_delivered(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    deliveries = Deliveries(rig.journal)
    ops = [rig.save(f"/{number}", b"x") for number in range(5)]
    nursery.start_soon(rig.run)
    assert await deliveries.settled(ops) == []
    assert len(rig.remote.files) == 5
    assert await deliveries.settled([]) == []


async def test_dead_held_and_blocked_ops_are_not_waited_for(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    deliveries = Deliveries(rig.journal)
    rig.remote.write("/a/f", b"f")
    rig.rename("/a/f", "/b/f")
    rig.remote.write("/gone", b"g")
    rig.journal.delete(RemotePath("/gone"), rig.remote.base("/gone"), brake=0)
    behind = rig.save("/a/f", b"behind", base=ABSENT)
    rig.remote.fail("copy_metadata", Refusal(403), times=9)
    ops = [record.op.op_id for state in (State.PENDING, State.HELD) for record in rig.journal.records(state)]
    nursery.start_soon(rig.run)
    with trio.fail_after(60):
        left = {record.op.op_id: record for record in await deliveries.settled(ops)}
    states = {record.state for record in left.values()}
    assert states == {State.DEAD, State.HELD, State.PENDING}
    assert left[behind].blocked_by is not None
    assert {record.reason for record in left.values() if record.state is State.DEAD} == {Reason.FORBIDDEN}


async def test_who_waits_hears_of_one_that_is_tried_again(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    deliveries = Deliveries(rig.journal)
    rig.remote.fail("put", Refusal(422), path=RemotePath("/a"))
    gate = rig.remote.hold("put", path=RemotePath("/b"))
    first, second = rig.save("/a", b"x" * 300_000), rig.save("/b", b"x" * 300_000)
    found: list[list[Record]] = []

    async def wait() -> None:
        found.append(await deliveries.settled([first, second]))

    nursery.start_soon(rig.run)
    nursery.start_soon(wait)
    await trio.sleep(5)
    rig.journal.retry(first)
    gate.set()
    await rig.settled()
    await trio.sleep(1)
    assert found == [[]]


async def test_an_offline_remote_keeps_one_waiting(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    deliveries = Deliveries(rig.journal)
    rig.remote.online = False
    op_id = rig.save("/a", b"a", base=ABSENT)
    nursery.start_soon(rig.run)
    with trio.move_on_after(600) as scope:
        await deliveries.settled([op_id])
    assert scope.cancelled_caught
    rig.remote.online = True
    assert await deliveries.settled([op_id]) == []
