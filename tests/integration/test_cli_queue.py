"""What the command line shows and does of the queue, over a real mount, a dead one, a silent one and none."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.mount import FSMOUNT, Mount, until
from tests.support.server import RelayServer, serving

pytestmark = pytest.mark.mount

REFUSE = 'PUT /github/** 422 {"code":"schema_validation_failed","message":"title is required"}\n'
Op = dict[str, Any]


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    folder = tmp_path_factory.mktemp("queue")
    with serving(folder / "relay") as server:
        files = {f"/docs/{name}.txt": "one\ntwo\nthree\n" for name in ("save", "forced", "gone", "binary", "unknown")}
        server.put_many({**files, **{f"/many/{number}.txt": "x\n" for number in range(12)}})
        server.put_many({"/github/there.json": "{}\n", "/slow/there.txt": "x\n"})
        with Mount(folder, server, "--settle", "0.2", "--max-deletes", "3") as mount:
            yield mount


@pytest.fixture
def mount(mounted: Mount) -> Iterator[Mount]:
    """The module's mount; what a test leaves is given up."""
    yield mounted
    mounted.server.rules("")
    mounted.sh("echo resume > $MOUNT/.relay/ctl")
    mounted.fsmount("wait", "--timeout", "5")
    if left := [op["opId"] for op in listed(mounted)]:
        mounted.fsmount("writeback", "discard", "--opId", *left)


@pytest.fixture
def own(tmp_path: Path, relay_server: RelayServer) -> Iterator[Mount]:
    """A mount that may be killed or stopped."""
    relay_server.put_many({"/docs/save.txt": "one\ntwo\n", "/github/a.json": "{}\n"})
    with Mount(tmp_path, relay_server, "--settle", "0.2", "--max-deletes", "3") as mounted:
        yield mounted


def listed(mount: Mount, *options: str) -> list[Op]:
    done = mount.fsmount("writeback", "list", "--json", *options)
    assert (done.returncode, done.stderr) == (0, "")
    found: list[Op] = json.loads(done.stdout)
    return found


def waited_for(mount: Mount, directory: str, number: int = 1) -> list[Op]:
    """So many ops in one directory of `.relay`."""
    look = f"ls $MOUNT/.relay/{directory} | wc -l"
    until(lambda: int(mount.out(look)) == number, f"{number} ops are in {directory}", 15)
    return listed(mount, "--state", directory)


def conflict(mount: Mount, name: str, mine: str, theirs: str | bytes | None) -> Op:
    """A dead letter: somebody else changed, or deleted, what a program here changed too."""
    mount.sh(f"echo pause > $MOUNT/.relay/ctl; cat $MOUNT/docs/{name}; printf '{mine}' > $MOUNT/docs/{name}")
    if theirs is None:
        mount.server.delete(f"/docs/{name}")
    else:
        mount.server.put(f"/docs/{name}", theirs)
    mount.sh("echo resume > $MOUNT/.relay/ctl")
    (found,) = waited_for(mount, "dead-letter")
    assert found["path"] == f"/docs/{name}"
    return found


def held(mount: Mount) -> list[Op]:
    mount.sh("cd $MOUNT/many && rm -f *.txt")
    return waited_for(mount, "held", 12)


