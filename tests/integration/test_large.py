"""Files too large for one JSON body, and what becomes of them where the server has nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mount import Mount, until
from tests.support.server import RelayServer, serving

pytestmark = pytest.mark.mount
MEBIBYTE = 1024 * 1024
SIZE = 64 * MEBIBYTE + 12_345
SEMANTICS = {"permissions": ["allow:public"], "properties": {"owner": "größe"}}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RelayServer]:
    with serving(tmp_path / "relay", extensions=True) as started:
        yield started


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file of which no two blocks are alike."""
    file = tmp_path / "large"
    file.write_bytes(b"".join(number.to_bytes(5) * 13_108 for number in range(SIZE // 65_536 + 1))[:SIZE])
    return file


def put_raw(server: RelayServer, path: str, content: bytes, **headers: str) -> str:
    given = {"If-Match": "*", **headers}
    answer = server.http.put("raw", params={"path": path}, content=content, headers=given)
    answer.raise_for_status()
    return str(answer.json()["targetRevision"])


def memory(mount: Mount) -> int:
    """The most bytes that the daemon ever had resident."""
    (line,) = [row for row in Path(f"/proc/{mount.pid}/status").read_text().splitlines() if row.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def test_a_large_file_goes_in_and_out_of_a_flat_daemon(tmp_path: Path, server: RelayServer, large: Path) -> None:
    with Mount(tmp_path, server) as mount:
        mount.sh(f"cp {large} $MOUNT/large", timeout=60)
        mount.delivered(60)
        assert memory(mount) < 150 * MEBIBYTE
    reader = tmp_path / "reader"
    reader.mkdir()
    with Mount(reader, server) as mount:
        mount.sh(f"cmp {large} $MOUNT/large && stat -c %s $MOUNT/large", timeout=60)
        assert mount.status()["counters"]["bytesDown"] == SIZE, "each block was fetched once"
        mount.sh("tail -c 5 $MOUNT/large; printf tail >> $MOUNT/large", timeout=60)
        mount.delivered(60)
        assert memory(mount) < 150 * MEBIBYTE
    with server.http.stream("GET", "raw", params={"path": "/large"}) as answer:
        assert b"".join(answer.iter_raw()) == large.read_bytes() + b"tail"


def test_a_file_larger_than_the_cache_is_not_fetched_again_and_again(
    tmp_path: Path, server: RelayServer, large: Path
) -> None:
    put_raw(server, "/large", large.read_bytes())
    with Mount(tmp_path, server, "--cache-limit", "8M") as mount:
        mount.sh(f"cmp {large} $MOUNT/large", timeout=60)
        status = mount.status()
        assert status["counters"]["bytesDown"] < SIZE * 1.25, "not a block for each of the kernel's requests"
        assert status["cache"]["bytes"] <= 8 * MEBIBYTE


def test_a_renamed_large_file_keeps_its_semantics(tmp_path: Path, server: RelayServer) -> None:
    content = bytes(2 * MEBIBYTE)
    put_raw(server, "/old", content, **{"X-Relayfile-Semantics": json.dumps(SEMANTICS)})
    with Mount(tmp_path, server) as mount:
        mount.sh("mv $MOUNT/old $MOUNT/new")
        mount.delivered()
    head = server.http.head("raw", params={"path": "/new"})
    assert json.loads(head.headers["x-relayfile-semantics"]) == SEMANTICS
    assert int(head.headers["content-length"]) == len(content)
    assert server.http.head("raw", params={"path": "/old"}).status_code == 404


def test_a_conflict_of_a_large_file_is_told_before_it_is_sent(tmp_path: Path, server: RelayServer) -> None:
    server.put("/doc", "old\n")
    with Mount(tmp_path, server) as mount:
        mount.sh("cat $MOUNT/doc; echo pause > $MOUNT/.relay/ctl; head -c 9000000 /dev/zero > $MOUNT/doc")
        server.put("/doc", "theirs\n")
        sent = len(server.requests())
        mount.sh("echo resume > $MOUNT/.relay/ctl")
        dead = mount.dead_letter()
        assert (dead["reason"], dead["size"]) == ("conflict", 9_000_000)
        assert "not sent" in dead["history"][-1]["error"]
        assert mount.out(f"cat $MOUNT/.relay/conflict/{dead['opId']}/theirs*") == "theirs\n"
    assert not [line for line in server.requests()[sent:] if line.startswith("PUT")]


def test_semantics_that_cannot_be_read_are_forbidden_and_nothing_is_made(tmp_path: Path, server: RelayServer) -> None:
    put_raw(server, "/old", bytes(2 * MEBIBYTE))
    with Mount(tmp_path, server) as mount:
        mount.sh("ls $MOUNT; cat $MOUNT/old >/dev/null")
        server.rules("GET /old 403\n")
        mount.sh("mv $MOUNT/old $MOUNT/new")
        dead = mount.dead_letter()
    assert (dead["reason"], dead["kind"]) == ("forbidden", "move")
    assert server.http.head("raw", params={"path": "/new"}).status_code == 404


def test_a_server_that_comes_back_without_raw_still_serves(tmp_path: Path, server: RelayServer) -> None:
    content = bytes(range(256)) * 2048
    put_raw(server, "/f", content)
    with Mount(tmp_path, server) as mount:
        mount.sh("ls $MOUNT")
        server.stop()
        plain = RelayServer(server.folder, extensions=False)
        plain.port = server.port
        with plain:
            mount.sh("cat $MOUNT/f | sha256sum")
            mount.sh("cp $MOUNT/f $MOUNT/g")
            mount.delivered(30)
            assert plain.get("/g") == content


def test_without_raw_the_cap_is_learned_and_then_told_beforehand(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "plain", extensions=False, body_cap=100_000) as server,
        Mount(tmp_path, server) as mount,
    ):
        mount.sh("cd $MOUNT; head -c 150K /dev/zero > big; for n in $(seq 20); do echo $n > small$n; done")
        dead = mount.dead_letter()
        assert (dead["path"], dead["reason"]) == ("/big", "too-large")
        until(lambda: mount.status()["queue"]["pending"] == 0, "the others are delivered")
        assert sorted(server.files()) == sorted(f"/small{number}" for number in range(1, 21))
        assert "File too large" in mount.sh("head -c 300K /dev/zero > $MOUNT/other", check=False).stderr
        mount.sh("head -c 70K /dev/zero | tr '\\0' x > $MOUNT/fits")
        until(lambda: server.get("/fits") is not None, "what fits is delivered")
        server.stop()
        raised = RelayServer(server.folder, extensions=False, body_cap=MEBIBYTE)
        raised.port = server.port
        with raised:
            mount.sh("ls $MOUNT; mv $MOUNT/.relay/dead-letter/* $MOUNT/.relay/retry/")
            mount.delivered()
            mount.sh("head -c 300K /dev/zero > $MOUNT/other")
            mount.delivered()
            assert raised.get("/other") == bytes(300 * 1024), "a limit that was raised is found out"


def test_a_cap_smaller_than_any_batch_stops_only_what_does_not_fit(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "plain", extensions=False, body_cap=1500) as server,
        Mount(tmp_path, server) as mount,
    ):
        mount.sh("cd $MOUNT; for n in $(seq 30); do echo $n > small$n; done; head -c 2000 /dev/zero > big")
        assert mount.dead_letter(30)["path"] == "/big"
        until(lambda: len(server.tree()) == 30, "the others are delivered", 30)


def test_without_sizes_a_small_directory_is_measured_by_one_request_and_a_large_one_file_by_file(
    tmp_path: Path,
) -> None:
    with serving(tmp_path / "plain", extensions=False) as server:
        server.put_many({f"/small/{number}": "x" * number for number in range(20)})
        server.put("/small/deep/binary", bytes(300))
        for number in range(11):
            server.put(f"/large/{number}", "x" * 800_000)
        with Mount(tmp_path, server) as mount:
            before = len(server.requests())
            assert mount.out("cd $MOUNT; stat -c %s small/7 small/deep/binary; ls -l small | wc -l") == "7\n300\n22\n"
            assert mount.out("cat $MOUNT/small/*[0-9] | wc -c") == f"{sum(range(20))}\n"
            assert mount.out("ls -l $MOUNT/large | awk '{s += $5} END {print s}'") == "8800000\n"
            asked = server.requests()[before:]
            assert len([line for line in asked if "/fs/export" in line]) == 1
            assert len([line for line in asked if "/fs/file" in line and "/small" in line]) <= 2, "single stats"
            assert len([line for line in asked if "/fs/file" in line and "/large" in line]) == 11


def test_a_revision_that_is_used_again_with_other_content_is_seen(tmp_path: Path) -> None:
    with serving(tmp_path / "first") as server, Mount(tmp_path, server) as mount:
        assert server.put("/f", "one") == "rev_1"
        server.put("/g", "later, so that the new server's feed ends before this one's")
        until(lambda: mount.sh("ls $MOUNT/g", check=False).returncode == 0, "the feed has told")
        assert mount.out("cat $MOUNT/f") == "one"
        server.stop()
        anew = RelayServer(tmp_path / "second")
        anew.folder.mkdir()
        anew.data.mkdir(mode=0o700)
        for name in ("key.pem", "token"):
            (anew.data / name).write_bytes((server.data / name).read_bytes())
        anew.port = server.port
        with anew:
            assert anew.put("/f", "two") == "rev_1"
            until(lambda: mount.sh("cat $MOUNT/f", check=False).stdout == "two", "the other content is shown", 20)
