"""The feed against servers that cut, refuse, fall silent or forget: nothing is lost, and what is said of it is so."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
import trio
import trio.testing
import trio_websocket
from trio_websocket import WebSocketRequest

from fsmount.config import Credentials, parse_remote
from fsmount.errors import Refusal, RemoteError, Unreachable
from fsmount.model import Feed, Told
from fsmount.remote.credentials import TokenSource
from fsmount.remote.feed import ChangeFeed
from fsmount.remote.history import History
from fsmount.remote.relayfile import RelayfileRemote
from fsmount.remote.websocket import Sockets
from tests.support.notes import Notes
from tests.support.server import serving
from tests.unit.remote.test_history import Log

Clock = trio.testing.MockClock
TOKEN = "secret-token-of-this-test"
Behaviour = Callable[["World", WebSocketRequest], Awaitable[None]]


class World:
    """A server with a log, whose next sockets behave as ``script`` says and all others well; and who follows it."""

    def __init__(self, nursery: trio.Nursery, folder: Path) -> None:
        self.log = Log()
        self.script: list[Behaviour] = []
        self.asked: list[dict[str, list[str]]] = []
        self.told: list[Told | None] = []
        self.ways: list[Feed] = []
        self._awaited = 0
        self.notes: list[str] = []
        self.error: RemoteError | None = None
        self.fails_to_take = ""
        self.granted: list[list[str]] = []
        self.cut = trio.Event()
        self._grown = trio.Event()
        self._nursery = nursery
        self._scope = trio.CancelScope()
        token = folder / "token"
        token.write_text(TOKEN)
        token.chmod(0o600)
        self.tokens = TokenSource(Credentials(token_file=token), warn=self.notes.append)
        sockets = Sockets(
            "http://server", "/v1/workspaces/w/fs/ws", self.tokens, trust=None, timeout=30, dial=self._dial,
            surprised=self.notes.append,
        )  # fmt: skip
        self.feed = ChangeFeed(
            History(self.log.fetch), sockets, poll=1.0, granted=self._granted, note=self.notes.append
        )

    # the follower

    def follow(self) -> None:
        self._scope = trio.CancelScope()
        self._nursery.start_soon(self._follow)

    async def _follow(self) -> None:
        try:
            await self.feed.follow(self._take, self._going)
        except RemoteError as error:
            self.error = error

    def _take(self, told: Told | None) -> None:
        if told is not None and told.path == self.fails_to_take:
            self.fails_to_take = ""
            raise ZeroDivisionError(TOKEN)
        self.told.append(told)

    def _going(self, way: Feed) -> None:
        if not self.ways or self.ways[-1] is not way:
            self.ways.append(way)

    async def _granted(self) -> list[list[str]]:
        return self.granted

    @property
    def way(self) -> Feed | None:
        return self.ways[-1] if self.ways else None

    def paths(self) -> list[str]:
        return ["*" if told is None else told.path for told in self.told]

    async def becomes(self, way: Feed) -> None:
        """Waits until it goes that way once more since what was last waited for: it may have left it by then."""
        with trio.fail_after(120):
            while way not in self.ways[self._awaited :]:
                await trio.sleep(0.01)
        self._awaited = self.ways.index(way, self._awaited) + 1

    async def lives_again(self) -> None:
        """The sockets end; waits until another one is live."""
        before = len(self.asked)
        self.end_sockets()
        with trio.fail_after(120):
            while len(self.asked) == before or self.way is not Feed.LIVE:
                await trio.sleep(0.01)

    async def has_told(self, *paths: str) -> None:
        """Waits until that is all that was told, and some more for what comes too much."""
        with trio.fail_after(120):
            while len(self.told) < len(paths):
                await trio.sleep(0.01)
        await trio.sleep(0.5)
        assert self.paths() == list(paths)

    # the server

    def add(self, *paths: str, **members: str) -> None:
        for path in paths:
            self.log.add(path, **members)
        self._stir()

    def end_sockets(self) -> None:
        """The open sockets end, each in its own way; later ones live on."""
        self.cut.set()
        self._stir()
        self.cut = trio.Event()

    def _stir(self) -> None:
        grown, self._grown = self._grown, trio.Event()
        grown.set()

    async def _dial(self) -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, theirs)
        return ours

    async def _serve(self, stream: trio.abc.Stream) -> None:
        async with stream, trio.open_nursery() as nursery:
            request = await trio_websocket.wrap_server_stream(nursery, stream)
            self.asked.append(parse_qs(urlsplit(request.path).query))
            behave = self.script.pop(0) if self.script else well
            await behave(self, request)
            nursery.cancel_scope.cancel()

    async def send_log(self, socket: trio_websocket.WebSocketConnection, cursor: str, until: trio.Event) -> None:
        """All after the cursor, and then what comes, as relayfile does: of an unknown cursor nothing old."""
        sent = self._position(cursor)
        while not until.is_set():
            for event in self.log.events[sent:]:
                await socket.send_message(msgspec.json.encode(event).decode())
            sent = len(self.log.events)
            await self._grown.wait()

    def _position(self, cursor: str) -> int:
        ids = [event.event_id for event in self.log.events]
        return ids.index(cursor) + 1 if cursor in ids else len(ids)


async def well(world: World, request: WebSocketRequest) -> None:
    """Serves until the test cuts it, and then goes without a word."""
    until, cursor = world.cut, world.asked[-1].get("cursor", [""])[0]
    await world.send_log(await request.accept(), cursor, until)


def closing(code: int) -> Behaviour:
    """Serves until the test cuts it, and closes with this code."""

    async def behave(world: World, request: WebSocketRequest) -> None:
        until, cursor = world.cut, world.asked[-1].get("cursor", [""])[0]
        socket = await request.accept()
        await world.send_log(socket, cursor, until)
        await socket.aclose(code)

    return behave


async def hinting(world: World, request: WebSocketRequest) -> None:
    """Says of every event only that there was one, as relayfile's hosted server does."""
    until, told = world.cut, len(world.log.events)
    socket = await request.accept()
    while not until.is_set():
        for event in world.log.events[told:]:
            notice = {"id": event.event_id, "type": "relayfile.changed", "resource": {"path": event.path}}
            await socket.send_message(json.dumps(notice))
        told = len(world.log.events)
        await world._grown.wait()


