"""The daemon's parts by themselves: decisions about many ops, room for what was given up, the settings it shows."""

from __future__ import annotations

import errno
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from fsmount.app.beneath import MOST, names_beneath, problems_beneath
from fsmount.app.commands import Decisions
from fsmount.app.retention import LOOK
from fsmount.app.settings import settings
from fsmount.app.upkeep import Upkeep
from fsmount.config import Config, Credentials, parse_remote
from fsmount.errors import Refusal
from fsmount.model import ABSENT, OpId, RemotePath, State
from fsmount.vfs.arrivals import Arrivals
from tests.support.uploading import UploadRig

TOO_MUCH = b"x" * 300_000


@pytest.fixture
async def rig(tmp_path: Path, autojump_clock: MockClock) -> AsyncIterator[UploadRig]:
    made = UploadRig(tmp_path)
    yield made
    made.journal.close()


def config(tmp_path: Path, **how: object) -> Config:
    places = {name: tmp_path / name for name in ("mountpoint", "state_dir", "cache_dir", "log_file")}
    remote = parse_remote("relayfile+http://127.0.0.1:1/ws")
    return Config(**{"remote": remote, "name": "m", **places, **how})  # type: ignore[arg-type]


def decisions(rig: UploadRig) -> Decisions:
    return Decisions(rig.journal, cast("Arrivals", rig.overlay), rig.uploader, rig.log)


async def refused(rig: UploadRig, nursery: trio.Nursery, *paths: str) -> list[OpId]:
    """Dead letters of these paths, in this order."""
    rig.remote.fail("put", Refusal(422), times=len(paths))
    nursery.start_soon(rig.run)
    ops = []
    for path in paths:
        ops.append(rig.save(path, TOO_MUCH + path.encode(), base=ABSENT))
        await rig.settled()
    assert rig.journal.counts().dead == len(paths)
    return ops


# many ops


