"""Which part of a bulk's answer is whose, and what is done where it is silent."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio

from fsmount.config import Credentials, parse_remote
from fsmount.errors import InvalidAnswer, Refusal, RemoteError
from fsmount.model import Base, Receipt, RemotePath, Revision
from fsmount.ports import Upload
from fsmount.remote.batch import verdicts
from fsmount.remote.relayfile import RelayfileRemote
from fsmount.wire.relayfile import BulkError, BulkResponse, BulkResult, ContentIdentity
from tests.support.notes import Notes
from tests.support.raw import Asked, Script, always, raw_server, response
from tests.support.server import serving
from tests.support.uploads import digest_of, upload_of

AT_BASE = Base(Revision("rev_1"))


def told(uploads: list[Upload], **answer: object) -> list[Receipt | RemoteError | None]:
    return verdicts(uploads, BulkResponse(**answer), "c-1", str)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "current", "base", "status"),
    [
        ("forbidden", None, AT_BASE, 403),
        ("conflict", "rev_2", AT_BASE, 409),
        ("conflict", None, AT_BASE, 404),
        ("conflict", None, Base(), 409),
        ("precondition_failed", None, AT_BASE, 412),
        ("schema_validation_failed", None, AT_BASE, 422),
        ("validation_error", None, AT_BASE, 422),
        ("invalid_path", None, AT_BASE, 400),
        ("internal_error", None, AT_BASE, 500),
        ("something_new", None, AT_BASE, 400),
    ],
)
def test_a_plain_servers_codes(code: str, current: str | None, base: Base, status: int) -> None:
    error = BulkError(path="/a", code=code, message="why", current_revision=current)
    (verdict,) = told([upload_of("/a", b"x", base)], errors=(error,))
    assert isinstance(verdict, Refusal)
    assert (verdict.status, verdict.detail, verdict.current_revision) == (status, "why", current)
    assert msgspec.json.decode(verdict.body)["path"] == "/a"


def test_the_servers_status_and_body_win() -> None:
    body = msgspec.Raw(b'{"code":"schema_violation","message":"title is required"}')
    error = BulkError(path="/a", code="validation_error", message="short", status=418, body=body)
    (verdict,) = told([upload_of("/a", b"x")], errors=(error,))
    assert isinstance(verdict, Refusal)
    assert (verdict.status, verdict.code, verdict.detail) == (418, "schema_violation", "title is required")
    assert verdict.body == bytes(body).decode()


def test_results_are_matched_by_path_in_any_order() -> None:
    uploads = [upload_of(f"/{name}", b"x", key=name) for name in "abc"]
    results = tuple(BulkResult(path=f"/{name}", revision=f"rev_{name}") for name in "ca")
    a, b, c = told(uploads, results=results)
    assert isinstance(a, Receipt)
    assert isinstance(c, Receipt)
    assert (a.revision, b, c.revision) == ("rev_a", None, "rev_c")


@pytest.mark.parametrize(
    "result",
    [
        BulkResult(path="/elsewhere", revision="rev_1"),
        BulkResult(path="/a", revision=""),
        BulkResult(path="/a", revision="r", content_identity=ContentIdentity(kind="x", key="other")),
    ],
    ids=["path", "revision", "identity"],
)
def test_a_result_for_something_else_is_no_verdict(result: BulkResult) -> None:
    assert told([upload_of("/a", b"x", key="mine")], results=(result,)) == [None]


async def _sent(tmp_path: Path, uploads: list[Upload], *answers: bytes) -> list[Receipt | RemoteError]:
    """What a batch gives when the server answers so; an error of the whole is raised."""
    return await _asked(tmp_path, uploads, always(*answers))


async def _asked(tmp_path: Path, uploads: list[Upload], script: Script) -> list[Receipt | RemoteError]:
    outcome = await _outcome(tmp_path, uploads, script)
    if isinstance(outcome, RemoteError):
        raise outcome
    return outcome


async def _outcome(tmp_path: Path, uploads: list[Upload], script: Script) -> list[Receipt | RemoteError] | RemoteError:
    (tmp_path / "token").write_text("token")
    credentials = Credentials(token_file=tmp_path / "token")
    async with raw_server(script) as server:
        url = parse_remote(f"relayfile+{server.origin}/w")
        async with RelayfileRemote(url, credentials, timeout=5, log=Notes(), features=frozenset()) as remote:
            with trio.fail_after(5):
                try:
                    return await remote.put_many(uploads)
                except RemoteError as error:  # inside the server's nursery it would become a group
                    return error


async def test_a_legacy_server_without_results_is_asked_what_it_has(tmp_path: Path) -> None:
    uploads = [upload_of("/d/mine", b"mine"), upload_of("/d/other", b"mine too"), upload_of("/d/gone", b"x")]
    rows = [
        {"path": "/d/mine", "type": "file", "revision": "rev_7", "contentHash": digest_of(b"mine")},
        {"path": "/d/other", "type": "file", "revision": "rev_8", "contentHash": digest_of(b"somebody else's")},
    ]
    tree = response(200, {"path": "/d", "entries": rows, "nextCursor": None})
    mine, other, gone = await _sent(tmp_path, uploads, response(202, {"written": 3, "errors": []}), tree)
    assert isinstance(mine, Receipt)
    assert mine.revision == "rev_7"
    assert isinstance(other, InvalidAnswer)
    assert isinstance(gone, InvalidAnswer)


async def test_a_server_that_tells_neither_results_nor_digests_is_asked_for_each_file(tmp_path: Path) -> None:
    uploads = [upload_of(f"/d/{name}", name.encode()) for name in ("mine", "other", "gone", "broken")]
    rows = [{"path": f"/d/{name}", "type": "file", "revision": "r 1"} for name in ("mine", "other", "broken")]

    async def answer(asked: Asked, stream: trio.SocketStream) -> None:
        target = asked.target.partition("?path=/d")[2]
        given = {
            "": response(202, {"written": 4, "errors": []}),
            "&depth=1": response(200, {"path": "/d", "entries": rows, "nextCursor": None}),
            "/mine": response(200, {"path": "/d/mine", "revision": "r 7", "content": "mine", "encoding": "utf-8"}),
            "/other": response(200, {"path": "/d/other", "revision": "r 8", "content": "somebody else's"}),
            "/broken": response(503, b""),
        }
        await stream.send_all(given[target])

    mine, other, gone, broken = await _asked(tmp_path, uploads, answer)
    assert isinstance(mine, Receipt)
    assert (mine.revision, mine.digest) == ("r 7", digest_of(b"mine"))
    assert isinstance(other, InvalidAnswer)
    assert isinstance(gone, InvalidAnswer)
    assert isinstance(broken, Refusal)


async def test_a_failed_look_is_the_verdict_of_the_files_in_question(tmp_path: Path) -> None:
    answer = response(202, {"results": [{"path": "/a", "revision": "rev_1"}]})
    a, b = await _sent(tmp_path, [upload_of("/a", b"1"), upload_of("/b", b"2")], answer, response(503, b""))
    assert isinstance(a, Receipt)
    assert isinstance(b, Refusal)
    assert b.status == 503


@pytest.mark.parametrize("status", [401, 413, 500, 503])
async def test_a_refusal_of_the_whole_is_raised(tmp_path: Path, status: int) -> None:
    with pytest.raises(Refusal) as caught:
        await _sent(tmp_path, [upload_of("/a", b"1"), upload_of("/b", b"2")], response(status, {"code": "x"}))
    assert caught.value.status == status


async def test_the_cap_of_a_batch_is_learned_from_413(tmp_path: Path) -> None:
    notes = Notes()
    with serving(tmp_path / "relay", body_cap=20_000) as server:
        credentials = Credentials(token_file=server.token_file)
        async with RelayfileRemote(parse_remote(server.remote), credentials, timeout=5, log=notes) as remote:
            uploads = [upload_of(f"/f{number}", b"x" * 8000) for number in range(4)]
            with pytest.raises(Refusal) as caught:
                await remote.put_many(uploads)
            assert caught.value.status == 413
            cap = remote.capabilities.max_batch_bytes
            assert 8000 < cap < 20_000
            with pytest.raises(Refusal, match="in one batch"):
                await remote.put_many(uploads)
            assert remote.capabilities.max_batch_bytes == cap
            assert len(notes.of("request.refused")) == 1
            (receipt,) = await remote.put_many([upload_of("/big", b"x" * (cap + 100))])
            assert isinstance(receipt, Receipt)
            with pytest.raises(Refusal) as single:
                await remote.put(upload_of("/huge", b"x" * 30_000))
            assert single.value.status == 413


async def test_one_files_rule_is_its_verdict_and_logged(tmp_path: Path) -> None:
    notes = Notes()
    with serving(tmp_path / "relay") as server:
        server.rules('PUT /bad/** 422 {"code":"schema_violation","message":"title is required"}\n')
        credentials = Credentials(token_file=server.token_file)
        async with RelayfileRemote(parse_remote(server.remote), credentials, timeout=5, log=notes) as remote:
            good, bad = await remote.put_many([upload_of("/good/1", b"x"), upload_of("/bad/1", b"x")])
    assert isinstance(good, Receipt)
    assert isinstance(bad, Refusal)
    assert (bad.status, bad.code) == (422, "schema_violation")
    (note,) = notes.of("request.refused")
    assert note.path == "/bad/1"
    for part in ("POST", "422", "title is required"):
        assert part in note.message


async def test_a_lost_answer_is_made_good_by_the_same_batch(tmp_path: Path) -> None:
    with serving(tmp_path / "relay") as server:
        server.rules("PUT /** drop times=1\n")
        credentials = Credentials(token_file=server.token_file)
        async with RelayfileRemote(parse_remote(server.remote), credentials, timeout=5, log=Notes()) as remote:
            uploads = [upload_of("/a", b"1"), upload_of("/b", b"2")]
            with pytest.raises(RemoteError):
                await remote.put_many(uploads)
            assert all(isinstance(verdict, Receipt) for verdict in await remote.put_many(uploads))
        assert len(server.events()) == 2


async def test_a_directory_of_many_pages(tmp_path: Path) -> None:
    with serving(tmp_path / "relay") as server:
        server.put_many({f"/many/{number:05}": "x" for number in range(2500)})
        credentials = Credentials(token_file=server.token_file)
        async with RelayfileRemote(parse_remote(server.remote), credentials, timeout=10, log=Notes()) as remote:
            found = await remote.listing(RemotePath("/many"))
    assert [entry.path for entry in found] == [f"/many/{number:05}" for number in range(2500)]
    assert {entry.size for entry in found} == {1}
