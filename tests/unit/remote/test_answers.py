"""Answers that no sound server gives: each ends in time, with a verdict that tells the truth."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from fsmount.config import Credentials, parse_remote
from fsmount.errors import InvalidAnswer, Refusal, RemoteError, Unreachable
from fsmount.model import Base, Problem, Receipt, RemotePath, Revision
from fsmount.remote.relayfile import RelayfileRemote
from tests.support.notes import Notes
from tests.support.raw import Asked, RawServer, Script, always, raw_server, response, routed
from tests.support.uploads import digest_of, upload_of

SECRET = "eyJ.secret.token"
FILE = RemotePath("/d/file.txt")
HEALTH = {"GET /health": response(200, {"status": "ok"})}
EMPTY_TREE = response(200, {"path": "/", "entries": [], "nextCursor": None})


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(SECRET)
    path.chmod(0o600)
    return path


@asynccontextmanager
async def answered(
    script: Script, token_file: Path, *, patience: float = 5
) -> AsyncIterator[tuple[RelayfileRemote, RawServer, Notes]]:
    """A remote whose every request ``script`` answers."""
    notes = Notes()
    async with raw_server(script) as server:
        url = parse_remote(f"relayfile+{server.origin}/my%20work")
        async with RelayfileRemote(url, Credentials(token_file=token_file), timeout=patience, log=notes) as remote:
            with trio.fail_after(8):
                yield remote, server, notes


async def test_a_request_carries_what_the_protocol_asks_for(token_file: Path) -> None:
    accepted = response(202, {"opId": "op_1", "targetRevision": "rev_2", "status": "queued"})
    async with answered(routed({"GET /fs/tree": EMPTY_TREE, "PUT": accepted}), token_file) as (remote, server, _):
        receipt = await remote.put(upload_of("/ä &?/+.txt", b"x", Base(Revision("rev_1"))))
    asked = server.asked[-1]
    assert asked.target == "/v1/workspaces/my%20work/fs/file?path=/%C3%A4%20%26%3F/%2B.txt"
    assert asked.headers["authorization"] == f"Bearer {SECRET}"
    assert asked.headers["if-match"] == "rev_1"
    assert asked.headers["user-agent"].startswith("fsmount/")
    assert asked.headers["x-correlation-id"] == receipt.correlation_id
    assert (receipt.revision, receipt.remote_op_id) == ("rev_2", "op_1")


async def test_a_refusal_is_told_whole_and_logged_once(token_file: Path) -> None:
    body = {"code": "revision_conflict", "message": f"no\n{SECRET}", "currentRevision": "rev_9", "pad": "ä" * 3000}
    async with answered(always(response(409, body, retry_after="7")), token_file) as (remote, _, notes):
        with pytest.raises(Refusal) as caught:
            await remote.put(upload_of(FILE, b"x"))
    refusal = caught.value
    assert (refusal.status, refusal.code, refusal.retry_after) == (409, "revision_conflict", 7.0)
    assert refusal.current_revision == "rev_9"
    assert len(refusal.body.encode()) <= 1024
    (note,) = notes.of("request.refused")
    assert (note.path, note.level) == (FILE, "warning")
    for part in ("PUT", "/fs/file?path=/d/file.txt", "409", "revision_conflict", str(refusal.correlation_id)):
        assert part in note.message
    assert "\n" not in note.message
    for shown in (note.message, refusal.body, str(refusal), refusal.detail, repr(refusal)):
        assert SECRET not in shown


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"<html>Bad Gateway</html>", "", "Bad Gateway"),
        (b"", "", "Bad Gateway"),
        (b'{"error":"fork_expired"}', "fork_expired", "Bad Gateway"),
        (b'"text"', "", "Bad Gateway"),
        (b"\xff\xfe", "", "Bad Gateway"),
        (b"[" * 60_000, "", "Bad Gateway"),
        (b'{"code":"x","message":"y"' + b" " * 500_000 + b"}", "", "Bad Gateway"),
    ],
    ids=["html", "empty", "error-member", "json-text", "binary", "nested", "huge"],
)
async def test_any_error_body_is_survived(token_file: Path, body: bytes, code: str, message: str) -> None:
    async with answered(always(response(502, body)), token_file) as (remote, _, _notes):
        with pytest.raises(Refusal) as caught:
            await remote.read(FILE, None, 0, 1)
    assert (caught.value.status, caught.value.code, caught.value.detail) == (502, code, message)


def endless(status: int, piece: bytes, pause: float) -> Script:
    async def script(asked: Asked, stream: trio.SocketStream) -> None:
        await stream.send_all(f"HTTP/1.1 {status} X\r\ncontent-length: 99999999999\r\n\r\n".encode())
        while True:
            await stream.send_all(piece)
            await trio.sleep(pause)

    return script


@pytest.mark.parametrize("pause", [0, 0.05], ids=["flood", "trickle"])
async def test_an_endless_error_is_its_status(token_file: Path, pause: float) -> None:
    script = endless(503, b"x" * (65536 if not pause else 1), pause)
    async with answered(script, token_file, patience=0.5) as (remote, _, _notes):
        with trio.fail_after(3), pytest.raises(Refusal) as caught:
            await remote.read(FILE, None, 0, 1)
    assert caught.value.status == 503


async def test_an_endless_trickle_is_silence(token_file: Path) -> None:
    async with answered(endless(200, b" ", 0.05), token_file, patience=0.5) as (remote, _, _notes):
        with trio.fail_after(3), pytest.raises(Unreachable) as caught:
            await remote.read(FILE, None, 0, 1)
    assert caught.value.timed_out


async def test_an_endless_flood_is_cut(token_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsmount.remote.http.LARGEST", 1024 * 1024)
    async with answered(endless(200, b" " * 65536, 0), token_file) as (remote, _, _notes):
        with pytest.raises(InvalidAnswer, match="longer than"):
            await remote.read(FILE, None, 0, 1)


async def test_gzip_is_unpacked_within_bounds(token_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsmount.remote.http.LARGEST", 100_000)
    small, bomb = (gzip.compress(b'{"path":"/","entries":[]' + b" " * pad + b"}") for pad in (10, 200_000))
    answers = [response(200, packed, content_encoding="gzip") for packed in (small, bomb)]
    async with answered(always(response(200, {}), *answers), token_file) as (remote, *_):
        assert await remote.listing(RemotePath("/")) == []
        with pytest.raises(InvalidAnswer, match="too long"):
            await remote.listing(RemotePath("/"))


async def test_silence_times_out(token_file: Path) -> None:
    async def script(asked: Asked, stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with answered(script, token_file, patience=0.3) as (remote, _, _notes):
        with trio.fail_after(3), pytest.raises(Unreachable) as caught:
            await remote.read(FILE, None, 0, 1)
    assert caught.value.timed_out
    assert caught.value.correlation_id


@pytest.mark.parametrize(
    "sent",
    [b"", b"SSH-2.0-OpenSSH_9.2\r\n", response(200, {"path": "/"})[:-4]],
    ids=["closed", "not-http", "truncated"],
)
async def test_no_whole_answer_is_unreachable(token_file: Path, sent: bytes) -> None:
    async with answered(always(sent), token_file) as (remote, _, _notes):
        with pytest.raises(Unreachable) as caught:
            await remote.read(FILE, None, 0, 1)
    assert not caught.value.timed_out


WRONG = {
    "html": response(200, b"<html>Sign in</html>", content_type="text/html"),
    "empty": response(200, b""),
    "object": response(200, {}),
    "list": response(200, []),
    "cut": response(200, b'{"path": "/d/fi'),
    "broken-gzip": response(200, b"no gzip", content_encoding="gzip"),
    "no-revision": response(200, {"path": FILE, "revision": "", "content": "x", "targetRevision": ""}),
}


@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG)
async def test_a_2xx_that_is_not_of_the_protocol_is_no_answer(token_file: Path, answer: bytes) -> None:
    async with answered(routed({**HEALTH, "PUT /": answer, "GET /": answer, "DELETE /": answer}), token_file) as (
        remote, *_,
    ):  # fmt: skip
        for call in (
            lambda: remote.put(upload_of(FILE, b"x")),
            lambda: remote.read(FILE, None, 0, 1),
            lambda: remote.delete(FILE, Base(Revision("rev_1"))),
        ):
            with pytest.raises(InvalidAnswer):
                await call()


@pytest.mark.parametrize("answer", [WRONG["html"], WRONG["object"], WRONG["list"]], ids=["html", "object", "list"])
async def test_a_login_page_is_no_empty_directory(token_file: Path, answer: bytes) -> None:
    async with answered(routed({**HEALTH, "GET /": answer}), token_file) as (remote, _, notes):
        with pytest.raises(InvalidAnswer):
            await remote.listing(RemotePath("/d"))
    assert notes.of("request.invalid")


@pytest.mark.parametrize(
    "file",
    [
        {"content": "x", "contentHash": digest_of(b"y")},
        {"content": "!", "encoding": "base64"},
        {"content": "x", "encoding": "rot13"},
    ],
    ids=["digest", "base64", "encoding"],
)
async def test_content_that_is_not_what_it_says_is_not_read(token_file: Path, file: dict[str, str]) -> None:
    answer = response(200, {"path": FILE, "revision": "rev_1", **file})
    async with answered(always(answer), token_file) as (remote, *_):
        with pytest.raises(InvalidAnswer):
            await remote.read(FILE, None, 0, 1)


async def test_a_refused_token_is_read_again_and_the_request_made_once_more(token_file: Path) -> None:
    seen: list[str] = []
    refused = response(401, {"code": "unauthorized", "message": "token expired"})

    async def script(asked: Asked, stream: trio.SocketStream) -> None:
        seen.append(asked.headers["authorization"])
        token_file.write_text("renewed")
        good = asked.headers["authorization"] == "Bearer renewed"
        found = response(200, {"path": FILE, "revision": "rev_1", "content": "x"})
        await stream.send_all(found if good else refused)

    async with answered(script, token_file) as (remote, *_):
        assert (await remote.read(FILE, None, 0, 1)).data == b"x"
    assert seen == [f"Bearer {SECRET}", "Bearer renewed"]


async def test_a_token_that_stays_refused_is_not_tried_again(token_file: Path) -> None:
    refused = response(401, {"code": "unauthorized", "message": "token expired"})
    async with answered(always(refused), token_file) as (remote, server, _):
        with pytest.raises(Refusal, match="token expired"):
            await remote.read(FILE, None, 0, 1)
        assert len(server.asked) == 1
        assert not remote.credential_changed()
        token_file.write_text("renewed")
        assert remote.credential_changed()


async def test_a_redirect_within_the_origin_is_followed(token_file: Path) -> None:
    moved = response(308, b"", location="/elsewhere?path=/d/file.txt")
    accepted = response(202, {"targetRevision": "rev_2"})
    async with answered(always(moved, accepted), token_file) as (remote, server, _):
        assert (await remote.put(upload_of(FILE, b"x"))).revision == "rev_2"
    assert [(asked.method, asked.target) for asked in server.asked][1] == ("PUT", "/elsewhere?path=/d/file.txt")
    assert server.asked[0].body == server.asked[1].body


@pytest.mark.parametrize("location", ["http://127.0.0.2:1/x?token=a", "//other/x", "http://[", ""])
async def test_a_redirect_elsewhere_is_a_refusal(token_file: Path, location: str) -> None:
    async with answered(always(response(307, b"", location=location)), token_file) as (remote, server, _):
        with pytest.raises(Refusal) as caught:
            await remote.put(upload_of(FILE, b"x"))
    assert (caught.value.status, caught.value.code) == (307, "redirect")
    assert len(server.asked) == 1


async def test_redirects_in_a_circle_end(token_file: Path) -> None:
    async with answered(always(response(307, b"", location="/again")), token_file) as (remote, *_):
        with pytest.raises(Refusal, match="redirect"):
            await remote.read(FILE, None, 0, 1)


async def test_a_write_is_not_redirected_into_a_read(token_file: Path) -> None:
    async with answered(always(response(302, b"", location="/login")), token_file) as (remote, server, _):
        with pytest.raises(Refusal):
            await remote.put(upload_of(FILE, b"x"))
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("routes", "kind", "words"),
    [
        ({"GET /": WRONG["html"]}, InvalidAnswer, "is no relayfile server"),
        ({}, InvalidAnswer, "is no relayfile server"),
        ({**HEALTH, "GET /": WRONG["html"]}, InvalidAnswer, "is no relayfile server"),
        (
            {**HEALTH, "GET /": response(401, {"code": "unauthorized", "message": "token expired"})},
            Refusal, "the credential was refused: token expired",
        ),
        ({**HEALTH, "GET /": response(403, {"message": "workspace mismatch"})}, Refusal, "may not read"),
        ({"GET /": response(503, b"")}, Refusal, "cannot serve now"),
    ],
)  # fmt: skip
async def test_a_probe_says_what_is_wrong(
    token_file: Path, routes: dict[str, bytes], kind: type[Exception], words: str
) -> None:
    async with answered(routed(routes), token_file) as (remote, *_):
        with pytest.raises(kind, match=words) as caught:
            await remote.probe()
    assert getattr(caught.value, "hint", None)
    assert SECRET not in str(caught.value)


async def test_a_probe_of_nothing_says_so(token_file: Path) -> None:
    async with answered(always(b""), token_file) as (_, server, _notes):
        origin = server.origin
    url = parse_remote(f"relayfile+{origin}/local")
    async with RelayfileRemote(url, Credentials(token_file=token_file), timeout=5, log=Notes()) as remote:
        with trio.fail_after(5), pytest.raises(Unreachable, match=f"nothing listens at {origin}"):
            await remote.probe()


async def test_health_is_asked_by_probes_only_and_may_be_missing(token_file: Path) -> None:
    async with answered(routed({"GET /v1": EMPTY_TREE}), token_file) as (remote, server, _):
        for _ in range(3):
            assert await remote.listing(RemotePath("/")) == []
        await remote.probe()
    targets = [asked.target for asked in server.asked]
    assert targets.count("/health") == 2, "a server that comes back may be another version"
    assert "authorization" not in server.asked[0].headers


@pytest.mark.parametrize("health", [b"OK", b"<html></html>", b'{"status":"ok","features":{"tree":true}}', b"null"])
async def test_what_else_stands_at_health_announces_nothing(token_file: Path, health: bytes) -> None:
    routes = {"GET /health": response(200, health), "GET /v1": EMPTY_TREE}
    async with answered(routed(routes), token_file) as (remote, *_):
        await remote.probe()
        assert not remote.capabilities.exact_sizes
        assert await remote.listing(RemotePath("/")) == []


def page(names: list[str], cursor: str | None) -> bytes:
    rows = [{"path": name, "type": "file", "revision": "rev_1"} for name in names]
    return response(200, {"path": "/d", "entries": rows, "nextCursor": cursor})


async def test_a_listing_begins_anew_when_its_cursor_is_gone(token_file: Path) -> None:
    gone = response(400, {"code": "bad_request", "message": "cursor not found"})
    script = always(
        response(200, {"status": "ok"}), page(["/d/a"], "/d/a"), gone, page(["/d/b"], "/d/b"), page(["/d/c"], None)
    )
    async with answered(script, token_file) as (remote, *_):
        assert [entry.path for entry in await remote.listing(RemotePath("/d"))] == ["/d/b", "/d/c"]


async def test_a_listing_does_not_begin_anew_for_ever(token_file: Path) -> None:
    async def script(asked: Asked, stream: trio.SocketStream) -> None:
        late = response(400, {"code": "bad_request"})
        await stream.send_all(late if "cursor=" in asked.target else page(["/d/a"], "/d/a"))

    async with answered(script, token_file) as (remote, server, _):
        with pytest.raises(Refusal):
            await remote.listing(RemotePath("/d"))
    assert len(server.asked) < 20


async def test_a_listing_that_turns_in_a_circle_is_invalid(token_file: Path) -> None:
    async with answered(always(page(["/d/a"], "/d/a")), token_file) as (remote, *_):
        with pytest.raises(InvalidAnswer, match="does not end"):
            await remote.listing(RemotePath("/d"))


async def test_a_name_that_cannot_be_sent_is_refused_here(token_file: Path) -> None:
    async with answered(always(response(202, {})), token_file) as (remote, server, _):
        with pytest.raises(Refusal, match="UTF-8"):
            await remote.put(upload_of("/bad\udcff", b"x"))
        with pytest.raises(Refusal, match="UTF-8"):
            await remote.read(RemotePath("/bad\udcff"), None, 0, 1)
        (verdict,) = await remote.put_many([upload_of("/bad\udcff", b"x")])
        assert isinstance(verdict, Refusal)
    assert server.asked == []


async def test_permissions_travel_with_a_copy(token_file: Path) -> None:
    semantics = {"permissions": ["deny:agent:x"], "properties": {"k": "v"}}
    routes = {
        "GET /": response(200, {"path": "/old", "revision": "rev_1", "content": "x", "semantics": semantics}),
        "PUT /": response(202, {"targetRevision": "rev_2"}),
    }
    async with answered(routed(routes), token_file) as (remote, server, _):
        receipt = await remote.copy_metadata(upload_of(FILE, b"x"), RemotePath("/old"), Revision("rev_1"))
    assert isinstance(receipt, Receipt)
    assert b'"permissions":["deny:agent:x"]' in server.asked[1].body
    assert server.asked[1].headers["if-match"] == "0"


@pytest.mark.parametrize("status", [403, 404])
async def test_without_the_permissions_nothing_is_created(token_file: Path, status: int) -> None:
    routes = {"GET /": response(status, {"code": "no"}), "PUT /": response(202, {"targetRevision": "rev_2"})}
    async with answered(routed(routes), token_file) as (remote, server, _):
        with pytest.raises(Refusal) as caught:
            await remote.copy_metadata(upload_of(FILE, b"x"), RemotePath("/old"), Revision("rev_1"))
    assert caught.value.status == status
    assert [asked.method for asked in server.asked] == ["GET"]


async def test_a_token_that_may_not_follow_the_feed_is_told_so(token_file: Path) -> None:
    forbidden = response(403, {"code": "forbidden"})
    async with answered(routed({"GET /v1/workspaces/my%20work/fs/events": forbidden}), token_file) as (remote, *_):
        with pytest.raises(Refusal) as caught:
            await remote.follow(lambda _: None, lambda _: None)
    assert caught.value.status == 403


@pytest.mark.parametrize("name", [rb"\ud83d", rb"\udcff", b"\xff\xfe", b"\xed\xa0\x80"])
async def test_a_name_that_is_no_text_hides_itself_alone(token_file: Path, name: bytes) -> None:
    rows = b",".join(
        b'{"path":"/%s","type":"file","revision":"rev_1"}' % row for row in (b"a", name, rb"\ud83d\ude00", rb"\\ud83d")
    )
    listing = response(200, b'{"path":"/","entries":[' + rows + b'],"nextCursor":null}')
    told: list[Problem] = []
    async with answered(routed({**HEALTH, "GET /fs/tree": listing}), token_file) as (remote, _, notes):
        remote._problems = lambda _, found: told.extend(found)
        found = await remote.listing(RemotePath("/"))
    assert [entry.path for entry in found] == ["/a", "/\U0001f600", r"/\ud83d"]
    assert [problem.path for problem in told] == ["/\0"]
    assert any(note.event == "name.skipped" for note in notes.all)


@pytest.mark.parametrize("route", ["GET /fs/events", "GET /fs/tree"])
async def test_an_answer_nested_too_deeply_is_no_answer(token_file: Path, route: str) -> None:
    deep = response(200, b'{"path":"/","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    async with answered(routed({**HEALTH, route: deep}), token_file) as (remote, _, _notes):
        asked = partial(remote.follow, lambda _: None, lambda _: None) if "events" in route else remote.probe
        with pytest.raises(RemoteError, match="relayfile"):
            await asked()


async def test_content_that_is_no_text_is_no_answer(token_file: Path) -> None:
    file = response(200, rb'{"path":"/d/file.txt","revision":"rev_1","content":"a\ud83d"}')
    async with answered(routed({**HEALTH, "GET /fs/file": file}), token_file) as (remote, _, _notes):
        with pytest.raises(InvalidAnswer):
            await remote.read(FILE, None, 0, 1)


async def test_a_subtree_with_content_that_is_no_text_is_no_answer(token_file: Path) -> None:
    answers = {
        "GET /fs/tree": response(200, {"path": "/d", "entries": [], "nextCursor": None}),
        "GET /fs/export": response(200, rb'[{"path":"/d/file.txt","revision":"rev_1","content":"a\ud83d"}]'),
    }
    async with answered(routed({**HEALTH, **answers}), token_file) as (remote, _, _notes):
        with pytest.raises(InvalidAnswer):
            await remote.read_below(RemotePath("/d"), 1000)