async def test_retry_all_takes_the_newest_of_each_path(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    old, new, other = await refused(rig, nursery, "/p/a", "/p/a", "/q/b")
    assert decisions(rig).retry_dead(None) == 2
    pending = [record.op.op_id for record in rig.journal.records(State.PENDING)]
    assert pending == [other, new], "in their order"
    await rig.settled()
    assert set(rig.remote.files) == {"/p/a", "/q/b"}
    gone = rig.journal.record(old)
    assert gone is not None
    assert (gone.state, gone.superseded_by) == (State.DISCARDED, new)
    assert {op.path for op in rig.overlay.changes} >= {"/p/a", "/q/b"}, "the filesystem heard of it"


async def test_retry_of_a_provider_leaves_the_others(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    await refused(rig, nursery, "/p/a", "/q/b")
    assert decisions(rig).retry_dead("q") == 1
    await rig.settled()
    assert set(rig.remote.files) == {"/q/b"}
    assert decisions(rig).retry_dead("nobody") == 0


async def test_what_cannot_be_tried_again_is_logged_and_left_out(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery
) -> None:
    await refused(rig, nursery, "/p/a", "/p/b")
    rig.uploader.pause()
    rig.save("/p/a", b"newer", base=ABSENT)
    assert decisions(rig).retry_dead(None) == 1
    (note,) = rig.log.of("verb.refused")
    assert note.path == "/p/a"


async def test_held_deletes_are_released_or_given_up_all_at_once(autojump_clock: MockClock, rig: UploadRig) -> None:
    for number in range(3000):
        rig.remote.write(f"/d/{number}", b"x")

    def remove_all() -> None:
        with rig.journal.transaction():
            for number in range(3000):
                path = RemotePath(f"/d/{number}")
                rig.journal.delete(path, rig.remote.base(path), brake=10)

    remove_all()
    assert rig.journal.counts().held == 3000
    assert decisions(rig).discard_held() == 3000
    assert (rig.journal.counts().held, rig.journal.counts().pending) == (0, 0)
    remove_all()
    assert decisions(rig).release_held() == 3000
    assert (rig.journal.counts().held, rig.journal.counts().pending) == (0, 3000)


async def test_pause_and_resume_are_said_once(autojump_clock: MockClock, rig: UploadRig) -> None:
    person = decisions(rig)
    person.pause()
    person.pause()
    person.resume()
    person.resume()
    assert len(rig.log.of("mount")) == 2
    assert not rig.uploader.paused


# what was given up


async def given_up(rig: UploadRig, nursery: trio.Nursery, *paths: str) -> None:
    """Superseded dead letters with bodies of their own."""
    await refused(rig, nursery, *paths)
    for path in paths:
        rig.save(path, b"better", base=ABSENT)
        await rig.settled()


async def test_discarded_bodies_beyond_their_limit_go_the_oldest_first(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery, tmp_path: Path
) -> None:
    upkeep = Upkeep(config(tmp_path, discard_limit=2 * len(TOO_MUCH) + 100), rig.journal, rig.spool, rig.clock, rig.log)
    nursery.start_soon(upkeep.run)
    await given_up(rig, nursery, "/1", "/2", "/3", "/4")
    await trio.sleep(10)
    assert {record.op.path for record in rig.journal.records(State.DISCARDED)} == {"/3", "/4"}
    bodies = [file for file in (tmp_path / "spool/bodies").rglob("*") if file.is_file()]
    assert len(bodies) == 2, "their bytes are gone with them"
    assert rig.log.of("op.purged")


async def test_discarded_ops_are_kept_as_long_as_asked_and_no_longer(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery, tmp_path: Path
) -> None:
    def discarded() -> set[RemotePath]:
        return {record.op.path for record in rig.journal.records(State.DISCARDED)}

    upkeep = Upkeep(config(tmp_path, keep_discarded=LOOK), rig.journal, rig.spool, rig.clock, rig.log)
    ops = await refused(rig, nursery, "/1", "/2")
    nursery.start_soon(upkeep.run)
    rig.journal.discard(ops[0])
    await trio.sleep(1.5 * LOOK)
    assert discarded() == {"/1"}, "it was younger than that when last looked at"
    rig.journal.discard(ops[1])
    await trio.sleep(0.6 * LOOK)
    assert discarded() == {"/2"}
    bodies = [file for file in (tmp_path / "spool/bodies").rglob("*") if file.is_file()]
    assert len(bodies) == 1, "its bytes are gone with it"
    assert rig.log.of("op.purged")


@pytest.mark.parametrize("years", [20, -20])
async def test_a_clock_that_jumps_makes_nothing_discarded_older_or_younger(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery, tmp_path: Path, years: int
) -> None:
    upkeep = Upkeep(config(tmp_path, keep_discarded=1.5 * LOOK), rig.journal, rig.spool, rig.clock, rig.log)
    (op,) = await refused(rig, nursery, "/1")
    nursery.start_soon(upkeep.run)
    await trio.sleep(0.1)
    rig.journal.discard(op)
    rig.clock.jump(years * 365 * 86400.0)
    await trio.sleep(1.1 * LOOK)
    assert rig.journal.records(State.DISCARDED)
    await trio.sleep(LOOK)
    assert not rig.journal.records(State.DISCARDED)


@pytest.mark.parametrize("years", [20, -20])
async def test_what_is_discarded_after_the_clock_was_set_has_its_term_too(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery, tmp_path: Path, years: int
) -> None:
    upkeep = Upkeep(config(tmp_path, keep_discarded=1.5 * LOOK), rig.journal, rig.spool, rig.clock, rig.log)
    before, after = await refused(rig, nursery, "/1", "/2")
    nursery.start_soon(upkeep.run)
    await trio.sleep(1)
    rig.journal.discard(before)
    rig.clock.jump(years * 365 * 86400.0)
    rig.journal.discard(after)
    for hours, left in ((1.1, 2), (1.0, 0)):
        await trio.sleep(hours * LOOK)
        assert len(rig.journal.records(State.DISCARDED)) == left


@pytest.mark.parametrize("years", [20, -20])
async def test_a_clock_that_was_set_between_two_daemons_makes_nothing_older(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery, tmp_path: Path, years: int
) -> None:
    (op,) = await refused(rig, nursery, "/1")
    for jump, hours, left in ((0, 0.1, 1), (years, 1.1, 1), (0, 1.0, 0)):
        rig.clock.jump(jump * 365 * 86400.0)
        async with trio.open_nursery() as daemon:
            daemon.start_soon(
                Upkeep(config(tmp_path, keep_discarded=1.5 * LOOK), rig.journal, rig.spool, rig.clock, rig.log).run
            )
            await trio.sleep(1)
            if op:
                rig.journal.discard(op)
                op = OpId("")
            await trio.sleep(hours * LOOK)
            assert len(rig.journal.records(State.DISCARDED)) == left
            daemon.cancel_scope.cancel()


async def test_what_was_given_up_takes_no_room_from_what_is_to_be_sent(
    autojump_clock: MockClock, rig: UploadRig, nursery: trio.Nursery, tmp_path: Path
) -> None:
    nursery.start_soon(Upkeep(config(tmp_path), rig.journal, rig.spool, rig.clock, rig.log).run)
    await given_up(rig, nursery, "/1", "/2", "/3")
    rig.spool.room.limit = 3 * len(TOO_MUCH)
    await trio.sleep(10)
    assert rig.spool.used < 1000
    draft = rig.spool.create()
    draft.write(0, b"y" * 2 * len(TOO_MUCH))
    with pytest.raises(OSError, match="--spool-limit") as caught:
        draft.write(draft.size, b"y" * 2 * len(TOO_MUCH))
    assert caught.value.errno == errno.EDQUOT
    draft.close()


# what is shown


def test_the_settings_have_the_options_names_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSMOUNT_TOKEN", "secret-of-the-environment")
    given = config(tmp_path, credentials=Credentials(token_command="vault read secret-of-the-vault"))
    shown = settings(given, spool_limit=1000)
    assert (shown["token_command"], shown["token_file"], shown["spool_limit"]) == ("***", None, 1000)
    assert (shown["keep_discarded"], shown["umask"], shown["attr_ttl"]) == (30, "022", 5)
    assert settings(config(tmp_path), spool_limit=0)["token"] == "***"
    file = settings(config(tmp_path, credentials=Credentials(token_file=tmp_path / "t")), spool_limit=0)
    assert (file["token_file"], file["token"]) == (str(tmp_path / "t"), None)
    for text in (json.dumps(shown), json.dumps(file)):
        assert "secret" not in text


def test_what_lies_beneath_is_listed_up_to_a_limit(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/deep").touch()
    (tmp_path / "f").touch()
    found = problems_beneath(tmp_path, names_beneath(tmp_path))
    assert [problem.path for problem in found] == [f"{tmp_path}/d", f"{tmp_path}/f"]
    assert names_beneath(tmp_path / "nowhere") == []
    for number in range(MOST + 5):
        (tmp_path / "d" / str(number)).touch()
    assert len(names_beneath(tmp_path / "d")) == MOST
