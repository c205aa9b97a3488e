"""Damage to what the mount keeps: it is detected and named, reaches nothing but the ops concerned, and is never made
worse: what cannot be read is not written over.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fsmount.app.recovery import opened
from fsmount.clock import SystemClock
from fsmount.errors import JournalDamaged
from fsmount.journal import open_journal
from fsmount.model import Timing
from fsmount.spool import FileSpool
from fsmount.statedir import StateDirectory
from tests.support.mount import FSMOUNT, Mount, until
from tests.support.ops import letters, ops
from tests.support.server import RelayServer, serving

pytestmark = pytest.mark.mount
REMOTE = "relayfile+http://127.0.0.1:9/w"
AT_ONCE = Timing(settle=0, max_settle=0, delete_settle=0, open_settle=0)
QUIET = ("--settle", "60", "--max-settle", "60", "--open-settle", "60", "--drain", "0")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayServer]:
    with serving(tmp_path_factory.mktemp("damage") / "relay") as one:
        one.put("/desk/there.txt", "there\n")
        yield one


@pytest.fixture
def mount(tmp_path: Path, server: RelayServer) -> Iterator[Mount]:
    with Mount(tmp_path, server, *QUIET) as mounted:
        mounted.sh("cd $MOUNT/desk && for n in 1 2 3; do echo unsent-$n > $n.txt; done")
        until(lambda: len(ops(mounted, "pending")) == 3, "they are queued")
        yield mounted
        mounted.fsmount("writeback", "discard", "--all", str(mounted.point))


def kept(mount: Mount) -> dict[Path, bytes]:
    """The journal's files and every body."""
    return {
        path: path.read_bytes()
        for path in mount.state.rglob("*")
        if path.is_file() and (path.name.startswith("journal.db") or "spool" in path.parts)
        if not path.name.endswith("-shm") and not (path.name.endswith("-wal") and not path.stat().st_size)
    }


def flip(path: Path, at: int) -> None:
    """One bit of it."""
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 0x40]))


