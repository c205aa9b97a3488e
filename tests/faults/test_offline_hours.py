"""A remote that is away for half a day (of virtual time): nothing is charged, and coming back is no stampede."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from fsmount.errors import RemoteError
from fsmount.model import Base, ConnectionState, Receipt, RemotePath, State
from fsmount.ports import Upload
from tests.support.fake_remote import FakeRemote
from tests.support.uploading import UploadRig

HOURS = 12
LARGE = 300_000
"""Bytes of a file that is no part of a batch."""


class Counting(FakeRemote):
    """Every request takes a while; notes how many were under way at once, and in which order they began."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way = self.most = 0
        self.began: list[tuple[str, RemotePath]] = []

    @contextmanager
    def _counted(self, method: str, *paths: RemotePath) -> Iterator[None]:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.began += [(method, path) for path in paths]
        try:
            yield
        finally:
            self.under_way -= 1

    async def put(self, upload: Upload) -> Receipt:
        with self._counted("put", upload.path):
            await trio.sleep(0.1)
            return await super().put(upload)

    async def put_many(self, uploads: Sequence[Upload]) -> list[Receipt | RemoteError]:
        with self._counted("put", *(upload.path for upload in uploads)):
            await trio.sleep(0.1)
            return await super().put_many(uploads)

    async def delete(self, path: RemotePath, base: Base) -> Receipt:
        with self._counted("delete", path):
            await trio.sleep(0.1)
            return await super().delete(path, base)


@pytest.fixture
async def rig(tmp_path: Path, autojump_clock: MockClock) -> Iterator[UploadRig]:  # type: ignore[misc]
    made = UploadRig(tmp_path, remote=Counting())
    yield made
    made.journal.close()


async def test_half_a_day_without_the_remote(rig: UploadRig, autojump_clock: MockClock) -> None:
    remote = rig.remote
    assert isinstance(remote, Counting)
    for number in range(40):
        remote.write(f"/old/{number}", b"old")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.run)
        await trio.sleep(1)
        remote.online = False
        for hour in range(HOURS):
            for number in range(20):
                rig.save(f"/new/{hour}/{number}", b"%d" % hour)
            rig.save("/saved-each-hour", b"%d" % hour)
            rig.save(f"/large/{hour}", b"x" * LARGE)
            rig.delete(f"/old/{hour}")
            rig.rename(f"/new/{hour}/0", f"/new/{hour}/renamed")
            await trio.sleep(3600)
        assert rig.connection.state is ConnectionState.OFFLINE
        assert rig.dead() == []
        assert {record.attempts for record in rig.journal.records(State.PENDING)} == {0}
        totals = rig.journal.totals()
        assert (totals.failed_attempts, totals.failed_writebacks) == (0, 0)
        assert remote.calls["probe"] <= HOURS * 60 + 10, "one small read a minute"
        assert remote.calls.total() - remote.calls["probe"] <= 4, "the requests that found out"
        nursery.cancel_scope.cancel()

    rig.recover()  # and the machine was started anew meanwhile
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.run)
        await trio.sleep(600)
        assert rig.connection.state is ConnectionState.OFFLINE
        remote.most, remote.began, before = 0, [], len(remote.requests)
        remote.online = True
        await rig.settled()
        nursery.cancel_scope.cancel()
    assert remote.most <= 8, "four requests for single files and four for batches, however much waits"
    assert len(remote.requests) - before < 100, "small files go together"
    assert rig.dead() == []
    assert remote.content("/saved-each-hour") == b"%d" % (HOURS - 1)
    assert [path for _, path in remote.began].count(RemotePath("/saved-each-hour")) == 2, (
        "the save whose attempt found out, and all later ones as one"
    )
    for hour in range(HOURS):
        assert remote.content(f"/new/{hour}/19") == remote.content(f"/new/{hour}/renamed") == b"%d" % hour
        assert remote.content(f"/new/{hour}/0") is None
        assert remote.content(f"/old/{hour}") is None
        assert remote.content(f"/large/{hour}") is not None
    assert remote.content("/old/39") == b"old"


async def test_what_follows_on_a_name_goes_in_order_after_hours(rig: UploadRig, autojump_clock: MockClock) -> None:
    """An attempt that was cut off fixes an op: what came later on its name goes behind it."""
    remote = rig.remote
    assert isinstance(remote, Counting)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.run)
        await trio.sleep(1)
        remote.online = False
        rig.save("/f", b"x" * LARGE)
        await trio.sleep(3600)
        rig.save("/f", b"second")
        rig.rename("/f", "/g")
        rig.save("/f", b"third")
        await trio.sleep(3600)
        remote.began = []
        remote.online = True
        await rig.settled()
        nursery.cancel_scope.cancel()
    assert rig.dead() == []
    assert (remote.content("/g"), remote.content("/f")) == (b"second", b"third")
    of_f = [method for method, path in remote.began if path == "/f"]
    assert of_f[-1] == "put", remote.began