def rejecting(status: int, body: bytes = b"") -> Behaviour:
    async def behave(world: World, request: WebSocketRequest) -> None:
        await request.reject(status, body=body)
        await trio.sleep(1)

    return behave


async def deaf(world: World, request: WebSocketRequest) -> None:
    """Accepts, and then neither speaks nor listens."""
    await request.accept()
    request._connection._reader_running = False
    await trio.sleep_forever()


async def gone(world: World, request: WebSocketRequest) -> None:
    """Ends the connection without a byte."""


def babbling(message: str) -> Behaviour:
    async def behave(world: World, request: WebSocketRequest) -> None:
        socket = await request.accept()
        await socket.send_message(message)
        await trio.sleep_forever()

    return behave


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        world = World(nursery, tmp_path)
        world.add("/before")
        yield world
        nursery.cancel_scope.cancel()


@pytest.fixture
async def live(world: World) -> World:
    """A feed that is live and has nothing to tell."""
    world.follow()
    await world.becomes(Feed.LIVE)
    assert world.paths() == ["*"]
    world.told.clear()
    return world


async def test_live_changes_come_without_a_request(live: World, autojump_clock: Clock) -> None:
    requests = live.log.requests
    live.add("/a", "/b")
    await live.has_told("/a", "/b")
    assert live.log.requests == requests
    assert live.asked == [{"cursor": ["evt_1"], "token": [TOKEN]}]


