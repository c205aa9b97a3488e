"""A remote, proxy or token that refuses everything for a while: 401 charges nothing, 403 soon stops, all arrives."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import chain, cycle, repeat
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from fsmount.errors import Refusal
from fsmount.model import ConnectionState, Reason, RemotePath, State
from fsmount.retry import Breaker
from tests.faults.loop import without_threads
from tests.support.fake_remote import FakeRemote, Fault
from tests.support.uploading import UploadRig

HOUR = 3600.0
LARGE = b"x" * 300_000
"""No part of a batch."""
READS = ("probe", "read", "listing")
WRITES = ("put", "put_many", "delete", "copy_metadata", "remove_directory")
MOST_AT_ONCE = 4 + 4
"""Requests for single files, and for batches."""
View = dict[RemotePath, bytes]


class Stormy(FakeRemote):
    """``answers`` are the statuses of the requests in ``struck``, one after the other; 200: as it should be."""

    answers: Iterator[int] = repeat(200)
    struck: Collection[str] = ()

    def storm(self, *struck: str, answers: Iterator[int]) -> None:
        self.struck, self.answers = struck, answers

    def _struck(self, method: str, path: RemotePath) -> list[Fault]:
        status = next(self.answers) if method in self.struck else 200
        refusals = [] if status == 200 else [Fault(method=method, error=lambda: Refusal(status, message="no"))]
        return [*super()._struck(method, path), *refusals]

    @property
    def writes(self) -> int:
        return sum(self.calls[method] for method in WRITES)

    @property
    def contents(self) -> View:
        return {path: stored.content for path, stored in self.files.items()}


class StormRig(UploadRig):
    remote: Stormy

    def fill(self) -> View:
        """A queue of ops of every kind; what the remote holds when all are delivered."""
        for number in range(30):
            self.remote.write(f"/old/{number}", b"old %d" % number, metadata=("private",))
        end = self.remote.contents
        for number in range(20):
            path, content = (f"/new/{number}", b"new %d" % number) if number < 16 else (f"/large/{number}", LARGE)
            self.save(path, content)
            end[RemotePath(path)] = content
        for number in range(12):
            self.save(f"/old/{number}", b"changed %d" % number)
            end[RemotePath(f"/old/{number}")] = b"changed %d" % number
        for number in range(8, 22):  # some with unsent bytes
            self.rename(f"/old/{number}", f"/moved/{number}")
            end[RemotePath(f"/moved/{number}")] = end.pop(RemotePath(f"/old/{number}"))
        for number in range(22, 30):
            self.delete(f"/old/{number}")
            del end[RemotePath(f"/old/{number}")]
        for number in range(2):
            self.journal.rmdir(RemotePath(f"/empty/{number}"))
        assert self.waiting == 52
        return end


@pytest.fixture
async def rig(tmp_path: Path, autojump_clock: MockClock) -> Iterator[StormRig]:  # type: ignore[misc]
    made = StormRig(tmp_path, remote=Stormy())
    with without_threads():  # so that an hour takes no longer than what happens in it
        yield made
    made.journal.close()


def nothing_is_charged(rig: StormRig) -> None:
    assert rig.dead() == []
    assert {record.attempts for record in rig.journal.records(State.PENDING)} <= {0}
    assert rig.journal.totals().failed_writebacks == 0


async def retried(rig: StormRig) -> None:
    """What a person does when it is over: `retry all` and `resume`."""
    for record in reversed(rig.dead()):
        rig.journal.retry(record.op.op_id)
    rig.uploader.resume()
    await rig.settled()


async def test_an_hour_of_401_to_everything_charges_nothing(
    autojump_clock: MockClock, rig: StormRig, nursery: trio.Nursery
) -> None:
    expected = rig.fill()
    rig.remote.storm(*READS, *WRITES, answers=repeat(401))
    nursery.start_soon(rig.run)
    await trio.sleep(HOUR)
    assert rig.connection.state is ConnectionState.AUTH
    assert rig.remote.writes == 0, "the first probe has found out"
    assert rig.remote.calls["probe"] < 70
    nothing_is_charged(rig)
    rig.remote.storm(answers=repeat(200))
    rig.remote.renew()
    assert await rig.settled() < 10
    nothing_is_charged(rig)
    assert rig.remote.contents == expected


async def test_an_hour_of_401_to_writes_alone_charges_nothing(
    autojump_clock: MockClock, rig: StormRig, nursery: trio.Nursery
) -> None:
    """Each probe is answered, and so the writes are tried again and again, ever more seldom."""
    expected = rig.fill()
    rig.remote.storm(*WRITES, answers=repeat(401))
    nursery.start_soon(rig.run)
    await trio.sleep(HOUR)
    assert rig.remote.writes < 70 * MOST_AT_ONCE
    nothing_is_charged(rig)
    rig.remote.storm(answers=repeat(200))
    await rig.settled(within=90)
    nothing_is_charged(rig)
    assert rig.remote.contents == expected


@pytest.mark.parametrize("struck", [(*READS, *WRITES), WRITES], ids=["everything", "writes"])
async def test_403_to_everything_is_twenty_dead_letters_and_then_one_a_minute(
    autojump_clock: MockClock, rig: StormRig, nursery: trio.Nursery, struck: Collection[str]
) -> None:
    expected = rig.fill()
    rig.remote.storm(*struck, answers=repeat(403))
    nursery.start_soon(rig.run)
    await trio.sleep(50)
    assert rig.uploader.failing
    assert Breaker.LIMIT <= len(rig.dead()) < Breaker.LIMIT + MOST_AT_ONCE
    before = len(rig.dead())
    await trio.sleep(600)
    assert 9 <= len(rig.dead()) - before <= 11
    assert {(dead.reason, dead.attempts) for dead in rig.dead()} == {(Reason.FORBIDDEN, 1)}
    assert {record.attempts for record in rig.journal.records(State.PENDING)} == {0}
    rig.remote.storm(answers=repeat(200))
    await rig.settled(within=130)
    await retried(rig)
    assert rig.dead() == []
    assert rig.remote.contents == expected
    assert not rig.uploader.failing


@pytest.mark.parametrize("answers", [(401, 403, 200), (403, 401), (200, 401), (200, 200, 403)])
async def test_a_storm_of_several_statuses_loses_nothing(
    autojump_clock: MockClock, rig: StormRig, nursery: trio.Nursery, answers: tuple[int, ...]
) -> None:
    expected = rig.fill()
    rig.remote.storm(*READS, *WRITES, answers=cycle(answers))
    nursery.start_soon(rig.run)
    await trio.sleep(2 * HOUR)
    assert {dead.reason for dead in rig.dead()} == ({Reason.FORBIDDEN} if 403 in answers else set())
    assert {record.attempts for record in rig.journal.records(State.PENDING)} <= {0}
    rig.remote.storm(answers=repeat(200))
    rig.remote.renew()
    await rig.settled(within=130)
    await retried(rig)
    assert rig.dead() == []
    assert rig.remote.contents == expected


async def test_a_move_whose_second_half_is_refused_is_not_made_twice(
    autojump_clock: MockClock, rig: StormRig, nursery: trio.Nursery
) -> None:
    rig.remote.write("/old", b"old", metadata=("private",))
    rig.rename("/old", "/new")
    rig.remote.storm("delete", answers=chain([401, 401, 403], repeat(200)))
    nursery.start_soon(rig.run)
    await rig.settled()
    assert (rig.the_dead().reason, rig.the_dead().attempts) == (Reason.FORBIDDEN, 1)
    await retried(rig)
    assert rig.remote.contents == {"/new": b"old"}
    assert rig.remote.calls["copy_metadata"] == 1
