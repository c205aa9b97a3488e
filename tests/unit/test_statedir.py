"""One user at a time, one remote at a time; the lock is the kernel's and dies with its holder."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from fsmount import statedir
from fsmount.errors import MachineLacks, StateError
from fsmount.statedir import SCHEMA, StateDirectory

REMOTE = "relayfile+http://127.0.0.1:8080/local"
LOCK_AND_STAY = """
import sys
from pathlib import Path
from fsmount.statedir import StateDirectory
StateDirectory(Path(sys.argv[1])).create().lock(serving=True, drain=7.0)
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_program_locks(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", LOCK_AND_STAY, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        yield other
        other.kill()


def test_it_is_made_for_its_owner_only(tmp_path: Path) -> None:
    StateDirectory(tmp_path / "deep" / "state").create()
    assert stat.S_IMODE((tmp_path / "deep" / "state").stat().st_mode) == 0o700


def test_a_place_that_cannot_be_a_directory_is_this_machines_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineLacks, match="state directory") as caught:
        StateDirectory(tmp_path / "file" / "state").create()
    assert caught.value.exit_code == 7
    assert caught.value.hint is not None


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission_is_this_machines_fault(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(MachineLacks):
        StateDirectory(tmp_path).create()


def test_a_second_program_is_told_who_has_it(tmp_path: Path) -> None:
    with another_program_locks(tmp_path) as other:
        with pytest.raises(StateError, match=f"pid {other.pid} serves a mount") as caught:
            StateDirectory(tmp_path).lock(patience=0.05)
        assert caught.value.exit_code == 5
        holder = StateDirectory(tmp_path).holder()
    assert holder is not None
    assert (holder.pid, holder.serving, holder.drain, holder.here) == (other.pid, True, 7.0, True)


def test_the_lock_dies_with_its_holder(tmp_path: Path) -> None:
    with another_program_locks(tmp_path) as other:
        os.kill(other.pid, signal.SIGKILL)
        other.wait(10)
        assert StateDirectory(tmp_path).holder() is None
        StateDirectory(tmp_path).lock(patience=0.0)


def test_asking_who_has_it_does_not_take_it(tmp_path: Path) -> None:
    mine = StateDirectory(tmp_path).create()
    assert mine.holder() is None
    mine.lock()
    assert mine.holder() is not None
    assert StateDirectory(tmp_path).holder() is not None
    mine.unlock()
    assert StateDirectory(tmp_path).holder() is None


def test_a_short_use_is_waited_for(tmp_path: Path) -> None:
    release = "import time; time.sleep(0.2)"
    script = LOCK_AND_STAY.replace("sys.stdin.read()", release)
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        StateDirectory(tmp_path).lock(patience=20.0)


def test_a_holder_of_another_host_is_not_here(tmp_path: Path) -> None:
    with another_program_locks(tmp_path):
        text = (tmp_path / "lock").read_bytes()
        (tmp_path / "lock").write_bytes(text.replace(os.uname().nodename.encode(), b"elsewhere.example"))
        holder = StateDirectory(tmp_path).holder()
        assert holder is not None
        assert not holder.here
        assert "elsewhere.example" in str(holder)


def test_a_lock_without_a_readable_name_is_still_a_lock(tmp_path: Path) -> None:
    with another_program_locks(tmp_path):
        (tmp_path / "lock").write_bytes(b"garbage")
        holder = StateDirectory(tmp_path).holder()
        assert holder is not None
        assert holder.pid == 0
        with pytest.raises(StateError):
            StateDirectory(tmp_path).lock(patience=0.0)


def test_it_remembers_its_remote(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    assert state.identity() is None
    assert not state.check_remote(REMOTE, held=3)
    state.claim_for(REMOTE, "0.1.0")
    assert state.check_remote(REMOTE, held=3)


def test_another_remote_is_refused_while_ops_remain(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    state.claim_for(REMOTE, "0.1.0")
    with pytest.raises(StateError, match="it holds 2 of its ops"):
        state.check_remote("relayfile+http://other/w", held=2)
    assert not state.check_remote("relayfile+http://other/w", held=0)


def test_a_newer_version_is_refused_and_untouched(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    newer = msgspec.json.encode({"remote": REMOTE, "schema": SCHEMA + 1, "version": "9.0"})
    (tmp_path / "remote.json").write_bytes(newer)
    with pytest.raises(StateError, match=r"newer fsmount \(9\.0\)"):
        state.check_remote(REMOTE, held=0)
    assert (tmp_path / "remote.json").read_bytes() == newer


def test_a_damaged_identity_is_refused(tmp_path: Path) -> None:
    (tmp_path / "remote.json").write_bytes(b'{"remote":')
    with pytest.raises(StateError, match="damaged"):
        StateDirectory(tmp_path).identity()


def test_a_failed_first_mount_leaves_nothing(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state").create()
    state.lock(serving=True)
    (tmp_path / "state" / "journal.db").write_text("")
    state.abandon()
    assert not (tmp_path / "state").exists()


def test_what_was_there_before_is_never_abandoned(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "journal.db").write_text("precious")
    StateDirectory(tmp_path / "state").create().abandon()
    assert (tmp_path / "state" / "journal.db").read_text() == "precious"


def test_a_drain_is_asked_for_once(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    assert state.asked_drain() is None
    state.ask_drain(2.5)
    assert state.asked_drain() == 2.5
    assert state.asked_drain() is None


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "soon", ""])
def test_a_drain_that_is_no_time_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "drain").write_text(text)
    assert StateDirectory(tmp_path).asked_drain() is None


def test_a_new_daemon_forgets_the_drain_of_an_old_one(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    state.ask_drain(99.0)
    state.lock(serving=True)
    assert state.asked_drain() is None


ELSEWHERE = """
import fcntl, sys
from pathlib import Path
lock = open(Path(sys.argv[1]) / "lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
lock.write(sys.argv[2]); lock.flush()
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def a_lock_that_says(path: Path, **said: object) -> Iterator[None]:
    """Held by a program of this kernel, which says to be somebody else."""
    own = {"pid": 7, "host": os.uname().nodename, "pidNamespace": os.readlink("/proc/self/ns/pid"), "startedAt": 1000.0}
    text = msgspec.json.encode(own | said).decode()
    with subprocess.Popen(
        [sys.executable, "-c", ELSEWHERE, str(path), text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        yield
        other.kill()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"host": "elsewhere"}, "another host or container"),
        ({"pidNamespace": "pid:[1]"}, "another host or container"),
        ({"pid": os.getpid()}, f"pid {os.getpid()} "),
        ({"pid": 2**22 - 1}, f"pid {2**22 - 1} "),
    ],
    ids=["host", "namespace", "pid used again", "pid of nobody"],
)
def test_a_lock_of_nobody_here_is_broken_only_on_request(tmp_path: Path, said: dict[str, object], words: str) -> None:
    with a_lock_that_says(tmp_path, **said):
        with pytest.raises(StateError, match=words) as caught:
            StateDirectory(tmp_path).lock(patience=0.0)
        assert "--break-lock" in (caught.value.hint or "")
        mine = StateDirectory(tmp_path)
        mine.lock(patience=0.0, break_lock=True)
        assert mine.holder() is not None
        with pytest.raises(StateError, match=f"pid {os.getpid()} "):
            StateDirectory(tmp_path).lock(patience=0.0, break_lock=True)
        mine.settle()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["lock"]
        mine.unlock()
        assert StateDirectory(tmp_path).holder() is None


def test_a_start_that_fails_puts_the_broken_lock_back(tmp_path: Path) -> None:
    with a_lock_that_says(tmp_path, host="elsewhere"):
        for _ in range(2):
            mine = StateDirectory(tmp_path)
            mine.lock(patience=0.0, break_lock=True)
            mine.unlock()
            with pytest.raises(StateError, match="elsewhere"):
                StateDirectory(tmp_path).lock(patience=0.0)
            assert sorted(path.name for path in tmp_path.iterdir()) == ["lock"]


def test_a_lock_of_a_program_here_is_never_broken(tmp_path: Path) -> None:
    with another_program_locks(tmp_path) as other, pytest.raises(StateError, match=f"pid {other.pid} "):
        StateDirectory(tmp_path).lock(patience=0.0, break_lock=True)


@pytest.mark.parametrize("started", [1000.0, 9e9], ids=["clock went forward", "clock went back"])
def test_a_clock_that_jumps_makes_a_living_holder_no_other_program(tmp_path: Path, started: float) -> None:
    with another_program_locks(tmp_path) as other:
        said = msgspec.json.decode((tmp_path / "lock").read_bytes())
        (tmp_path / "lock").write_bytes(msgspec.json.encode(said | {"startedAt": started}))
        with pytest.raises(StateError, match=f"pid {other.pid} "):
            StateDirectory(tmp_path).lock(patience=0.0, break_lock=True)


def test_what_is_left_of_a_holder_elsewhere_is_no_lock(tmp_path: Path) -> None:
    """On a disk of this host the kernel decides: a container that was killed does not hold up the next one."""
    with a_lock_that_says(tmp_path, host="elsewhere"):
        pass
    StateDirectory(tmp_path).lock(patience=0.0)


def test_on_a_disk_of_another_host_what_is_left_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statedir, "_is_remote", lambda _: True)
    with a_lock_that_says(tmp_path, host="elsewhere"):
        pass
    with pytest.raises(StateError, match="elsewhere"):
        StateDirectory(tmp_path).lock(patience=0.0)
    StateDirectory(tmp_path).lock(patience=0.0, break_lock=True)


def test_a_waiter_is_not_fooled_by_a_lock_that_was_replaced(tmp_path: Path) -> None:
    with a_lock_that_says(tmp_path, host="elsewhere"):
        waiting = StateDirectory(tmp_path)
        descriptor = waiting._open_lock()
        StateDirectory(tmp_path).lock(patience=0.0, break_lock=True)
    assert not waiting._is_current(descriptor), "the old file is free by now, and nobody's"
    os.close(descriptor)


def test_what_a_failed_start_made_goes_and_what_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("")
    for path in (tmp_path / "a/b/c", tmp_path):
        state = StateDirectory(path).create()
        state.lock()
        state.spool.mkdir()
        state.abandon()
        assert [one.name for one in tmp_path.iterdir()] == ["own"]
