"""What this project was begun for, sentence by sentence: a refused write is never lost, is seen, and is tried again."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mount import FSMOUNT, Mount, until
from tests.support.ops import letters, ops, settled
from tests.support.server import RelayServer, serving

pytestmark = pytest.mark.mount

NO_TITLE = 'PUT /github/** 400 {"code":"bad_request","message":"title is required"}\n'
NONE_SUCH = f"op_{'0' * 26}"
SHELL = " ".join(FSMOUNT)


@pytest.fixture
def own(tmp_path: Path, relay_server: RelayServer) -> Iterator[Mount]:
    """A mount that may be ended and damaged."""
    with Mount(tmp_path, relay_server, "--settle", "0.1") as mounted:
        yield mounted


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    with serving(tmp_path_factory.mktemp("relay")) as server:
        server.put_many({"/github/issues/7.json": '{"state": "open"}\n', "/github/old.txt": "old\n"})
        folder = tmp_path_factory.mktemp("seed")
        with Mount(folder, server, "--settle", "0.1", "--max-attempts", "3") as one:
            yield one


@pytest.fixture
def mount(mounted: Mount) -> Iterator[Mount]:
    """The module's mount; what a test leaves dead is given up after it."""
    yield mounted
    settled(mounted)


def failed(mount: Mount) -> tuple[int, int]:
    """How many attempts and ops have ever failed."""
    status = mount.status()
    return status["failedAttempts"], status["failedWritebacks"]


def refused(mount: Mount, *names: str) -> list[str]:
    """Writes that the server refuses, waited for; their ops, oldest first."""
    mount.server.rules(NO_TITLE)
    for name in names:
        mount.sh(f"echo {name} > $MOUNT/github/{name}")
    return [letter["opId"] for letter in letters(mount, len(names))]


def test_a_400_becomes_a_dead_letter_that_survives_restarts(own: Mount) -> None:
    own.server.put("/github/issues/7.json", '{"state": "open"}\n')
    until(lambda: "7.json" in own.out("ls $MOUNT/github/issues 2>/dev/null; true"), "the mount sees it")
    (op,) = refused(own, "issues/7.json")
    first = json.loads(own.out(f"cat $MOUNT/.relay/dead-letter/{op}.json"))
    assert list(first)[:6] == ["opId", "path", "attempts", "lastStatus", "lastBody", "ts"]
    assert (first["opId"], first["path"]) == (op, "/github/issues/7.json")
    assert (first["attempts"], first["lastStatus"], first["reason"]) == (1, 400, "rejected")
    assert "title is required" in first["lastBody"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["ts"])
    assert own.status()["failedWritebacks"] == 1
    assert own.server.get("/github/issues/7.json") == b'{"state": "open"}\n'

    assert own.umount().returncode == 0
    own.start()
    assert letters(own, 1) == [first]
    assert own.status()["failedWritebacks"] == 1

    own.kill()
    own.start()
    assert letters(own, 1) == [first]
    assert own.status()["failedWritebacks"] == 1
    assert own.out("cat $MOUNT/github/issues/7.json") == "issues/7.json\n"
    assert own.out(f"cat $MOUNT/.relay/content/{op}") == "issues/7.json\n"


def test_every_answer_that_is_not_2xx_is_in_the_log(mount: Mount) -> None:
    long = "x" * 3000
    mount.server.rules(
        f'PUT /github/a2.txt 422 {{"code":"schema_validation_failed","message":"why {long}"}}\n'
        "PUT /github/b2.txt 503 times=1\n"
        'DELETE /github/old.txt 400 {"code":"keep","message":"not this one"}\n'
        "LIST /github/issues 403\n"
    )
    mount.sh("echo a > $MOUNT/github/a2.txt; echo b > $MOUNT/github/b2.txt; rm $MOUNT/github/old.txt")
    assert mount.sh("ls $MOUNT/github/issues", check=False).returncode != 0
    letters(mount, 2)
    until(lambda: not ops(mount, "pending"), "the rest is delivered")
    log = mount.out("cat $MOUNT/.relay/log")

    def said(*words: str) -> list[str]:
        return [line for line in log.splitlines() if all(word in line for word in words)]

    (cut,) = said("request.refused", "/github/a2.txt", " 422 ", "why xxx")
    assert 500 < cut.count("x") <= 1050
    assert said("request.refused", "/bulk 503")
    assert said("/github/old.txt", "DELETE", "400", "not this one")
    assert said("/github/issues", "GET", "403")
    assert mount.out("cat $MOUNT/github/old.txt") == "old\n"


