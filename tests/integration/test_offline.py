"""A remote that is away, silent or busy: what waits is not charged, what is cached is served, nothing hangs."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.mount import Mount, until
from tests.support.ops import history, letters, ops, queued, settled
from tests.support.server import serving

pytestmark = pytest.mark.mount


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    with serving(tmp_path_factory.mktemp("relay")) as server:
        server.put_many({"/desk/f.txt": "old\n", "/desk/unread.txt": "unread\n", "/desk/silent.txt": "silent\n"})
        options = ("--settle", "0.1", "--timeout", "1.5", "--max-attempts", "2", "--drain", "1")
        with Mount(tmp_path_factory.mktemp("offline"), server, *options) as one:
            one.sh("cat $MOUNT/desk/f.txt")
            yield one


@pytest.fixture
def mount(mounted: Mount) -> Iterator[Mount]:
    """The module's mount; what a test leaves dead is given up after it."""
    yield mounted
    settled(mounted)


def health(mount: Mount, wanted: str) -> None:
    until(lambda: mount.status()["health"] == wanted, f"health is {wanted}")


def test_while_the_server_is_away_the_queue_waits(mount: Mount) -> None:
    mount.server.kill()
    # The first is too large for a batch, so that a request of its own meets the silence.
    mount.sh("head -c 300000 /dev/zero > $MOUNT/desk/f.txt")
    health(mount, "offline")
    mount.sh("echo new > $MOUNT/desk/new.txt; echo no > $MOUNT/desk/no.txt")
    mine, new, unwanted = queued(mount, 3)
    assert [op["attempts"] for op in (mine, new, unwanted)] == [0, 0, 0]
    status = mount.status()
    assert (status["connection"]["state"], status["failedAttempts"], status["queue"]["deadLetter"]) == ("offline", 0, 0)
    assert status["connection"]["offlineSince"] is not None
    assert "offline" in mount.out("cat $MOUNT/.relay/status").splitlines()[1]
    looked = mount.out("stat -c %s $MOUNT/desk/f.txt; cat $MOUNT/desk/new.txt; ls $MOUNT/desk")
    assert looked == "300000\nnew\nf.txt\nnew.txt\nno.txt\nsilent.txt\nunread.txt\n"
    began = time.monotonic()
    assert mount.sh("cat $MOUNT/desk/unread.txt", check=False).returncode == 1
    assert time.monotonic() - began < 1.5

    mount.sh(f"cd $MOUNT/.relay/pending && mv {mine['opId']}.json {unwanted['opId']}.json ../discarded/")
    assert mount.out("cat $MOUNT/desk/f.txt; ls $MOUNT/desk") == "old\nf.txt\nnew.txt\nsilent.txt\nunread.txt\n"
    assert mount.out(f"cat $MOUNT/.relay/content/{mine['opId']} | wc -c") == "300000\n"
    assert mount.fsmount("writeback", "status").returncode == 0
    assert [op["attempts"] for op in ops(mount, "pending")] == [0]

    mount.server.start()
    mount.delivered()
    health(mount, "ok")
    assert (mount.server.get("/desk/f.txt"), mount.server.get("/desk/new.txt")) == (b"old\n", b"new\n")
    assert mount.server.get("/desk/no.txt") is None
    assert mount.out("cat $MOUNT/desk/unread.txt") == "unread\n"
    assert new["opId"] not in mount.out("ls $MOUNT/.relay/pending $MOUNT/.relay/dead-letter")


def test_directories_are_made_and_renamed_however_long_the_server_is_away(mount: Mount) -> None:
    mount.sh("mkdir -p $MOUNT/here/before")
    mount.delivered()
    mount.server.kill()
    health(mount, "offline")
    mount.sh("echo refresh / > $MOUNT/.relay/ctl")  # as if what is known were too old to be current
    mount.sh("cd $MOUNT && mkdir -p new/deep && echo one | tee new/deep/f > here/before/f")
    mount.sh("cd $MOUNT && mv new moved && ls -R moved here")
    mount.server.start()
    mount.delivered()
    assert (mount.server.get("/moved/deep/f"), mount.server.get("/here/before/f")) == (b"one\n", b"one\n")


def test_a_remote_that_asks_to_wait_is_waited_for(mount: Mount) -> None:
    mount.server.rules("* /** 429 retry-after=2\n")
    began = time.monotonic()
    mount.sh("echo mine > $MOUNT/desk/f.txt")
    until(lambda: mount.status()["connection"]["state"] == "limited", "it was refused, and so was the probe")
    mount.server.rules("")
    mount.delivered()
    assert time.monotonic() - began >= 2
    assert (mount.server.get("/desk/f.txt"), ops(mount, "dead-letter")) == (b"mine\n", [])


def test_an_op_that_is_asked_to_wait_is_waited_for(mount: Mount) -> None:
    mount.server.rules("PUT /desk/large 429 retry-after=2 times=1\n")  # by itself: an entry of a batch has no header
    began = time.monotonic()
    mount.sh("head -c 300000 /dev/zero > $MOUNT/desk/large; echo other > $MOUNT/desk/f.txt")
    until(lambda: mount.server.get("/desk/f.txt") == b"other\n", "the others do not wait for it", 1.5)
    mount.delivered()
    assert 2 <= time.monotonic() - began < 5
    assert history(mount, "/desk/large") == ["created"]


def test_one_file_that_gets_no_answer_does_not_stop_the_others(mount: Mount) -> None:
    mount.server.rules("PUT /desk/f.txt hang\n")
    mount.sh("head -c 300000 /dev/zero > $MOUNT/desk/f.txt; echo new > $MOUNT/desk/new.txt")
    until(lambda: mount.server.get("/desk/new.txt") == b"new\n", "the other one is delivered")
    (letter,) = letters(mount, 1, 12)
    assert (letter["path"], letter["reason"], letter["attempts"]) == ("/desk/f.txt", "exhausted", 2)
    assert letter["lastStatus"] == 0
    assert mount.status()["connection"]["state"] == "online"


def test_a_remote_that_is_silent_makes_nothing_hang(mount: Mount) -> None:
    mount.server.rules("* /** hang\n")
    began = time.monotonic()
    assert mount.sh("cat $MOUNT/desk/silent.txt", check=False).returncode == 1
    assert time.monotonic() - began < 4
    health(mount, "offline")
    began = time.monotonic()
    out = mount.out(
        "cd $MOUNT/desk && echo mine > f.txt && cat f.txt && ls && ls ../.relay/pending && cat silent.txt || true"
    )
    assert time.monotonic() - began < 1
    assert out.startswith("mine\nf.txt\n")
    assert out.count("op_") == 1
    mount.server.rules("")
    mount.delivered(25)
    assert mount.server.get("/desk/f.txt") == b"mine\n"