async def test_a_notice_that_says_only_that_has_the_log_read(world: World, autojump_clock: Clock) -> None:
    world.script += [hinting]
    world.follow()
    await world.becomes(Feed.LIVE)
    requests = world.log.requests
    for number in range(3):
        world.add(f"/{number}", f"/{number}b")
        await trio.sleep(2)
    await world.has_told("*", "/0", "/0b", "/1", "/1b", "/2", "/2b")
    assert world.log.requests - requests <= 6
    assert world.ways == [Feed.POLLING, Feed.LIVE]


async def test_an_empty_log_is_followed_live(tmp_path: Path, autojump_clock: Clock) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery, tmp_path)
        world.follow()
        await world.becomes(Feed.LIVE)
        world.add("/first")
        await world.has_told("*", "/first")
        assert world.asked == [{"token": [TOKEN]}], "no cursor: the last hundred events would come"
        nursery.cancel_scope.cancel()


async def test_nothing_is_lost_or_told_twice_over_a_cut(live: World, autojump_clock: Clock) -> None:
    live.add("/a")
    await live.has_told("/a")
    live.end_sockets()
    live.add("/b")
    await live.has_told("/a", "/b")
    assert live.ways == [Feed.POLLING, Feed.LIVE, Feed.POLLING, Feed.LIVE]
    assert live.asked[-1]["cursor"] == ["evt_2"]


async def test_what_came_while_the_socket_opened_is_not_missed(live: World, autojump_clock: Clock) -> None:
    async def forgetful(world: World, request: WebSocketRequest) -> None:
        """Takes the cursor for unknown, so that it catches up with nothing."""
        world.add("/missed")
        until = world.cut
        await world.send_log(await request.accept(), "unknown", until)

    live.script.append(forgetful)
    live.end_sockets()
    await live.has_told("/missed")
    await live.becomes(Feed.LIVE)
    live.add("/next")
    await live.has_told("/missed", "/next")


async def test_an_overflow_goes_on_at_once_from_the_cursor(live: World, autojump_clock: Clock) -> None:
    live.script += [closing(1013)] * 6
    await live.lives_again()
    for number in range(5):
        live.add(f"/{number}")
        await live.has_told(*(f"/{n}" for n in range(number + 1)))
        before = trio.current_time()
        await live.lives_again()
        assert trio.current_time() - before < 0.05
    assert [asked["cursor"] for asked in live.asked[2:]] == [[f"evt_{number}"] for number in range(2, 7)]


async def test_a_server_that_cuts_every_socket_is_polled_and_spared(live: World, autojump_clock: Clock) -> None:
    live.script += [gone] * 1000
    live.end_sockets()
    await trio.sleep(0.5)
    requests, tries = live.log.requests, len(live.asked)
    for number in range(600):
        live.add(f"/{number}")
        await trio.sleep(1)
    assert live.paths() == [f"/{number}" for number in range(600)]
    assert live.way is Feed.POLLING
    assert 600 <= live.log.requests - requests <= 610
    assert 15 <= len(live.asked) - tries <= 80, "about one in fifteen seconds in the end"
    live.script.clear()
    await live.becomes(Feed.LIVE)


async def test_a_socket_that_opens_and_ends_at_once_is_tried_with_patience_too(
    live: World, autojump_clock: Clock
) -> None:
    async def brief(world: World, request: WebSocketRequest) -> None:
        await request.accept()

    live.script += [brief] * 1000
    live.end_sockets()
    await trio.sleep(600)
    assert len(live.asked) < 80


async def test_a_socket_that_lasted_a_while_is_replaced_at_once_each_time(live: World, autojump_clock: Clock) -> None:
    for _ in range(15):
        await trio.sleep(10)
        cut_at = trio.current_time()
        await live.lives_again()
        assert trio.current_time() - cut_at < 1