def test_an_answer_to_a_read_that_is_not_2xx_is_in_the_log(mount: Mount) -> None:
    mount.server.rules('GET /github/issues/** 500 {"code":"broken","message":"the disk is full"}\n')
    assert mount.sh("cat $MOUNT/github/issues/7.json", check=False).returncode != 0
    assert re.search(r"GET \S*/github/issues/7.json\S* .*500.*the disk is full", mount.out("cat $MOUNT/.relay/log"))


def test_status_tells_what_waits_and_what_failed(mount: Mount) -> None:
    done = mount.fsmount("writeback", "status")
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 pending" in done.stdout
    assert "0 dead letters now" in done.stdout
    (op,) = refused(mount, "a4.json")

    done = mount.fsmount("writeback", "status")
    assert (done.returncode, done.stderr) == (1, "")
    assert "0 pending" in done.stdout
    assert re.search(r"1 dead letter now; ever: \d+ failed attempts?, \d+ dead letter", done.stdout)
    assert op in done.stdout
    assert re.search(r"last error by provider\n  github  /github/a4.json  .*title is required", done.stdout)


def test_status_json_is_the_file(mount: Mount) -> None:
    (op,) = refused(mount, "a5.json")
    # While a handle is open on it the rendering stays: both commands look at one moment.
    command = f"exec 3<$MOUNT/.relay/status.json; {SHELL} writeback status --json > told; echo $?; cmp - told <&3"
    assert mount.out(command) == "1\n"
    told = json.loads((mount.folder / "told").read_text())
    assert (told["queue"]["pending"], told["queue"]["deadLetter"]) == (0, 1)
    assert [letter["opId"] for letter in told["deadLetters"]] == [op]
    assert told["lastErrorByProvider"]["github"]["status"] == 400

    assert mount.fsmount("writeback", "discard", "--opId", op).returncode == 0
    done = mount.fsmount("writeback", "status", "--json")
    assert (done.returncode, json.loads(done.stdout)["failedWritebacks"]) == (0, told["failedWritebacks"])


def test_failing_twice_and_then_succeeding_is_no_failure(mount: Mount) -> None:
    attempts, ops_failed = failed(mount)
    mount.server.rules("PUT /github/** 503 times=2\n")
    mount.sh("echo x > $MOUNT/github/flaky.txt")
    mount.delivered(30)
    assert mount.server.get("/github/flaky.txt") == b"x\n"
    assert mount.fsmount("writeback", "status").returncode == 0
    until(lambda: failed(mount) == (attempts + 2, ops_failed), "both failures are counted, and no dead letter")

    def well() -> bool:
        status = mount.status()
        return (status["lastErrorByProvider"], status["queue"]["pending"], status["health"]) == ({}, 0, "ok")

    until(well, "nothing is left to tell of them")


def test_an_unknown_op_fails_clearly(mount: Mount) -> None:
    done = mount.fsmount("writeback", "retry", "--opId", NONE_SUCH)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"fsmount: error: no such op: {NONE_SUCH}\n")
    assert mount.sh(f"mv $MOUNT/.relay/dead-letter/{NONE_SUCH}.json $MOUNT/.relay/retry/", check=False).returncode == 1