def cut_in_half(journal: Path) -> None:
    os.truncate(journal, journal.stat().st_size // 2)


def overwrite(journal: Path) -> None:
    journal.write_bytes(b"\xa5" * journal.stat().st_size)


def empty(journal: Path) -> None:
    os.truncate(journal, 0)


def flip_a_page(journal: Path) -> None:
    for at in range(4096, 4106):
        flip(journal, at)


@pytest.mark.parametrize("spoil", [cut_in_half, overwrite, empty, Path.unlink, flip_a_page])
def test_a_damaged_journal_is_not_opened_and_not_made_anew(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    state = used_state(tmp_path)
    spoil(state.journal)
    before = state.journal.read_bytes() if state.journal.exists() else None
    journal = opened(state, REMOTE, SystemClock(), AT_ONCE)
    assert str(state.journal) in journal.damage
    assert journal.rows() == 0
    journal.close()
    assert (state.journal.read_bytes() if state.journal.exists() else None) == before
    with pytest.raises(JournalDamaged):
        opened(state, "relayfile+http://127.0.0.1:9/another", SystemClock(), AT_ONCE)


def change_a_path(journal: Path) -> None:
    """One byte of a row, which its index does not follow."""
    content = journal.read_bytes()
    at = content.rindex(b"/desk/1.txt")
    flip(journal, at + len("/desk/"))


def leave_a_log(journal: Path, copy: Path) -> None:
    """As a crash leaves it, with all but the last commit in the database."""
    last = sqlite3.connect(journal, isolation_level=None)
    last.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    last.execute("INSERT INTO setting VALUES ('last', '')")
    shutil.copytree(journal.parent, copy)
    last.close()
    shutil.copytree(copy, journal.parent, dirs_exist_ok=True)


@pytest.mark.parametrize("spoil", [flip_a_page, change_a_path])
def test_looking_at_a_damaged_journal_changes_no_byte_of_it(
    mount: Mount, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    mount.kill()
    journal = mount.state / "journal.db"
    leave_a_log(journal, tmp_path / "copy")
    spoil(journal)
    before = kept(mount)
    assert journal.with_name("journal.db-wal") in before
    for command in ("writeback status", "writeback list", "list", "wait", "doctor", "umount"):
        where = [str(mount.point)] if command not in ("list", "doctor") else []
        done = mount.fsmount(*command.split(), *where)
        assert "damaged" in done.stdout + done.stderr, command
        assert "starting or ending" not in done.stdout
        assert kept(mount) == before, command
    mount.start()
    assert "damaged" in mount.out("cat $MOUNT/.relay/status")
    assert kept(mount) == before
    mount.umount()
    assert kept(mount) == before


def used_state(folder: Path) -> StateDirectory:
    """A state directory that belongs to a remote."""
    state = StateDirectory(folder / "state").create()
    state.claim_for(REMOTE, "1")
    state.lock()
    state.unlock()
    open_journal(state.journal, SystemClock(), AT_ONCE).close()
    FileSpool(state.spool)
    return state


def test_with_a_damaged_journal_the_mount_is_read_only_and_says_so(mount: Mount) -> None:
    assert mount.umount().returncode == 0
    journal = mount.state / "journal.db"
    flip_a_page(journal)
    before = kept(mount)
    done = mount.fsmount("writeback", "list", "--state-dir", str(mount.state))
    assert done.returncode == 5
    assert str(mount.state) in done.stderr

    mounting = mount.fsmount("mount", mount.remote, str(mount.point), "--state-dir", str(mount.state),
                             "--token-file", str(mount.server.token_file))  # fmt: skip
    assert mounting.returncode == 0, mounting.stderr
    mount.pid = int(mounting.stdout.split("pid ")[1].split()[0])
    assert f"warning: the journal {journal}" in mounting.stderr
    assert "read-only" in mounting.stderr
    assert mount.out("cat $MOUNT/desk/there.txt") == "there\n"
    assert "Read-only" in mount.sh("echo x > $MOUNT/desk/new.txt", check=False).stderr
    status = mount.status()
    assert (status["health"], status["queue"]["pending"]) == ("failing", 0)
    assert str(journal) in mount.out("sed -n 2p $MOUNT/.relay/status")
    assert str(journal) in mount.out("cat $MOUNT/.relay/problems")
    assert "read-only, and the files stay" in mount.log()
    assert status["damage"].startswith(f"the journal {journal} is damaged: ")
    for command in ("writeback list", "writeback status", "wait"):
        done = mount.fsmount(*command.split(), str(mount.point))
        assert (done.returncode, done.stdout) == (5, ""), command
        assert str(journal) in done.stderr
        assert JournalDamaged.WAY_OUT in done.stderr
    assert "Input/output error" in mount.sh("sync $MOUNT/.relay", check=False).stderr
    assert "sync.failed" in mount.log()
    doctor = mount.fsmount("doctor")
    assert doctor.returncode == 5
    assert any(line.startswith("FAIL") and str(journal) in line for line in doctor.stdout.splitlines())
    listed = mount.fsmount("list")
    # The machine may have other mounts.
    (line,) = [line for line in listed.stdout.splitlines() if line.startswith(f"{mount.point} ")]
    assert (listed.returncode, "pending" in line, str(journal) in listed.stdout) == (0, False, True)
    done = mount.umount()
    assert (done.returncode, str(journal) in done.stderr) == (1, True)
    assert kept(mount) == before


def test_a_damaged_log_loses_no_body(mount: Mount) -> None:
    """What SQLite cannot read of its log it forgets: the bodies of those ops are kept where nothing removes them."""
    bodies = {path.read_bytes() for path in (mount.state / "spool/drafts").iterdir()}
    mount.kill()
    log = mount.state / "journal.db-wal"
    flip(log, 32 + 24 + 100)
    mount.start()
    assert "kept in" in mount.log()
    assert {path.read_bytes() for path in (mount.state / "spool/apart").iterdir()} == bodies
    assert mount.out("cat $MOUNT/desk/there.txt") == "there\n"


def test_what_a_damaged_log_forgot_is_told_until_it_is_removed(mount: Mount) -> None:
    mount.kill()
    flip(mount.state / "journal.db-wal", 32 + 24 + 100)
    mount.fsmount("writeback", "list", str(mount.point))
    mounting = mount.fsmount("mount", mount.remote, str(mount.point), "--state-dir", str(mount.state),
                             "--token-file", str(mount.server.token_file))  # fmt: skip
    mount.pid = int(mounting.stdout.split("pid ")[1].split()[0])
    kept = mount.state / "spool/apart"
    assert "warning: the end of the journal was forgotten" in mounting.stderr
    status = mount.out("cat $MOUNT/.relay/status")
    assert "health    failing: the journal forgot changes: 3 files" in status
    for told in (mounting.stderr, status, mount.fsmount("doctor").stdout):
        assert f"3 files (27 B) of changes that were not sent are kept in {kept}" in told
    problems = [json.loads(line) for line in mount.out("cat $MOUNT/.relay/problems").splitlines()]
    assert {problem["path"] for problem in problems} == {str(path) for path in kept.iterdir()}
    assert all("holds 9 B of a change of 20" in problem["why"] for problem in problems)
    done = mount.umount()
    assert "3 files of changes that the journal forgot" in done.stdout
    assert "apart     the end of the journal was forgotten" in mount.fsmount("writeback", "status").stdout
    shutil.rmtree(kept)
    mount.start()
    assert mount.status()["health"] == "ok"
    assert mount.out("cat $MOUNT/.relay/problems") == ""


def test_damaged_and_missing_bodies_concern_their_ops_alone(mount: Mount) -> None:
    mount.kill()
    one, two, _ = sorted((mount.state / "spool/drafts").iterdir())
    flip(one, 3)
    two.unlink()
    mount.start("--settle", "0.1")
    until(lambda: mount.server.get("/desk/3.txt") == b"unsent-3\n", "the sound one is delivered")
    found = {letter["path"]: letter["reason"] for letter in letters(mount, 2)}
    assert found == {"/desk/1.txt": "corrupt-spool", "/desk/2.txt": "corrupt-spool"}
    assert "corrupt-spool" in mount.log()
    assert mount.server.get("/desk/1.txt") is None
    mount.server.delete("/desk/3.txt")


UNPRIVILEGED = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-dac_override")
"""For root: the modes of its own files bind it as they do everybody."""


@pytest.mark.parametrize("name", ["journal.db", "remote.json", "lock", "spool", "spool/drafts", "spool/bodies/00"])
def test_what_may_not_be_read_is_named_and_stays(tmp_path: Path, name: str) -> None:
    state = used_state(tmp_path)
    place = state.path / name
    place.chmod(0o400 if name == "journal.db" else 0)
    as_everybody = UNPRIVILEGED if os.getuid() == 0 else ()
    listing = [*as_everybody, *FSMOUNT, "writeback", "list", "--state-dir", str(state.path)]
    done = subprocess.run(listing, capture_output=True, text=True, check=False, timeout=20)
    place.chmod(0o700)
    assert done.returncode == 7, done.stderr
    assert str(state.path) in done.stderr
    assert "ermission denied" in done.stderr


def test_a_state_directory_that_is_removed_under_a_mount_is_told(mount: Mount) -> None:
    shutil.rmtree(mount.state)
    for command in ("echo x > new.txt", "echo more >> 1.txt", "rm there.txt", "mv 2.txt 4.txt"):
        done = mount.sh(f"cd $MOUNT/desk && {command}", check=False)
        assert "Input/output error" in done.stderr, command
    assert mount.out("cat $MOUNT/desk/there.txt") == "there\n"
    assert mount.status()["health"] == "failing"
    assert "was removed or replaced" in mount.out("cat $MOUNT/.relay/status")
    assert "was removed or replaced" in mount.out("cat $MOUNT/.relay/log")
    assert mount.umount().returncode == 0
