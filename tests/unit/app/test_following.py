"""Whoever follows the feed goes on, whatever the feed does."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import trio
from trio.testing import MockClock

from fsmount.app.following import AGAIN, Following
from fsmount.app.providers import Providers
from fsmount.model import Feed
from fsmount.remote.relayfile import RelayfileRemote
from tests.support.followed import Followed


async def test_an_error_that_nobody_expected_costs_the_feed_for_a_while_and_is_logged_with_its_kind(
    autojump_clock: MockClock, nursery: trio.Nursery, tmp_path: Path
) -> None:
    rig = Followed(tmp_path)
    providers = Providers(rig.remote, rig.connection, rig.journal, rig.clock, rig.log)
    remote = cast("RelayfileRemote", rig.remote)
    following = Following(remote, rig.connection, rig.filesystem, providers, rig.clock, rig.log)
    ways: list[Feed] = []
    rig.connection.watch_feed(lambda _, now: ways.append(now))
    rig.remote.fail("follow", lambda: KeyError("secret"))  # type: ignore[arg-type, return-value]
    nursery.start_soon(following.run)
    await trio.sleep(AGAIN / 2)
    assert ways == [Feed.NONE]
    (note,) = [note for note in rig.log.of("feed") if note.level == "error"]
    assert "KeyError at fake_remote.py:" in note.message
    assert "secret" not in note.message
    await trio.sleep(AGAIN)
    assert ways == [Feed.NONE, Feed.LIVE]
    rig.remote.write("/a", b"news")
    await trio.sleep(1)
    assert following.last_event_at is not None