@pytest.mark.parametrize("status", [404, 400, 501, 426, 302])
async def test_a_server_without_live_feed_is_polled_and_seldom_asked_again(
    world: World, autojump_clock: Clock, status: int
) -> None:
    world.script += [rejecting(status)] * 3
    world.follow()
    await trio.sleep(700)
    assert (len(world.asked), world.way) == (3, Feed.POLLING)
    world.add("/polled")
    await world.has_told("*", "/polled")
    await trio.sleep(200)
    assert world.way is Feed.LIVE
    assert len(world.notes) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_server_that_refuses_just_now_is_asked_again_soon(
    world: World, autojump_clock: Clock, status: int
) -> None:
    world.script += [rejecting(status)] * 3
    world.follow()
    await world.becomes(Feed.LIVE)
    assert trio.current_time() < 30


async def test_a_server_that_has_fallen_silent_is_left(live: World, autojump_clock: Clock) -> None:
    live.script.append(deaf)
    live.end_sockets()
    await live.becomes(Feed.LIVE)
    live.add("/unheard")
    began = trio.current_time()
    await live.becomes(Feed.POLLING)
    assert trio.current_time() - began <= 31
    await live.has_told("/unheard")
    await live.becomes(Feed.LIVE)


async def test_a_silent_feed_that_answers_pings_stays(live: World, autojump_clock: Clock) -> None:
    await trio.sleep(3600)
    assert (len(live.asked), live.way) == (1, Feed.LIVE)


async def test_a_handshake_without_answer_has_a_deadline(live: World, autojump_clock: Clock) -> None:
    async def stuck(world: World, request: WebSocketRequest) -> None:
        await trio.sleep_forever()

    live.script.append(stuck)
    live.end_sockets()
    live.add("/meanwhile")
    await live.has_told("/meanwhile")
    assert live.way is Feed.POLLING
    await live.becomes(Feed.LIVE)
    assert trio.current_time() < 20


DEEP = '{"type":"file.updated","x":' + "[" * 100_000 + "]" * 100_000 + "}"


@pytest.mark.parametrize(
    "message",
    ["no JSON", "[]", '{"type":1}', '{"type":"file.updated","path":null}', pytest.param(DEEP, id="deep")],
)
async def test_what_cannot_be_read_is_fetched_instead(live: World, autojump_clock: Clock, message: str) -> None:
    live.script.append(babbling(message))
    live.end_sockets()
    live.add("/garbled")
    await live.has_told("/garbled")
    await live.becomes(Feed.LIVE)
    await live.has_told("/garbled")


async def test_an_error_that_nobody_expected_ends_the_socket_and_is_logged_with_its_kind(
    world: World, autojump_clock: Clock
) -> None:
    world.fails_to_take = "/trap"
    world.script.append(babbling('{"eventId":"evt_2","type":"file.created","path":"/trap","revision":"rev_2"}'))
    world.follow()
    await world.has_told("*", "*")
    await world.becomes(Feed.LIVE)
    world.add("/after")
    await world.has_told("*", "*", "/after")
    (note,) = [note for note in world.notes if note.startswith("internal error")]
    assert re.fullmatch(r"internal error in the live feed: ZeroDivisionError at test_feed\.py:\d+", note)


async def test_a_name_that_is_no_text_keeps_the_feed_live(world: World, autojump_clock: Clock) -> None:
    world.script.append(babbling(r'{"eventId":"evt_2","type":"file.created","path":"/half\ud800","revision":"rev_2"}'))
    world.follow()
    await world.has_told("*", "/half\0")
    assert world.way is Feed.LIVE


async def test_messages_that_are_no_events_are_passed_over(live: World, autojump_clock: Clock) -> None:
    live.script.append(babbling('{"type":"pong","timestamp":"x"}'))
    live.end_sockets()
    await live.becomes(Feed.LIVE)
    await live.has_told()


async def test_a_log_that_begins_anew_is_a_reset(live: World, autojump_clock: Clock) -> None:
    live.add("/a", "/b")
    await live.has_told("/a", "/b")
    live.log.events.clear()
    live.add("/new")
    live.end_sockets()
    await live.has_told("/a", "/b", "*")
    live.add("/newer")
    await live.has_told("/a", "/b", "*", "/newer")


