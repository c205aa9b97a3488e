"""Start, stop and crash of the real process."""

import json
import signal
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from fsmount.errors import StateError
from fsmount.server.bearers import Bearers, keep_token
from fsmount.server.rules import ACTIONS
from fsmount.server.schema import SCHEMA_VERSION
from fsmount.server.serve import ServeOptions, run
from fsmount.server.store import Store
from fsmount.server.tokens import DAY, Issuer, issuer
from tests.support.server import RelayServer, serving


def test_what_the_start_leaves(relay_server: RelayServer) -> None:
    data = relay_server.data
    assert relay_server.serving_line == (
        f"serving relayfile+http://127.0.0.1:{relay_server.port}/local  token-file {data}/token\n"
    )
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (data, *data.iterdir())}
    modes.pop("key.pem")  # put there by this test's own server object
    folders = {"served": "0o700", "bodies": "0o700"}
    assert modes == {**folders, "token": "0o600", "store.db": "0o600", "store.db-wal": "0o600"}
    assert (data / "token").read_text().count("\n") == 1


def test_the_folder_and_the_key_are_made_private(tmp_path: Path) -> None:
    server = RelayServer(tmp_path, data=str(tmp_path / "deep" / "down"))
    with server:
        data = tmp_path / "deep" / "down"
        assert (data.stat().st_mode & 0o777, (data / "key.pem").stat().st_mode & 0o777) == (0o700, 0o600)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_within_a_second_whoever_is_connected(tmp_path: Path, how: signal.Signals) -> None:
    with serving(tmp_path) as server:
        server.rules("GET /hang hang\nGET /slow delay=60s\nGET /trickle slow=1")
        idle = httpx.Client(base_url=server.base)
        idle.get("/health")
        stuck = [threading.Thread(target=_try, args=(server, f"/{name}")) for name in ("hang", "slow", "trickle")]
        for thread in stuck:
            thread.start()
        _until(lambda: any("/hang" in line for line in server.requests()))
        start = time.monotonic()
        server.process.send_signal(how)
        assert server.process.wait(5) == 0
        assert time.monotonic() - start < 1
        for thread in stuck:
            thread.join(5)
        idle.close()
        assert server.stderr() == ""


def _try(server: RelayServer, path: str) -> None:
    try:
        httpx.get(
            f"{server.base}/v1/workspaces/local/fs/file",
            params={"path": path},
            headers={"Authorization": f"Bearer {server.token}", "X-Correlation-Id": "x"},
            timeout=30,
        )
    except httpx.TransportError:
        pass


def _until(holds: object) -> None:
    assert callable(holds)
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_crash_loses_no_answered_write(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        answered: dict[str, str] = {}

        def write() -> None:
            try:
                for number in range(100_000):
                    answered[f"/d{number % 7}/{number}"] = server.put(f"/d{number % 7}/{number}", str(number))
            except httpx.TransportError:
                return

        writer = threading.Thread(target=write)
        writer.start()
        _until(lambda: len(answered) > 100)
        server.process.kill()
        writer.join(10)
        server.kill()
        server.start()
        found = {entry.path: entry.revision for entry in server.tree() if entry.type == "file"}
        assert answered.items() <= found.items()
        assert len(found) - len(answered) <= 1
        events = server.events()
        assert [event.path for event in events] == sorted(found, key=lambda path: int(path.rpartition("/")[2]))[:1000]
        newest = max(int(revision.removeprefix("rev_")) for revision in found.values())
        assert server.put("/next", "x") == f"rev_{newest + 1}"


def test_files_and_token_last_over_a_restart(relay_server: RelayServer) -> None:
    relay_server.put("/a", "x")
    token, port = relay_server.token, relay_server.port
    relay_server.restart()
    assert (relay_server.token, relay_server.port) == (token, port)
    assert relay_server.get("/a") == b"x"


def test_bad_rules_are_said_on_stderr_and_skipped(tmp_path: Path) -> None:
    server = RelayServer(tmp_path)
    server.rules("PUT /a 422\nPUT /b explode\n")
    with server:
        with pytest.raises(httpx.HTTPStatusError, match="422"):
            server.put("/a", "x")
        assert server.stderr() == (
            f"fsmount: serve: rule in {server.rules_file}, line 2, skipped: unknown action 'explode'; "
            f"there are: {ACTIONS}\n"
        )


def test_a_second_server_on_the_same_folder_is_refused(relay_server: RelayServer) -> None:
    second = RelayServer(relay_server.folder)
    with pytest.raises(RuntimeError, match=r"ended with 5: .*store.db is in use by another server"):
        second.start()


def test_an_address_in_use_is_a_usage_error(relay_server: RelayServer, tmp_path: Path) -> None:
    second = RelayServer(tmp_path, port=relay_server.port)
    with pytest.raises(RuntimeError, match=rf"ended with 2: .*cannot listen on 127.0.0.1:{relay_server.port}"):
        second.start()


@pytest.mark.parametrize(("name", "content"), [("key.pem", b"not a key"), ("store.db", b"not a database" * 100)])
def test_damaged_state_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    server = RelayServer(tmp_path)
    server.data.mkdir()
    (server.data / name).write_bytes(content)
    with pytest.raises(RuntimeError, match=rf"ended with 5: .*{name}"):
        server.start()
    assert "Traceback" not in server.stderr()


def test_a_store_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    Store(tmp_path / "store.db", time.time_ns).close()
    with closing(sqlite3.connect(tmp_path / "store.db")) as newer:
        newer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(StateError, match="newer version of fsmount"):
        Store(tmp_path / "store.db", time.time_ns)


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=f"cannot use {tmp_path}/file: File exists"):
        run(ServeOptions(data=tmp_path / "file"))


def test_options_change_what_is_served(tmp_path: Path) -> None:
    with serving(tmp_path, extensions=False, workspace="my work", host="localhost") as server:
        assert server.remote.endswith("/my%20work")
        server.put("/a", b"\0")
        assert json.loads(httpx.get(f"{server.base}/health").content)["features"] == []
        assert server.tree()[0].byte_size is None
        assert server.get("/a") == b"\0"


def test_a_token_is_renewed_a_month_before_its_end(tmp_path: Path, own_issuer: Issuer) -> None:
    now = 1_000_000_000.0
    issuing = Issuer(own_issuer._key, lambda: now)
    first = keep_token(tmp_path, issuing, "local").read_text()
    now += 335 * DAY
    assert keep_token(tmp_path, issuing, "local").read_text() == first
    now += 1
    second = keep_token(tmp_path, issuing, "local").read_text()
    assert second != first
    assert Bearers(issuing, now=lambda: now).is_fresh(second.strip(), "local")
    assert keep_token(tmp_path, issuing, "other").read_text() != second


def test_a_token_of_another_key_is_replaced(tmp_path: Path, own_issuer: Issuer) -> None:
    first = keep_token(tmp_path, issuer(tmp_path), "local").read_text()
    assert keep_token(tmp_path, own_issuer, "local").read_text() != first
    (tmp_path / "token").write_bytes(b"\xff")
    assert Bearers(own_issuer).is_fresh(keep_token(tmp_path, own_issuer, "local").read_text().strip(), "local")
