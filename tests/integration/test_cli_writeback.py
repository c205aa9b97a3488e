"""The queue by its commands, over a real mount and without one."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mount import FSMOUNT, Mount, until
from tests.support.server import RelayServer

pytestmark = pytest.mark.mount

NO_TITLE = 'PUT /github/** 422 {"code":"schema_validation_failed","message":"title is required"}\n'
NONE_SUCH = f"op_{'0' * 26}"


@pytest.fixture
def mount(tmp_path: Path, relay_server: RelayServer) -> Iterator[Mount]:
    relay_server.put_many({"/github/issues/7.json": '{"state": "open"}\n', "/notion/page.md": "# page\n"})
    with Mount(tmp_path, relay_server, "--settle", "0.2") as mounted:
        yield mounted


def dead(mount: Mount) -> list[str]:
    return [name.removesuffix(".json") for name in mount.out("ls $MOUNT/.relay/dead-letter").split()]


def refused(mount: Mount, *names: str) -> list[str]:
    """Writes that the server refuses, waited for; the ops, oldest first."""
    mount.server.rules(NO_TITLE)
    for name in names:
        mount.sh(f"echo {name} > $MOUNT/github/{name}")
    until(lambda: len(dead(mount)) == len(names), "every write is a dead letter")
    return dead(mount)


def test_status_is_1_only_while_there_are_dead_letters(mount: Mount) -> None:
    done = mount.fsmount("writeback", "status")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{mount.server.remote} at {mount.point}\n")
    (op,) = refused(mount, "a.json")

    done = mount.fsmount("writeback", "status")
    assert done.returncode == 1
    assert op in done.stdout
    assert "title is required" in done.stdout
    done = mount.fsmount("writeback", "status", str(mount.point), "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["queue"]["deadLetter"], told["deadLetters"][0]["opId"]) == (1, 1, op)
    assert told["lastErrorByProvider"]["github"]["status"] == 422

    mount.server.rules("")
    done = mount.fsmount("writeback", "retry", "--all", "--wait")
    assert done.returncode == 0, done.stderr
    assert mount.server.get("/github/a.json") == b"a.json\n"
    until(lambda: mount.fsmount("writeback", "status").returncode == 0, "nothing is dead any more")
    assert mount.status()["failedWritebacks"] == 1


def test_a_write_that_failed_twice_and_then_succeeded_is_no_failure(mount: Mount) -> None:
    mount.server.rules("PUT /github/** 503 times=2\n")
    mount.sh("echo x > $MOUNT/github/flaky.txt")
    mount.delivered(30)
    assert mount.fsmount("writeback", "status").returncode == 0
    assert mount.server.get("/github/flaky.txt") == b"x\n"


def test_show_is_the_file_of_the_op(mount: Mount) -> None:
    (op,) = refused(mount, "a.json")
    done = mount.fsmount("writeback", "show", op)
    assert done.returncode == 0
    shown = json.loads(done.stdout)
    assert (shown["opId"], shown["path"], shown["lastStatus"]) == (op, "/github/a.json", 422)
    assert done.stdout == mount.out(f"cat $MOUNT/.relay/dead-letter/{op}.json")


def test_an_unknown_op_is_3(mount: Mount) -> None:
    for verb in (("show",), ("retry", "--opId"), ("retry", "--op-id"), ("discard", "--opId")):
        done = mount.fsmount("writeback", *verb, NONE_SUCH)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.startswith(f"fsmount: error: no such op: {NONE_SUCH}\n")


def test_one_of_several_is_retried_and_fails_again(mount: Mount) -> None:
    first, second = refused(mount, "a.json", "b.json")
    done = mount.fsmount("writeback", "retry", "--opId", first, str(mount.point), "--wait")
    assert done.returncode == 1
    assert first in done.stderr
    shown = json.loads(mount.fsmount("writeback", "show", first).stdout)
    assert (shown["state"], shown["attempts"]) == ("dead-letter", 2)
    assert json.loads(mount.fsmount("writeback", "show", second).stdout)["attempts"] == 1


def test_several_after_one_option(mount: Mount) -> None:
    ops = refused(mount, "a.json", "b.json")
    done = mount.fsmount("writeback", "discard", "--opId", *ops)
    assert done.returncode == 0, done.stderr
    assert mount.out("ls $MOUNT/.relay/discarded").split() == [f"{op}.json" for op in ops]
    assert mount.fsmount("writeback", "status").returncode == 0
    done = mount.fsmount("writeback", "discard", "--opId", ops[0])
    assert (done.returncode, "discarded already" in done.stdout) == (0, True)


def test_by_provider(mount: Mount) -> None:
    mount.server.rules("PUT /** 422 {}\n")
    mount.sh("echo a > $MOUNT/github/a.json; echo b > $MOUNT/notion/b.md")
    until(lambda: len(dead(mount)) == 2, "both are dead letters")
    mount.server.rules("")
    done = mount.fsmount("writeback", "retry", "--provider", "notion", "--wait")
    assert done.returncode == 0, done.stderr
    assert (mount.server.get("/notion/b.md"), mount.server.get("/github/a.json")) == (b"b\n", None)
    assert len(dead(mount)) == 1


def test_what_was_delivered_is_told_with_its_bytes_and_is_gone(mount: Mount) -> None:
    ops = refused(mount, "a.json", "b.json")
    mount.server.rules("")
    done = mount.fsmount("writeback", "retry", "--op-id", *ops, "--wait")
    assert (done.returncode, done.stderr) == (0, "")
    assert "delivered 2 ops, 14 B in " in done.stdout
    for op in ops:
        assert mount.fsmount("writeback", "show", op).returncode == 3


def test_by_a_provider_that_has_none(mount: Mount) -> None:
    refused(mount, "a.json")
    done = mount.fsmount("writeback", "retry", "--provider", "nope", "--wait")
    assert done.stdout.startswith("no dead letters of provider nope\n")


def test_of_several_of_one_path_the_newest_is_retried(mount: Mount) -> None:
    mount.server.rules(NO_TITLE)
    for number in (1, 2, 3):
        mount.sh("echo $0 > $MOUNT/github/a.json".replace("$0", str(number)))
        until(lambda: len(dead(mount)) == number, "it is a dead letter")  # noqa: B023 - called at once
    newest = dead(mount)[-1]
    mount.server.rules("")
    done = mount.fsmount("writeback", "retry", "--all", "--wait")
    assert done.returncode == 0, done
    assert "2 older dead letters of these paths are left" in done.stdout
    assert f"{newest} will be tried again" in done.stdout
    assert mount.server.get("/github/a.json") == b"3\n"
    until(lambda: not dead(mount), "the older ones are discarded")


def test_without_a_daemon_the_same_commands_work(mount: Mount) -> None:
    first, second = refused(mount, "a.json", "b.json")
    done = mount.umount()
    assert done.stdout == f"unmounted {mount.point}; 2 dead letters\n", done.stderr
    mount.server.stop()

    done = mount.fsmount("writeback", "status")
    assert (done.returncode, done.stderr) == (1, "")
    assert "stopped" in done.stdout
    assert json.loads(mount.fsmount("writeback", "status", "--json").stdout)["queue"]["deadLetter"] == 2
    assert json.loads(mount.fsmount("writeback", "show", first).stdout)["lastStatus"] == 422
    assert mount.fsmount("writeback", "retry", "--opId", NONE_SUCH).returncode == 3
    assert mount.fsmount("writeback", "retry", "--opId", first).returncode == 0
    assert mount.fsmount("writeback", "discard", "--opId", second, "--state-dir", str(mount.state)).returncode == 0
    assert mount.fsmount("writeback", "status").returncode == 0
    done = mount.fsmount("wait")
    assert done.returncode == 1
    assert "1 op" in done.stderr
    assert f"fsmount mount {mount.server.remote} {mount.point} --state-dir {mount.state}\n" in done.stderr

    mount.server.rules("")
    mount.server.start()
    mount.start()
    mount.delivered()
    assert (mount.server.get("/github/a.json"), mount.server.get("/github/b.json")) == (b"a.json\n", None)


def test_waiting_for_many(mount: Mount) -> None:
    mount.sh("for n in $(seq 60); do echo $n > $MOUNT/github/$n.txt; done")
    done = mount.fsmount("wait")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(mount.server.tree("/github")) >= 60
    assert mount.out("ls $MOUNT/.relay/pending") == ""
    assert mount.fsmount("wait").stdout == "nothing was waiting\n"


def test_waiting_names_what_will_not_get_there(mount: Mount) -> None:
    (older,) = refused(mount, "old.json")
    mount.server.rules('PUT /github/new.json delay=3s 422 {"message":"no"}\nPUT /github/** delay=3s\n')
    mount.sh("echo n > $MOUNT/github/new.json; echo g > $MOUNT/github/good.json")
    done = mount.fsmount("wait")
    assert done.returncode == 1, done
    (new,) = [op for op in dead(mount) if op != older]
    assert f"fsmount writeback retry --opId {new}" in done.stderr
    assert older not in done.stderr
    assert "1 older dead letter" in done.stdout
    assert mount.server.get("/github/good.json") == b"g\n"


def test_waiting_has_an_end(mount: Mount) -> None:
    mount.sh("ls $MOUNT/github")
    mount.server.rules("* /** refuse\n")
    mount.sh("echo a > $MOUNT/github/a.txt")
    done = mount.fsmount("wait", "--timeout", "1")
    assert done.returncode == 6
    assert "1 op of 1 still waiting after 1 s: the remote cannot be reached" in done.stderr
    assert mount.fsmount("wait", str(mount.point), "--timeout", "1").stderr.endswith(
        f"fsmount writeback status {mount.point}\n"
    )


def test_waiting_in_vain_while_paused_says_what_lets_it_go_on(mount: Mount) -> None:
    mount.sh("echo pause > $MOUNT/.relay/ctl; echo a > $MOUNT/github/paused.txt")
    done = mount.fsmount("wait", "--timeout", "1")
    mount.sh("echo resume > $MOUNT/.relay/ctl")
    assert done.returncode == 6
    assert "a person paused uploads" in done.stderr
    assert "echo resume > .relay/ctl" in done.stderr


def test_on_a_terminal_it_shows_a_bar(mount: Mount) -> None:
    mount.server.rules("PUT /github/** delay=1s\n")
    mount.sh("echo a > $MOUNT/github/a.txt; echo b > $MOUNT/github/b.txt")
    screen, terminal = os.openpty()
    with subprocess.Popen(
        [*FSMOUNT, "wait"],
        env={**mount.environment, "TERM": "xterm", "COLUMNS": "80"},
        stdout=terminal,
        stderr=subprocess.STDOUT,
    ) as process:
        os.close(terminal)
        shown = b""
        while chunk := _read(screen):
            shown += chunk
        assert process.wait(30) == 0
    os.close(screen)
    assert b"delivering" in shown
    assert b"delivered 2 ops" in shown


def _read(screen: int) -> bytes:
    """What a terminal shows next; nothing when the last program has let go of it (EIO)."""
    try:
        return os.read(screen, 4096)
    except OSError:
        return b""


def test_a_daemon_that_dies_ends_the_waiting(mount: Mount) -> None:
    mount.server.rules("PUT /github/** hang\n")
    mount.sh("echo a > $MOUNT/github/a.txt")
    with subprocess.Popen(
        [*FSMOUNT, "wait"], env=mount.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        # An op that is being sent was closed for good: it is not taken for half a file after the crash.
        until(lambda: mount.ops("pending")[0]["state"] == "sending", "the server is asked")
        mount.kill()
        _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert said.startswith("fsmount: error: ")
    assert "ended meanwhile" in said or "wait for the next mount" in said, f"whichever came first: {said}"
