"""`/fs/raw`: bytes as they are, both ways, under the same preconditions as `/fs/file`."""

import hashlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fsmount.server.bodies import INLINE
from tests.support.mount import until
from tests.support.server import RelayServer, serving

LARGE = bytes(range(256)) * (INLINE // 256 + 1)
SMALL = b"0123456789"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayServer]:
    with serving(tmp_path_factory.mktemp("raw"), body_cap=4096) as started:
        yield started


@pytest.fixture(autouse=True)
def _no_rules(server: RelayServer) -> None:
    server.rules("")


@pytest.fixture(params=[SMALL, LARGE], ids=["row", "file"])
def stored(server: RelayServer, request: pytest.FixtureRequest) -> bytes:
    """A file at /stored."""
    content: bytes = request.param
    assert put(server, "/stored", content, "*").status_code == 202
    return content


def put(server: RelayServer, path: str, content: bytes, if_match: str, **headers: str) -> httpx.Response:
    given = {"If-Match": if_match, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return server.http.put("raw", params={"path": path}, content=content, headers=given)


def get(server: RelayServer, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.http.request(method, "raw", params={"path": path}, headers=given)


def bodies(server: RelayServer) -> list[str]:
    return sorted(file.name for file in (server.data / "bodies").iterdir())


def test_what_was_put_is_read_whatever_its_size_and_has_op_event_and_sizes(server: RelayServer, stored: bytes) -> None:
    answer = put(server, "/stored", stored, "*", content_type="image/png")
    revision = answer.json()["targetRevision"]
    found = get(server, "/stored")
    assert found.content == stored
    digest = hashlib.sha256(stored).hexdigest()
    shown = {name: found.headers[name] for name in ("etag", "content-type", "accept-ranges", "x-content-sha256")}
    assert shown == {
        "etag": f'"{revision}"', "content-type": "image/png", "accept-ranges": "bytes", "x-content-sha256": digest,
    }  # fmt: skip
    (entry,) = [entry for entry in server.tree() if entry.path == "/stored"]
    assert (entry.revision, entry.byte_size, entry.content_hash) == (revision, len(stored), digest)
    told = server.http.get("events", params={"direction": "desc", "limit": 1}).json()["events"][0]
    assert (told["type"], told["revision"], told["contentHash"]) == ("file.updated", revision, digest)
    assert server.get("/stored") == stored, "by /fs/file too"


def test_head_is_get_without_the_bytes(server: RelayServer, stored: bytes) -> None:
    whole, head = get(server, "/stored"), get(server, "/stored", "HEAD")
    assert (head.status_code, head.content) == (200, b"")
    assert dict(head.headers) | {"date": ""} == dict(whole.headers) | {"date": ""}


@pytest.mark.parametrize(
    ("asked", "status", "first", "last"),
    [
        ("bytes=0-3", 206, 0, 3),
        ("bytes=4-", 206, 4, None),
        ("bytes=-3", 206, -3, None),
        ("bytes=2-99999999", 206, 2, None),
        ("bytes=-99999999", 206, 0, None),
        ("bytes=3-2", 200, 0, None),
        ("bytes=0-1,3-4", 200, 0, None),
        ("lines=1-2", 200, 0, None),
        ("bytes=-", 200, 0, None),
    ],
)
def test_a_range(server: RelayServer, stored: bytes, asked: str, status: int, first: int, last: int | None) -> None:
    answer = get(server, "/stored", range=asked)
    wanted = stored[first:] if last is None else stored[first : last + 1]
    assert (answer.status_code, answer.content) == (status, wanted)
    if status == 206:
        begin = len(stored) + first if first < 0 else first
        assert answer.headers["content-range"] == f"bytes {begin}-{begin + len(wanted) - 1}/{len(stored)}"


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=-0"])
def test_a_range_beyond_the_end_is_416(server: RelayServer, stored: bytes, asked: str) -> None:
    answer = get(server, "/stored", range=asked)
    assert (answer.status_code, answer.content) == (416, b"")
    assert answer.headers["content-range"] == f"bytes */{len(stored)}"


def test_reads_have_preconditions(server: RelayServer, stored: bytes) -> None:
    tag = get(server, "/stored", "HEAD").headers["etag"]
    assert get(server, "/stored", if_match=tag).status_code == 200
    assert get(server, "/stored", if_match='"rev_0"').status_code == 412
    unchanged = get(server, "/stored", if_none_match=f'"x", {tag}')
    assert (unchanged.status_code, unchanged.headers["etag"], unchanged.content) == (304, tag, b"")
    assert get(server, "/stored", range="bytes=1-2", if_range='"rev_0"').content == stored
    assert get(server, "/none").status_code == 404


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["row", "file"])
def test_writes_have_the_preconditions_of_fs_file(server: RelayServer, content: bytes) -> None:
    path = f"/conditional{len(content)}"
    assert put(server, path, content, "").status_code == 412
    assert put(server, path, content, "rev_1").status_code == 404
    made = put(server, path, content, "", if_none_match="*")
    assert made.status_code == 202
    again = put(server, path, content, "", if_none_match="*")
    assert (again.status_code, again.json()["currentRevision"]) == (409, made.json()["targetRevision"])
    assert put(server, path, content, "0").status_code == 409
    assert put(server, path, content, '"rev_0"').status_code == 409
    assert put(server, path, content, get(server, path, "HEAD").headers["etag"]).status_code == 202
    kept = bodies(server)
    server.delete(path)
    assert len(kept) - len(bodies(server)) == (content is LARGE)


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["row", "file"])
def test_a_digest_that_differs_stores_nothing(server: RelayServer, content: bytes) -> None:
    before, events = bodies(server), len(server.events())
    answer = put(server, "/wrong", content, "*", x_content_sha256="0" * 64)
    assert (answer.status_code, answer.json()["code"]) == (400, "digest_mismatch")
    assert (get(server, "/wrong").status_code, bodies(server), len(server.events())) == (404, before, events)
    right = hashlib.sha256(content).hexdigest().upper()
    assert put(server, "/right", content, "*", x_content_sha256=right).status_code == 202