async def test_a_poll_that_fails_ends_it_and_the_next_goes_on(live: World, autojump_clock: Clock) -> None:
    live.script += [gone] * 100
    live.log.error = Unreachable("away")
    live.end_sockets()
    live.add("/a")
    await trio.sleep(10)
    assert isinstance(live.error, Unreachable)
    live.script.clear()
    live.log.error = None
    live.follow()
    await live.becomes(Feed.LIVE)
    await live.has_told("/a")


async def test_a_rejection_shows_no_token(world: World, autojump_clock: Clock) -> None:
    echo = json.dumps({"code": "bad_request", "message": f"no such thing: /ws?token={TOKEN}"}).encode()
    world.script.append(rejecting(404, echo))
    world.follow()
    await trio.sleep(5)
    (note,) = world.notes
    assert "no such thing" in note
    assert TOKEN not in note


# credentials that may not read the log


@pytest.fixture
async def narrow(world: World) -> World:
    world.log.error = Refusal(403, code="forbidden", message="not for you")
    world.granted = [["/**"], ["/mine/**", "/mine/too"]]
    return world


async def test_a_narrow_credential_lives_on_filters_and_looks_again(narrow: World, autojump_clock: Clock) -> None:
    narrow.script.append(rejecting(403))
    narrow.follow()
    await narrow.becomes(Feed.LIVE)
    assert [asked["path"] for asked in narrow.asked] == [["/**"], ["/mine/**", "/mine/too"]]
    narrow.add("/mine/a")
    await narrow.has_told("*", "/mine/a")
    await trio.sleep(30)
    await narrow.has_told("*", "/mine/a", "*")


async def test_what_a_narrow_credential_missed_is_not_known(narrow: World, autojump_clock: Clock) -> None:
    narrow.follow()
    await narrow.becomes(Feed.LIVE)
    narrow.end_sockets()
    await narrow.has_told("*", "*")
    assert narrow.ways == [Feed.LIVE, Feed.NONE, Feed.LIVE]


async def test_a_credential_that_may_neither_has_no_feed(narrow: World, autojump_clock: Clock) -> None:
    narrow.script += [rejecting(403)] * 2
    narrow.follow()
    await trio.sleep(1)
    assert isinstance(narrow.error, Refusal)
    assert narrow.error.status == 403
    assert narrow.told == []
    narrow.log.error = None
    narrow.follow()
    await narrow.becomes(Feed.LIVE)


async def test_a_log_that_opens_up_is_read(narrow: World, autojump_clock: Clock) -> None:
    narrow.follow()
    await narrow.becomes(Feed.LIVE)
    narrow.log.error = None
    narrow.end_sockets()
    await narrow.becomes(Feed.POLLING)
    await narrow.becomes(Feed.LIVE)
    assert "path" not in narrow.asked[-1]


@pytest.mark.parametrize(("grants", "way"), [(["/a/**"], Feed.LIVE), (["/a/**", "/b/pre*"], None)])
async def test_a_credential_whose_grants_no_filters_can_say_has_no_feed(
    tmp_path: Path, grants: list[str], way: Feed | None
) -> None:
    ways: list[Feed] = []
    scope = trio.CancelScope()

    def going(found: Feed) -> None:
        ways.append(found)
        scope.cancel()

    with serving(tmp_path / "relay") as server:
        (tmp_path / "token").write_text(server.sign(scopes=[f"relayfile:fs:read:{grant}" for grant in grants]))
        credentials = Credentials(token_file=tmp_path / "token")
        async with RelayfileRemote(parse_remote(server.remote), credentials, timeout=5, log=Notes()) as remote:
            with trio.fail_after(10), suppress(Refusal), scope:
                await remote.follow(lambda _: None, going)
    assert ways[:1] == ([] if way is None else [way])