@contextmanager
def stopped(mount: Mount) -> Iterator[None]:
    """The daemon is silent, as a wedged one is."""
    os.kill(mount.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(mount.pid, signal.SIGCONT)


@contextmanager
def running(mount: Mount, *arguments: str, terminal: bool = False) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A command that goes on, and where its output can be read."""
    reader, writer = os.openpty() if terminal else os.pipe()
    environment = {**mount.environment, "TERM": "xterm", "COLUMNS": "100", "LINES": "50", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen([*FSMOUNT, *arguments], env=environment, stdout=writer, stderr=subprocess.STDOUT) as process:
        os.close(writer)
        try:
            yield process, reader
        finally:
            process.kill()
            os.close(reader)


def begun(mount: Mount, *arguments: str) -> subprocess.Popen[str]:
    """A command beside others."""
    pipe = subprocess.PIPE
    return subprocess.Popen([*FSMOUNT, *arguments], env=mount.environment, stdout=pipe, stderr=pipe, text=True)


def read_until(reader: int, text: bytes, seen: bytes = b"") -> bytes:
    """Everything that was printed up to `text`."""
    deadline = time.monotonic() + 15
    while text not in seen:
        assert time.monotonic() < deadline, f"{text!r} never came: {seen!r}"
        seen += os.read(reader, 1 << 16)
    return seen


# writeback list


def test_ops_a_line_each_and_the_same_as_json(mount: Mount) -> None:
    mount.server.rules(REFUSE + "PUT /slow/** delay=4s\n")
    mount.sh("echo a > $MOUNT/github/a.json")
    waited_for(mount, "dead-letter")
    mount.sh("echo b > $MOUNT/slow/b.txt")
    until(lambda: bool(listed(mount, "--state", "sending")), "the other is being sent")
    done = mount.fsmount("writeback", "list")
    dead, sending = done.stdout.splitlines()
    assert dead.split()[1:3] == ["dead-letter", "put"]
    assert dead.endswith("  rejected: the remote refused it: 422 schema_validation_failed: title is required")
    assert "  /github/a.json  " in dead
    assert sending.split()[1:5] == ["sending", "put", "2", "B"]
    assert "/slow/b.txt  being sent" in sending
    ops = listed(mount)
    assert [op["opId"] for op in ops] == [dead.split()[0], sending.split()[0]]
    assert ops[0] == json.loads(mount.fsmount("writeback", "show", ops[0]["opId"]).stdout)
    assert [op["opId"] for op in listed(mount, "--state", "dead-letter")] == [ops[0]["opId"]]
    assert listed(mount, "--state", "held") == []
    assert mount.fsmount("writeback", "list", "--state", "discarded", "--json").stdout.startswith("[")
    mount.server.rules("")


def test_a_name_with_control_characters_stays_on_its_line(mount: Mount) -> None:
    mount.server.rules(REFUSE)
    mount.sh(r"echo a > $MOUNT/github/$'bad\n\e[31mname'")
    (op,) = waited_for(mount, "dead-letter")
    for command in (("list",), ("status",), ("discard", "--opId", op["opId"])):
        told = mount.fsmount("writeback", *command).stdout
        assert "bad\\n\\x1b[31mname" in told
        assert "\x1b" not in told


def test_many_ops_are_listed_and_given_up_in_seconds(mount: Mount) -> None:
    mount.sh("echo pause > $MOUNT/.relay/ctl; mkdir $MOUNT/hundreds")
    mount.sh("cd $MOUNT/hundreds && for n in $(seq 300); do echo $n > n$n; done")
    started = time.monotonic()
    found = listed(mount)
    assert len(found) == 300
    done = mount.fsmount("writeback", "discard", "--opId", *[op["opId"] for op in found])
    assert (done.returncode, done.stdout.count("is given up")) == (0, 300)
    assert time.monotonic() - started < 10, "all of them by a few children, not each by one"
    assert mount.out("ls $MOUNT/hundreds") == ""


# held


def test_held_deletes_are_listed_waited_for_released_and_given_up(mount: Mount) -> None:
    ops = held(mount)
    assert mount.server.get("/many/0.txt") == b"x\n"
    told = mount.fsmount("writeback", "list").stdout.splitlines()
    assert [line.split()[1:3] for line in told] == [["held", "delete"]] * 12
    shown = json.loads(mount.fsmount("writeback", "show", ops[0]["opId"]).stdout)
    assert shown["state"] == "held"
    assert mount.fsmount("wait").stdout == "nothing was waiting\n12 ops held before: fsmount writeback status\n"

    done = mount.fsmount("writeback", "retry", "--opId", ops[0]["opId"], "--wait")
    assert done.returncode == 0, done
    assert mount.server.get(ops[0]["path"]) is None
    done = mount.fsmount("writeback", "discard", "--opId", *[op["opId"] for op in ops[1:]])
    assert (done.returncode, done.stdout.count("is given up")) == (0, 11)
    assert len(mount.out("ls $MOUNT/many").split()) == 11
    assert mount.fsmount("writeback", "list").stdout == ""


def test_waiting_for_what_the_brake_holds_is_1_and_names_the_commands(mount: Mount) -> None:
    mount.server.put_many({f"/later/{number}.txt": "x\n" for number in range(6)})
    until(lambda: mount.out("ls $MOUNT/later 2>/dev/null | wc -l") == "6\n", "they are seen")
    mount.sh("echo pause > $MOUNT/.relay/ctl; rm $MOUNT/later/[01].txt")
    with running(mount, "wait") as (process, reader):
        until(lambda: bool(children(process.pid)), "it looks")
        until(lambda: not children(process.pid), "it has looked")
        mount.sh("rm $MOUNT/later/[2345].txt")
        said = read_until(reader, b"2 held")
        assert process.wait(20) == 1
    assert b"delivered 0 of 2 ops" in said
    for op in waited_for(mount, "held", 6)[:2]:
        again = f"to delete it: fsmount writeback retry --opId {op['opId']}"
        assert f"fsmount: {op['opId']} {op['path']}: ".encode() in said
        assert f"{again}; to have it back: fsmount writeback discard --opId {op['opId']}\n".encode() in said


def children(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


# diff


def test_mine_against_theirs_and_against_the_base(mount: Mount) -> None:
    op = conflict(mount, "save.txt", r"one\n2\nthree\n", "one\ntwo\nTHREE\n")
    done = mount.fsmount("writeback", "diff", op["opId"])
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert lines[0].startswith("--- theirs /docs/save.txt")
    assert lines[1] == f"+++ mine /docs/save.txt {op['opId']}"
    assert lines[3:] == [" one", "-two", "-THREE", "+2", "+three"]
    done = mount.fsmount("writeback", "diff", op["opId"], str(mount.point), "--base")
    assert done.stdout.splitlines()[0] == f"--- base /docs/save.txt {op['baseRevision']}"
    assert done.stdout.splitlines()[3:] == [" one", "-two", "+2", " three"]


def test_what_was_deleted_there_is_nothing(mount: Mount) -> None:
    op = conflict(mount, "gone.txt", r"mine\n", None)
    assert op["reason"] == "remote-deleted"
    done = mount.fsmount("writeback", "diff", op["opId"])
    assert done.stdout.splitlines()[2:] == ["@@ -0,0 +1 @@", "+mine"]


def test_binary_versions_are_told_by_length_and_digest(mount: Mount) -> None:
    op = conflict(mount, "binary.txt", r"mine\n", b"\0\1\2")
    done = mount.fsmount("writeback", "diff", op["opId"])
    assert done.stdout.startswith("binary files differ:\n  theirs /docs/binary.txt")
    assert ": 3 B, sha256 ae4b3280" in done.stdout


def test_what_is_no_conflict_has_nothing_to_compare_with(mount: Mount) -> None:
    mount.server.rules(REFUSE)
    mount.sh("echo a > $MOUNT/github/a.json")
    (op,) = waited_for(mount, "dead-letter")
    done = mount.fsmount("writeback", "diff", op["opId"])
    assert (done.returncode, done.stdout) == (1, "")
    assert "is rejected, no conflict: no other version of /github/a.json is known" in done.stderr


# force


def test_mine_wins_when_forced_and_theirs_is_kept(mount: Mount) -> None:
    op = conflict(mount, "forced.txt", r"mine\n", "theirs\n")
    done = mount.fsmount("writeback", "retry", "--opId", op["opId"], "--wait")
    assert done.returncode == 1, "tried again with its own precondition it is the same conflict"
    done = mount.fsmount("writeback", "retry", "--force", "--op-id", op["opId"], "--wait", str(mount.point))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{op['opId']} will be saved over theirs: /docs/forced.txt\n" in done.stdout
    assert mount.server.get("/docs/forced.txt") == b"mine\n"
    kept = [one for one in listed(mount, "--state", "discarded") if one["path"] == "/docs/forced.txt"]
    assert "theirs\n" in [mount.out(f"cat $MOUNT/.relay/content/{one['opId']}") for one in kept]


def test_what_is_no_conflict_cannot_be_forced(mount: Mount) -> None:
    mount.server.rules(REFUSE)
    mount.sh("echo a > $MOUNT/github/a.json")
    (op,) = waited_for(mount, "dead-letter")
    done = mount.fsmount("writeback", "retry", "--force", "--opId", op["opId"])
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot be forced: it is rejected, no conflict" in done.stderr
    assert listed(mount)[0]["state"] == "dead-letter"


# status --watch


def test_watching_without_a_terminal_prints_what_changed(mount: Mount) -> None:
    with running(mount, "writeback", "status", "--watch") as (process, reader):
        seen = read_until(reader, b"health")
        mount.server.rules(REFUSE)
        mount.sh("echo a > $MOUNT/github/a.json")
        seen = read_until(reader, b"1 dead letter now", seen)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    assert seen.count(b"health") <= 5, "not every second anew"
    assert b"\x1b" not in seen


def test_watching_on_a_terminal_draws_over(mount: Mount) -> None:
    with running(mount, "writeback", "status", "--watch", terminal=True) as (process, reader):
        seen = read_until(reader, b"daemon")
        seen = read_until(reader, b"\x1b[2K", seen)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130


def test_no_color_means_plain_on_a_terminal_too(mount: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mount.environment, "NO_COLOR", "1")
    mount.server.rules("PUT /plain delay=4s\n")
    mount.sh("echo a > $MOUNT/plain")
    with running(mount, "writeback", "status", "--watch", terminal=True) as (_, reader):
        seen = read_until(reader, b"queue     0 pending, 1 sending")
        seen = read_until(reader, b"queue     0 pending, 0 sending", seen)
    mount.sh("echo b > $MOUNT/plain")
    with running(mount, "wait", terminal=True) as (process, reader):
        seen += read_until(reader, b"delivered 1 op")
        assert process.wait(10) == 0
    mount.server.rules("")
    assert b"\x1b" not in seen


def test_watching_goes_on_while_the_daemon_is_silent_or_gone(own: Mount) -> None:
    with running(own, "writeback", "status", "--watch") as (process, reader):
        seen = read_until(reader, b"health    ok")
        with stopped(own):
            seen = read_until(reader, f"does not answer\nfsmount: look at pid {own.pid}".encode(), seen)
        seen = read_until(reader, b"health    ok", seen.partition(b"does not answer")[2])
        own.umount()
        seen = read_until(reader, b"health    stopped", seen)
        own.start()
        read_until(reader, b"health    ok", seen.partition(b"health    stopped")[2])
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130


def test_watching_as_json_is_one_document_after_the_other(mount: Mount) -> None:
    with running(mount, "writeback", "status", "--watch", "--json") as (process, reader):
        seen = read_until(reader, b"\n}\n")
        process.send_signal(signal.SIGINT)
        process.wait(10)
    assert json.loads(seen)["schema"] == "fsmount.status/1"


# list


def test_the_mounts(mount: Mount) -> None:
    done = mount.fsmount("list")
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"{mount.point} ")]
    assert line.split()[1:] == [mount.server.remote, "ok", "0", "pending,", "0", "dead", "letters"]
    (row,) = [
        row for row in json.loads(mount.fsmount("list", "--json").stdout) if row["mountpoint"] == str(mount.point)
    ]
    assert (row["pid"], row["health"], row["stateDir"]) == (mount.pid, "ok", str(mount.state))
    assert row["queue"]["deadLetter"] == 0
    assert mount.fsmount("list", "--state-dir", str(mount.state)).stdout.startswith(f"{mount.point} ")


def test_a_mount_that_fails_is_left_stopped_and_dead(own: Mount) -> None:
    def row() -> Op:
        done = own.fsmount("list", "--json", "--state-dir", str(own.state))
        assert done.returncode == 0, done.stderr
        (found,) = json.loads(done.stdout)
        return dict(found)

    own.server.rules(REFUSE)
    own.sh("echo a > $MOUNT/github/a.json")
    waited_for(own, "dead-letter")
    until(lambda: row()["health"] == "failing", "the status says so")
    assert row()["hint"] == f"fsmount writeback status {own.point}"
    own.kill()
    again = f"fsmount mount {own.server.remote} {own.point} --state-dir {own.state}"
    assert (row()["health"], row()["queue"]["deadLetter"], row()["hint"]) == ("dead", 1, again)
    own.umount()
    assert (row()["health"], row()["queue"]["deadLetter"], row()["hint"]) == ("stopped", 1, again)


# without a daemon


def test_everything_again_without_daemon_server_and_token(own: Mount) -> None:
    own.server.put_many({f"/many/{number}.txt": "x\n" for number in range(6)})
    until(lambda: own.out("ls $MOUNT/many").count("\n") == 6, "they are seen")
    dispute = conflict(own, "save.txt", r"one\n2\n", "one\nTWO\n")
    own.server.rules(REFUSE)
    own.sh("echo a > $MOUNT/github/a.json; cd $MOUNT/many && rm *")
    waited_for(own, "held", 6)
    waited_for(own, "dead-letter", 2)
    live, compared = listed(own), own.fsmount("writeback", "diff", dispute["opId"]).stdout
    own.umount()
    own.server.stop()
    own.server.token_file.unlink()

    assert [op["opId"] for op in listed(own)] == [op["opId"] for op in live]
    assert [op["state"] for op in listed(own)] == [op["state"] for op in live]
    assert own.fsmount("writeback", "show", live[-1]["opId"]).returncode == 0
    done = own.fsmount("writeback", "diff", dispute["opId"])
    assert done.stdout.splitlines()[1:] == compared.splitlines()[1:]
    assert own.fsmount("wait").stdout.startswith("nothing was waiting\n2 older dead letters, 6 ops held before: ")
    first, second = [op["opId"] for op in live if op["state"] == "held"][:2]
    assert own.fsmount("writeback", "retry", "--opId", first).returncode == 0
    assert own.fsmount("writeback", "discard", "--opId", second).returncode == 0
    assert own.fsmount("writeback", "retry", "--force", "--opId", dispute["opId"]).returncode == 0
    states = {op["opId"]: op["state"] for op in listed(own)}
    assert (states[first], states[dispute["opId"]], second in states) == ("pending", "pending", False)
    assert [op["opId"] for op in listed(own, "--state", "discarded")] == [second]


# with a daemon that does not answer


def test_nothing_hangs_on_a_silent_mount(own: Mount) -> None:
    op = f"op_{'0' * 26}"
    commands = [
        ("writeback", "status"), ("writeback", "list"), ("writeback", "show", op), ("writeback", "diff", op),
        ("writeback", "retry", "--opId", op), ("writeback", "discard", "--all"), ("wait", "--timeout", "1"),
    ]  # fmt: skip
    with stopped(own):
        started = time.monotonic()
        asked = {command: begun(own, *command, str(own.point)) for command in commands}
        mounts = begun(own, "list", "--state-dir", str(own.state))
        for command, process in asked.items():
            out, said = process.communicate(timeout=20)
            assert (process.returncode, out) == (6, ""), command
            assert said.startswith(f"fsmount: error: the mount at {own.point} does not answer\n"), command
            assert f"fsmount: look at pid {own.pid}" in said
        out, _ = mounts.communicate(timeout=20)
        assert time.monotonic() - started < 15
        assert mounts.returncode == 0
        assert "not responding" in out
        assert f"look at pid {own.pid}" in out
    assert own.fsmount("writeback", "status").returncode == 0


def test_the_mount_is_found_from_within_it_even_while_it_is_silent(own: Mount) -> None:
    inside = own.point / "docs"
    own.sh("ls $MOUNT/docs")
    command = f"cd {inside} && kill -STOP {own.pid} && {Path(sys.executable).parent}/fsmount writeback status"
    try:
        done = own.sh(command, check=False)
    finally:
        os.kill(own.pid, signal.SIGCONT)
    assert done.returncode == 6, done
    assert f"the mount at {own.point} does not answer" in done.stderr


def test_mount_by_name_by_path_inside_and_before_the_options(mount: Mount) -> None:
    known = json.loads(mount.fsmount("list", "--json", "--state-dir", str(mount.state)).stdout)[0]["name"]
    for said in (str(mount.point), f"{mount.point}/docs/save.txt", known):
        assert mount.fsmount("writeback", "status", said, "--json").returncode == 0
        assert mount.fsmount("writeback", "list", "--json", said).returncode == 0
    assert mount.fsmount("writeback", "list", "/nowhere").returncode == 3
