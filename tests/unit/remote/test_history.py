"""The log is read without a gap, and what might have been missed is said."""

from __future__ import annotations

import pytest
import trio

from fsmount.errors import RemoteError, Unreachable
from fsmount.model import Change, ProviderFailed, ProviderSucceeded, RemotePath, Revision, Told
from fsmount.remote.history import History
from fsmount.wire.relayfile import Event, EventPage

DIGEST = "ab" * 32


class Log:
    """The events of a server; ``fetch`` answers as relayfile does, an unknown cursor from the beginning."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.error: RemoteError | None = None
        self.page = 1000
        self.first = 1
        self.requests = 0
        self.knows_direction = True
        self.name = "evt_{}"

    def add(self, path: str, kind: str = "file.updated", **members: str) -> None:
        number = self.first + len(self.events)
        event = {"revision": f"rev_{number}", "content_hash": DIGEST, "timestamp": "1970-01-01T00:00:09Z", **members}
        self.events.append(Event(event_id=self.name.format(number), type=kind, path=path, **event))

    async def fetch(self, query: dict[str, str]) -> EventPage:
        await trio.lowlevel.checkpoint()
        self.requests += 1
        if self.error is not None:
            raise self.error
        if query.get("direction") == "desc" and self.knows_direction:
            return EventPage(events=tuple(reversed(self.events[-int(query["limit"]) :])))
        ids = [event.event_id for event in self.events]
        start = ids.index(query["cursor"]) + 1 if query.get("cursor") in ids else 0
        page = tuple(self.events[start : start + min(self.page, int(query["limit"]))])
        more = start + len(page) < len(self.events)
        return EventPage(events=page, next_cursor=page[-1].event_id if more else None)


class Reader:
    """Looks at a log and keeps what is told."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.told: list[Told | None] = []
        self.history = History(log.fetch)

    async def look(self) -> list[Told | None]:
        """What is told now; the looks are a second apart."""
        self.told.clear()
        await trio.sleep(1)
        await self.history.look(self.told.append)
        return list(self.told)

    async def paths(self) -> list[RemotePath | None]:
        return [None if told is None else told.path for told in await self.look()]

    async def quiet(self, looks: int = 30) -> None:
        """Looks a while (of virtual time) and finds nothing."""
        for _ in range(looks):
            assert await self.look() == []


async def _followed() -> tuple[Log, Reader]:
    """A reader that stands at the end of a log with three events."""
    log = Log()
    for path in ("/1", "/2", "/3"):
        log.add(path)
    reader = Reader(log)
    assert await reader.look() == [None]
    await reader.quiet()
    return log, reader


async def test_changes_come_in_order_over_pages(autojump_clock: trio.testing.MockClock) -> None:
    log, reader = await _followed()
    log.page = 2
    for number in range(5):
        log.add(f"/new{number}")
    assert await reader.paths() == [f"/new{number}" for number in range(5)]
    await reader.quiet()


async def test_what_a_change_says(autojump_clock: trio.testing.MockClock) -> None:
    log, reader = await _followed()
    log.add("/a", "file.created")
    log.add("/a", "file.deleted", origin="system")
    log.add("/a", "writeback.failed", revision="rev_4")
    log.add("/a", "writeback.succeeded", revision="rev_5")
    assert await reader.look() == [
        Change(path="/a", revision="rev_4", digest=DIGEST, at=9.0),  # type: ignore[arg-type]
        Change(path="/a", revision=None, at=9.0, system=True),  # type: ignore[arg-type]
        ProviderFailed(path="/a", revision="rev_4", at=9.0),  # type: ignore[arg-type]
        ProviderSucceeded(path="/a", revision="rev_5", at=9.0),  # type: ignore[arg-type]
    ]


@pytest.mark.parametrize(("kind", "said"), [("failed", ProviderFailed), ("succeeded", ProviderSucceeded)])
async def test_what_a_provider_did_is_told(
    autojump_clock: trio.testing.MockClock, kind: str, said: type[ProviderFailed | ProviderSucceeded]
) -> None:
    log, reader = await _followed()
    log.add("/a", f"writeback.{kind}")
    assert await reader.look() == [said(path=RemotePath("/a"), revision=Revision("rev_4"), at=9.0)]


async def test_other_events_are_passed_over(autojump_clock: trio.testing.MockClock) -> None:
    log, reader = await _followed()
    for kind in ("sync.error", "sync.stale", "directory.created", "file.invented"):
        log.add("/a", kind)
    log.add("", "file.updated")
    await reader.quiet()
    assert reader.history.cursor == "evt_8"
    log.add("/b")
    assert await reader.paths() == ["/b"]


async def test_an_error_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    log, reader = await _followed()
    log.add("/a")
    log.error = Unreachable("gone")
    with pytest.raises(Unreachable):
        await reader.look()
    log.add("/b")
    log.error = None
    assert await reader.paths() == ["/a", "/b"]


async def test_a_look_that_is_cancelled_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    log, reader = await _followed()
    log.add("/a")
    with trio.CancelScope() as scope:
        scope.cancel()
        await reader.history.look(reader.told.append)
    log.add("/b")
    assert await reader.paths() == ["/a", "/b"]


@pytest.mark.parametrize("left", [0, 2])
async def test_a_head_below_ours_is_a_reset(autojump_clock: trio.testing.MockClock, left: int) -> None:
    log, reader = await _followed()
    del log.events[left:]
    assert None in [told for _ in range(6) for told in await reader.look()]
    await reader.quiet()
    log.add("/after")
    assert await reader.paths() == ["/after"]


