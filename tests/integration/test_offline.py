"""A remote that is away, silent or busy: what waits is not charged, what is cached is served, nothing hangs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mount import Mount, until
from tests.support.ops import history, letters, ops, queued
from tests.support.server import RelayServer

pytestmark = pytest.mark.mount


@pytest.fixture
def mount(tmp_path: Path, relay_server: RelayServer) -> Iterator[Mount]:
    relay_server.put_many({"/work/f.txt": "old\n", "/work/unread.txt": "unread\n"})
    options = ("--settle", "0.1", "--timeout", "2", "--max-attempts", "2", "--drain", "1")
    with Mount(tmp_path, relay_server, *options) as mounted:
        mounted.sh("cat $MOUNT/work/f.txt")
        yield mounted


def health(mount: Mount, wanted: str) -> None:
    until(lambda: mount.status()["health"] == wanted, f"health is {wanted}")


@pytest.mark.parametrize("away", ["stop", "kill"])
def test_while_the_server_is_away_the_queue_waits(mount: Mount, away: str) -> None:
    getattr(mount.server, away)()
    mount.sh("echo mine > $MOUNT/work/f.txt; echo new > $MOUNT/work/new.txt; echo no > $MOUNT/work/no.txt")
    health(mount, "offline")
    mine, new, unwanted = queued(mount, 3)
    status = mount.status()
    assert (status["connection"]["state"], status["failedAttempts"], status["queue"]["deadLetter"]) == ("offline", 0, 0)
    assert status["connection"]["offlineSince"] is not None
    assert "offline" in mount.out("cat $MOUNT/.relay/status").splitlines()[1]
    assert (
        mount.out("cat $MOUNT/work/f.txt $MOUNT/work/new.txt; ls $MOUNT/work")
        == "mine\nnew\nf.txt\nnew.txt\nno.txt\nunread.txt\n"
    )
    began = time.monotonic()
    assert mount.sh("cat $MOUNT/work/unread.txt", check=False).returncode == 1
    assert time.monotonic() - began < 1.5

    mount.sh(f"cd $MOUNT/.relay/pending && mv {mine['opId']}.json {unwanted['opId']}.json ../discarded/")
    assert mount.out("cat $MOUNT/work/f.txt; ls $MOUNT/work") == "old\nf.txt\nnew.txt\nunread.txt\n"
    assert mount.out(f"cat $MOUNT/.relay/content/{mine['opId']}") == "mine\n"
    assert mount.fsmount("writeback", "status").returncode == 0
    assert [op["attempts"] for op in ops(mount, "pending")] == [0]

    mount.server.start()
    mount.delivered()
    health(mount, "ok")
    assert mount.server.files() == {"/work/f.txt": b"old\n", "/work/unread.txt": b"unread\n", "/work/new.txt": b"new\n"}
    assert mount.out("cat $MOUNT/work/unread.txt") == "unread\n"
    assert new["opId"] not in mount.out("ls $MOUNT/.relay/pending $MOUNT/.relay/dead-letter")


def test_cached_content_is_read_while_the_server_is_away(mount: Mount) -> None:
    mount.server.stop()
    mount.sh("echo x > $MOUNT/work/new.txt")
    health(mount, "offline")
    assert mount.out("cat $MOUNT/work/f.txt; stat -c %s $MOUNT/work/f.txt") == "old\n4\n"


def test_a_remote_that_asks_to_wait_is_waited_for(mount: Mount) -> None:
    before = len(mount.server.requests())
    mount.server.rules("* /** 429 retry-after=2\n")
    began = time.monotonic()
    mount.sh("echo mine > $MOUNT/work/f.txt")
    until(lambda: any(line.endswith(" 429") for line in mount.server.requests()[before:]), "it was refused")
    mount.server.rules("")
    mount.delivered()
    assert time.monotonic() - began >= 2
    assert (mount.server.get("/work/f.txt"), mount.status()["failedWritebacks"]) == (b"mine\n", 0)


def test_an_op_that_is_asked_to_wait_is_waited_for(mount: Mount) -> None:
    mount.server.rules("PUT /work/large 429 retry-after=2 times=1\n")  # by itself: an entry of a batch has no header
    began = time.monotonic()
    mount.sh("head -c 300000 /dev/zero > $MOUNT/work/large; echo other > $MOUNT/work/f.txt")
    until(lambda: mount.server.get("/work/f.txt") == b"other\n", "the others do not wait for it", 1.5)
    mount.delivered()
    assert 2 <= time.monotonic() - began < 5
    assert history(mount, "/work/large") == ["created"]


def test_one_file_that_gets_no_answer_does_not_stop_the_others(mount: Mount) -> None:
    mount.server.rules("PUT /work/f.txt hang\n")
    mount.sh("head -c 300000 /dev/zero > $MOUNT/work/f.txt; echo new > $MOUNT/work/new.txt")
    until(lambda: mount.server.get("/work/new.txt") == b"new\n", "the other one is delivered")
    (letter,) = letters(mount, 1, 12)
    assert (letter["path"], letter["reason"], letter["attempts"]) == ("/work/f.txt", "exhausted", 2)
    assert letter["lastStatus"] == 0
    assert mount.status()["connection"]["state"] == "online"


def test_a_remote_that_is_silent_makes_nothing_hang(mount: Mount) -> None:
    mount.server.rules("* /** hang\n")
    began = time.monotonic()
    assert mount.sh("cat $MOUNT/work/unread.txt", check=False).returncode == 1
    assert time.monotonic() - began < 4
    began = time.monotonic()
    mount.sh("echo mine > $MOUNT/work/f.txt; cat $MOUNT/work/f.txt $MOUNT/.relay/status; ls $MOUNT/.relay/pending")
    assert time.monotonic() - began < 1
    mount.server.rules("")
    mount.delivered(25)
    assert mount.server.get("/work/f.txt") == b"mine\n"