DAMAGES = ("reason = 'because'", "kind = 'sideways'", "path = 'nowhere'", "state = 'lost'")


def test_a_damaged_record_is_shown_refused_and_kept(own: Mount) -> None:
    own.sh("mkdir $MOUNT/github")
    sound, *damaged = refused(own, "sound", "a", "b", "c", "d")
    own.kill()
    database = sqlite3.connect(own.state / "journal.db", isolation_level=None)
    database.execute("PRAGMA ignore_check_constraints = ON")
    for op, damage in zip(damaged, DAMAGES, strict=True):
        database.execute(f"UPDATE op SET {damage} WHERE op_id = ?", (op,))
    database.close()

    told = json.loads(own.fsmount("writeback", "status", "--json").stdout)
    assert told["queue"]["deadLetter"] == 5
    own.start()
    states = {letter["opId"]: letter["state"] for letter in letters(own, 5)}
    assert states == {sound: "dead-letter"} | dict.fromkeys(damaged, "malformed")
    for op in damaged:
        done = own.sh(f"mv $MOUNT/.relay/dead-letter/{op}.json $MOUNT/.relay/retry/", check=False)
        assert (done.returncode, "Device or resource busy" in done.stderr) == (1, True)
        assert re.search(f"verb.refused {op} .*damaged", own.log())
    done = own.fsmount("writeback", "retry", "--opId", damaged[0])
    assert (done.returncode, "damaged" in done.stderr) == (1, True)
    assert own.umount().returncode == 0
    own.server.rules("")
    own.start()
    done = own.fsmount("writeback", "retry", "--all")
    assert done.returncode == 1
    until(lambda: own.server.get("/github/sound") == b"sound\n", "the sound one is delivered all the same")
    assert [letter["opId"] for letter in letters(own, 4)] == damaged


def test_a_retry_that_succeeds_removes_the_dead_letter(mount: Mount) -> None:
    (op,) = refused(mount, "a9.json")
    mount.server.rules("")
    mount.sh(f"mv $MOUNT/.relay/dead-letter/{op}.json $MOUNT/.relay/retry/")
    mount.delivered()
    assert mount.server.get("/github/a9.json") == b"a9.json\n"
    assert mount.out(f"ls $MOUNT/.relay/* -1 | grep {op} || true") == ""
    assert mount.fsmount("writeback", "status").returncode == 0
    assert mount.fsmount("writeback", "show", op).returncode == 3


def test_a_retry_that_fails_keeps_the_dead_letter_with_its_attempts(mount: Mount) -> None:
    (op,) = refused(mount, "a10.json")
    _, before = failed(mount)
    done = mount.fsmount("writeback", "retry", "--opId", op, "--wait")
    assert (done.returncode, op in done.stderr) == (1, True)
    (letter,) = letters(mount, 1)
    assert (letter["opId"], letter["attempts"], len(letter["history"])) == (op, 2, 2)

    mount.server.rules("PUT /github/** 500\n")
    mount.sh(f"mv $MOUNT/.relay/dead-letter/{op}.json $MOUNT/.relay/retry/")
    until(lambda: bool(ops(mount, "dead-letter")), "it is given up again")
    (letter,) = letters(mount, 1)
    assert (letter["reason"], letter["attempts"], letter["lastStatus"]) == ("exhausted", 5, 500)
    until(lambda: failed(mount)[1] == before + 2, "each time it died is counted")


def test_mv_takes_several_at_once(mount: Mount) -> None:
    names = ("a11.json", "b11.json", "c11.json")
    refused(mount, *names)
    mount.server.rules("")
    done = mount.sh("cd $MOUNT/.relay && mv dead-letter/*.json retry/")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    mount.delivered()
    assert [mount.server.get(f"/github/{name}") for name in names] == [f"{name}\n".encode() for name in names]
    assert mount.out("ls $MOUNT/.relay/dead-letter $MOUNT/.relay/pending -1 | grep op_ || true") == ""