async def test_looking_closely_shows_a_reset_at_once(autojump_clock: trio.testing.MockClock) -> None:
    log, reader = await _followed()
    resets: list[int] = []
    reader.history.is_reset = lambda: resets.append(len(reader.told))
    await reader.look()
    assert resets == []
    del log.events[2:]
    await reader.history.look(reader.told.append, closely=True)
    assert (reader.told, resets) == ([None], [0]), "what it means for revisions is told before"


@pytest.mark.parametrize("since", [0, 1, 5])
async def test_a_log_that_was_restored_and_has_grown_as_long_again_is_a_reset(
    autojump_clock: trio.testing.MockClock, since: int
) -> None:
    log, reader = await _followed()
    log.error = Unreachable("away")
    with pytest.raises(RemoteError):
        await reader.look()
    del log.events[2:]
    log.error = None
    for number in range(1 + since):
        log.add(f"/theirs/{number}")
    resets: list[int] = []
    reader.history.is_reset = lambda: resets.append(len(reader.told))
    assert await reader.look() == [None]
    assert resets == [0], "before anything is told"
    await reader.quiet()


async def test_a_log_that_goes_on_after_an_outage_is_no_reset(autojump_clock: trio.testing.MockClock) -> None:
    log, reader = await _followed()
    for number in range(3):
        log.error = Unreachable("away")
        with pytest.raises(RemoteError):
            await reader.look()
        log.error = None
        log.add(f"/more/{number}")
        assert await reader.paths() == [f"/more/{number}"]


async def test_a_cursor_that_is_not_known_is_a_reset(autojump_clock: trio.testing.MockClock) -> None:
    log, reader = await _followed()
    log.events = [event for event in log.events if event.event_id != "evt_3"]
    log.first = 2
    log.add("/4")
    assert log.events[-1].event_id == "evt_4"
    assert await reader.paths() == [None]
    log.add("/5")
    assert await reader.paths() == ["/5"]


async def test_an_empty_log_is_followed_from_its_beginning(autojump_clock: trio.testing.MockClock) -> None:
    log = Log()
    reader = Reader(log)
    assert await reader.look() == [None]
    await reader.quiet()
    log.add("/first")
    assert await reader.paths() == ["/first"]


async def test_news_cost_one_request_a_look(autojump_clock: trio.testing.MockClock) -> None:
    log, reader = await _followed()
    before = log.requests
    for number in range(20):
        log.add(f"/{number}")
        assert await reader.paths() == [f"/{number}"]
    assert log.requests - before == 20


async def test_quiet_looks_seldom_ask_for_the_head(autojump_clock: trio.testing.MockClock) -> None:
    log, reader = await _followed()
    before = log.requests
    await reader.quiet()
    assert log.requests - before <= 36


async def test_what_comes_by_itself_is_told_once(autojump_clock: trio.testing.MockClock) -> None:
    log, reader = await _followed()
    log.add("/a")
    log.add("/b")
    for event in (log.events[-2], log.events[-1], log.events[-2]):
        reader.history.take(event, reader.told.append)
    assert [told.path for told in reader.told if told is not None] == ["/a", "/b"]
    assert reader.history.cursor == "evt_5"
    await reader.quiet()


async def test_after_a_reset_old_numbers_are_new_events(autojump_clock: trio.testing.MockClock) -> None:
    log, reader = await _followed()
    log.add("/a")
    assert await reader.paths() == ["/a"]
    log.events.clear()
    await reader.history.look(reader.told.append, closely=True)
    for number in range(4):
        log.add(f"/new{number}")
    assert await reader.paths() == [f"/new{number}" for number in range(4)]


@pytest.mark.parametrize("name", ["evt_{}", "odd-{}"])
async def test_the_past_of_a_server_that_knows_no_direction_is_not_told(
    autojump_clock: trio.testing.MockClock, name: str
) -> None:
    log = Log()
    log.knows_direction, log.name, log.page = False, name, 2
    for number in range(7):
        log.add(f"/{number}")
    reader = Reader(log)
    assert await reader.look() == [None]
    await reader.quiet()
    await reader.history.look(reader.told.append, closely=True)
    assert reader.told == []
    log.add("/after")
    assert await reader.paths() == ["/after"]


@pytest.mark.parametrize("left", [0, 1])
async def test_a_log_without_direction_that_was_emptied_is_a_reset(
    autojump_clock: trio.testing.MockClock, left: int
) -> None:
    log, reader = await _followed()
    log.knows_direction = False
    del log.events[left:]
    assert None in [told for _ in range(6) for told in await reader.look()]
    await reader.quiet()
    log.add("/after")
    assert await reader.paths() == ["/after"]


async def test_names_of_events_that_are_no_numbers_cost_no_reset(autojump_clock: trio.testing.MockClock) -> None:
    log = Log()
    log.name = "odd-{}"
    log.add("/1")
    log.add("/2")
    reader = Reader(log)
    assert await reader.look() == [None]
    await reader.quiet()
    log.add("/3")
    assert await reader.paths() == ["/3"]


async def test_notices_of_a_page_have_everything_looked_at_again_once(autojump_clock: trio.testing.MockClock) -> None:
    log, reader = await _followed()
    for kind in ("relayfile.changed", "file.updated", "relayfile.changed.summary"):
        log.add("/a" if kind == "file.updated" else "", kind)
    assert await reader.paths() == ["/a", None]
    await reader.quiet()
