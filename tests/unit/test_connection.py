"""Online, offline, limited, refused: what turns one into the other, on virtual time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fsmount.connection import CATCH_UP, Connection
from fsmount.errors import Refusal
from fsmount.model import ConnectionState, Feed, RemotePath
from tests.support.fake_remote import FakeRemote
from tests.support.notes import Notes
from tests.support.trio_clock import TrioClock


class Rig:
    def __init__(self) -> None:
        self.remote = FakeRemote()
        self.log = Notes()
        self.connection = Connection(self.remote, TrioClock(), self.log)
        self._changed = trio.Event()
        self.connection.watch(self._note)

    @property
    def probes(self) -> int:
        return self.remote.calls["probe"]

    async def until(self, state: ConnectionState, within: float = 200.0) -> float:
        """Waits for the state; how many seconds that took."""
        before = trio.current_time()
        with trio.fail_after(within):
            while self.connection.state is not state:
                await self._changed.wait()
        return trio.current_time() - before

    def told(self) -> list[tuple[str, str | None]]:
        """What programs read of it: event and state."""
        return [(note.event, note.details.state) for note in self.log.all if note.details is not None]

    def _note(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_it_asks_once_at_the_start(autojump_clock: MockClock, rig: Rig, nursery: trio.Nursery) -> None:
    assert rig.connection.usable, "not asked yet is no reason to wait"
    nursery.start_soon(rig.connection.run)
    await rig.until(ConnectionState.ONLINE)
    await trio.sleep(3600)
    assert rig.probes == 1, "an idle mount asks for nothing"
    assert rig.connection.last_contact_at is not None


async def test_offline_is_probed_with_backoff_and_ends_by_itself(
    autojump_clock: MockClock, rig: Rig, nursery: trio.Nursery
) -> None:
    rig.remote.online = False
    nursery.start_soon(rig.connection.run)
    await rig.until(ConnectionState.OFFLINE)
    since = rig.connection.shown.offline_since
    asked = []
    for _ in range(8):
        at = rig.connection.next_probe_at
        assert at is not None
        asked.append(round(at - TrioClock().now()))
        await trio.sleep(asked[-1] + 0.01)
    assert asked == [1, 2, 4, 8, 16, 32, 60, 60]
    assert since is not None
    assert rig.connection.shown.offline_since == since, "it counts from the first failure"
    rig.remote.online = True
    assert await rig.until(ConnectionState.ONLINE) <= 60
    assert rig.connection.offline_since is None
    assert [line.message.split(":")[0] for line in rig.log.of("connection")] == ["offline", "online again"]


async def test_checks_share_one_probe(autojump_clock: MockClock, rig: Rig) -> None:
    gate = rig.remote.hold("probe")
    answers: list[bool] = []

    async def ask() -> None:
        answers.append(await rig.connection.check())

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        gate.set()
    assert answers == [True] * 5
    assert rig.probes == 1
    assert await rig.connection.check()
    assert rig.probes == 2, "a later question is asked anew"


async def test_a_stamp_lets_an_earlier_probe_count(autojump_clock: MockClock, rig: Rig) -> None:
    stamp = rig.connection.probes
    assert await rig.connection.check(stamp)
    assert await rig.connection.check(stamp)
    assert rig.probes == 1


async def test_who_waits_for_a_probe_takes_over_when_its_owner_is_cancelled(
    autojump_clock: MockClock, rig: Rig
) -> None:
    rig.remote.hold("probe")
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            owner = trio.CancelScope()

            async def own() -> None:
                with owner:
                    await rig.connection.check()

            nursery.start_soon(own)
            await wait_all_tasks_blocked()
            answers: list[bool] = []

            async def ask() -> None:
                answers.append(await rig.connection.check())

            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            owner.cancel()
    assert answers == [True]


async def test_a_silent_remote_is_offline_after_ten_seconds(autojump_clock: MockClock, rig: Rig) -> None:
    rig.remote.hold("probe")
    before = trio.current_time()
    assert not await rig.connection.check()
    assert trio.current_time() - before == pytest.approx(10, abs=0.1)
    assert rig.connection.state is ConnectionState.OFFLINE


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_remote_that_is_broken_is_offline(autojump_clock: MockClock, rig: Rig, status: int) -> None:
    rig.remote.fail("probe", Refusal(status))
    assert not await rig.connection.check()
    assert rig.connection.state is ConnectionState.OFFLINE


async def test_retry_after_puts_off_the_next_probe(autojump_clock: MockClock, rig: Rig, nursery: trio.Nursery) -> None:
    rig.remote.fail("probe", Refusal(503, retry_after=30))
    nursery.start_soon(rig.connection.run)
    await rig.until(ConnectionState.OFFLINE)
    assert await rig.until(ConnectionState.ONLINE) == pytest.approx(30, abs=1)
    assert rig.probes == 2


async def test_a_limit_holds_for_all_and_ends_by_itself(autojump_clock: MockClock, rig: Rig) -> None:
    rig.remote.fail("probe", Refusal(429, retry_after=30))
    assert not await rig.connection.check()
    assert rig.connection.state is ConnectionState.LIMITED
    assert not rig.connection.usable
    await trio.sleep(29)
    assert not rig.connection.usable
    await trio.sleep(1.1)
    assert rig.connection.usable


async def test_the_end_of_a_limit_is_told_once_with_the_next_answer(autojump_clock: MockClock, rig: Rig) -> None:
    rig.remote.fail("probe", Refusal(429, retry_after=30))
    await rig.connection.check()
    for wait in (10, 21, 1):
        await trio.sleep(wait)
        rig.connection.contacted()
    assert rig.told() == [("connection", "limited"), ("connection", "online")]


@pytest.mark.parametrize("status", [403, 404])
async def test_a_remote_that_refuses_the_probe_is_there(autojump_clock: MockClock, rig: Rig, status: int) -> None:
    rig.remote.fail("probe", Refusal(status))
    assert await rig.connection.check()


async def test_a_refused_credential_is_looked_at_until_it_changes(
    autojump_clock: MockClock, rig: Rig, nursery: trio.Nursery
) -> None:
    rig.remote.authorized = False
    nursery.start_soon(rig.connection.run)
    await rig.until(ConnectionState.AUTH)
    await trio.sleep(1)
    assert rig.probes == 1, "the refused credential is not tried again at once"
    await trio.sleep(200)
    assert 6 <= rig.probes <= 8, "after 2, 4, 8, 16, 32, 60, 60 s"
    rig.remote.renew()
    assert await rig.until(ConnectionState.ONLINE) < 2.5
    assert [line.level for line in rig.log.of("credential")] == ["warning", "info", "info"]
    assert [state for event, state in rig.told() if event == "credential"] == ["refused", "changed", "accepted"]


async def test_a_refusal_that_was_the_servers_mistake_ends_without_a_new_credential(
    autojump_clock: MockClock, rig: Rig, nursery: trio.Nursery
) -> None:
    nursery.start_soon(rig.connection.run)
    await rig.until(ConnectionState.ONLINE)
    rig.connection.refused()
    assert rig.connection.state is ConnectionState.AUTH
    assert await rig.until(ConnectionState.ONLINE) == pytest.approx(2, abs=1.5)


async def test_a_credential_that_only_probes_accept_is_tried_ever_less_often(
    autojump_clock: MockClock, rig: Rig, nursery: trio.Nursery
) -> None:
    nursery.start_soon(rig.connection.run)
    await rig.until(ConnectionState.ONLINE)
    await trio.sleep(10)
    waits = []
    for _ in range(6):
        rig.connection.refused()
        waits.append(await rig.until(ConnectionState.ONLINE))
    assert waits == pytest.approx([2, 4, 8, 16, 32, 60], abs=1.5)
    await trio.sleep(100)
    rig.connection.refused()
    assert await rig.until(ConnectionState.ONLINE) == pytest.approx(2, abs=1.5)


async def test_an_answer_ends_offline_but_not_auth(autojump_clock: MockClock, rig: Rig) -> None:
    with rig.remote.offline():
        assert not await rig.connection.check()
    rig.connection.contacted()
    assert rig.connection.usable
    rig.connection.refused()
    rig.connection.contacted()
    assert rig.connection.state is ConnectionState.AUTH


async def test_a_suspicion_is_probed_soon(autojump_clock: MockClock, rig: Rig, nursery: trio.Nursery) -> None:
    nursery.start_soon(rig.connection.run)
    await rig.until(ConnectionState.ONLINE)
    rig.remote.online = False
    rig.connection.suspect()
    assert await rig.until(ConnectionState.OFFLINE) < 0.1


@pytest.mark.parametrize("feed", [Feed.POLLING, Feed.NONE])
async def test_what_comes_back_is_caught_up_when_its_feed_goes_on_or_was_waited_for(
    autojump_clock: MockClock, rig: Rig, feed: Feed
) -> None:
    rig.connection.feed = Feed.LIVE
    rig.remote.online = False
    await rig.connection.check()
    rig.connection.feed = Feed.NONE
    rig.remote.online = True
    await rig.connection.check()
    assert (rig.connection.usable, rig.connection.caught_up) == (True, False)
    rig.connection.feed = feed
    assert rig.connection.caught_up == (feed is Feed.POLLING)
    await trio.sleep(CATCH_UP)
    assert rig.connection.caught_up


async def test_watchers_hear_of_every_change(autojump_clock: MockClock, rig: Rig) -> None:
    heard: list[ConnectionState] = []
    rig.connection.watch(lambda: heard.append(rig.connection.state))
    assert await rig.connection.check()
    assert await rig.connection.check()
    with rig.remote.offline():
        await rig.connection.check()
        await rig.connection.check()
    rig.connection.refused()
    assert heard == [ConnectionState.ONLINE, ConnectionState.OFFLINE, ConnectionState.AUTH]


async def test_what_it_shows(autojump_clock: MockClock, rig: Rig) -> None:
    rig.remote.online = False
    await rig.connection.check()
    shown = rig.connection.shown
    assert shown.state is ConnectionState.OFFLINE
    assert shown.offline_since == rig.connection.offline_since
    assert shown.next_probe_at is not None
    assert shown.last_contact_at is None
    assert rig.remote.requests == [("probe", RemotePath("/"))]


async def test_an_error_that_nobody_expected_of_a_probe_is_logged_and_probed_again(
    autojump_clock: MockClock, rig: Rig, nursery: trio.Nursery
) -> None:
    rig.remote.fail("probe", lambda: KeyError("secret"))  # type: ignore[arg-type, return-value]
    nursery.start_soon(rig.connection.run)
    await rig.until(ConnectionState.OFFLINE)
    await rig.until(ConnectionState.ONLINE)
    (note,) = [note for note in rig.log.of("connection") if note.level == "error"]
    assert "KeyError at fake_remote.py:" in note.message
    assert "secret" not in note.message