def test_semantics_travel_in_a_header(server: RelayServer, stored: bytes) -> None:
    given = json.dumps({"permissions": ["allow:public"], "properties": {"größe": "1"}})
    assert put(server, "/stored", stored, "*", x_relayfile_semantics=given).status_code == 202
    assert json.loads(get(server, "/stored", "HEAD").headers["x-relayfile-semantics"]) == json.loads(given)
    assert put(server, "/stored", stored, "*").status_code == 202, "without the header they stay"
    assert "x-relayfile-semantics" in get(server, "/stored").headers
    for bad in ("no json", "[]", "{" + " " * 40_000 + "}"):
        assert put(server, "/stored", stored, "*", x_relayfile_semantics=bad).status_code == 400


def test_semantics_too_long_for_a_header_say_so(server: RelayServer) -> None:
    with serving(server.folder / "uncapped") as other:
        body = {"content": "x", "semantics": {"comments": ["c" * 1000] * 40}}
        other.http.put("file", params={"path": "/f"}, json=body, headers={"If-Match": "*"}).raise_for_status()
        assert get(other, "/f", "HEAD").headers["x-relayfile-semantics"] == "too-long"


def test_fs_file_refuses_what_json_should_not_carry(server: RelayServer) -> None:
    put(server, "/huge", bytes(33 * 1024 * 1024), "*").raise_for_status()
    answer = server.http.get("file", params={"path": "/huge"})
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert "/fs/raw" in answer.json()["message"]


@pytest.mark.parametrize("action", ["refuse", "drop"])
def test_rules_speak_of_raw_as_of_the_path(server: RelayServer, action: str, stored: bytes) -> None:
    server.rules(f"PUT /stored {action}")
    with pytest.raises(httpx.RemoteProtocolError):
        put(server, "/stored", LARGE + b"new", "*")
    server.rules("GET /stored 503\nPUT /stored 422")
    assert get(server, "/stored").status_code == 503
    assert put(server, "/stored", LARGE, "*").status_code == 422
    server.rules("")
    assert get(server, "/stored").content == (stored if action == "refuse" else LARGE + b"new")


def test_truncate_and_slow(server: RelayServer, stored: bytes) -> None:
    server.rules(f"GET /stored truncate times=1\nGET /stored slow={len(stored) * 5}/s")
    with pytest.raises(httpx.RemoteProtocolError, match=f"received {len(stored) // 2} bytes"):
        get(server, "/stored")
    begun = get(server, "/stored")
    assert begun.content == stored
    assert begun.elapsed.total_seconds() > 0.1


def test_a_reader_keeps_its_revision_while_another_is_written(server: RelayServer) -> None:
    put(server, "/read", LARGE, "*").raise_for_status()
    server.rules("GET /read slow=4000000/s")
    with server.http.stream("GET", "raw", params={"path": "/read"}) as answer:
        pieces = answer.iter_raw()
        got = next(pieces)
        put(server, "/read", bytes(len(LARGE)), "*").raise_for_status()
        got += b"".join(pieces)
    assert got == LARGE


def test_kill_9_loses_no_answered_write_and_leaves_no_orphan(tmp_path: Path) -> None:
    with serving(tmp_path / "relay") as server:
        put(server, "/kept", LARGE, "*").raise_for_status()
        (kept,) = bodies(server)

        def half() -> Iterator[bytes]:
            yield LARGE
            until(lambda: len(bodies(server)) == 2, "the upload has begun")
            server.process.send_signal(signal.SIGKILL)
            yield LARGE

        with pytest.raises(httpx.TransportError):
            server.http.put("raw", params={"path": "/kept"}, content=half(), headers={"If-Match": "*"})
        server.stop()
        (server.data / "bodies" / "rev_99").write_bytes(b"renamed, but its row was not committed")
        server.start()
        assert bodies(server) == [kept]
        assert get(server, "/kept").content == LARGE


def test_a_client_that_goes_away_in_mid_upload_leaves_nothing(server: RelayServer) -> None:
    before = bodies(server)

    def broken() -> Iterator[bytes]:
        yield LARGE
        raise RuntimeError("gone")

    with pytest.raises(RuntimeError, match="gone"):
        server.http.put("raw", params={"path": "/broken"}, content=broken(), headers={"If-Match": "*"})
    assert get(server, "/broken").status_code == 404
    assert bodies(server) == before


def test_the_plain_api_has_no_such_route(tmp_path: Path) -> None:
    with serving(tmp_path / "plain", extensions=False) as server:
        assert put(server, "/f", SMALL, "*").status_code == 404
        assert get(server, "/f").status_code == 404
