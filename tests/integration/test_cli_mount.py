"""The life of a mount by its commands: up, in the way, in use, dead, wedged, away."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from fsmount.mounttable import mounted_at
from tests.support.mount import FSMOUNT, Mount, until
from tests.support.server import RelayServer, serving

pytestmark = pytest.mark.mount


@pytest.fixture
def unmounted(tmp_path: Path, relay_server: RelayServer) -> Mount:
    """A mount point and a server, not mounted yet."""
    relay_server.put("/github/issues/7.json", '{"state": "open"}\n')
    mount = Mount(tmp_path, relay_server)
    mount.point.mkdir()
    return mount


def mounting(mount: Mount, *options: str, point: Path | None = None) -> subprocess.CompletedProcess[str]:
    """``fsmount mount``, however it ends, with the default state directory."""
    token = ("--token-file", str(mount.server.token_file))
    return mount.fsmount("mount", mount.server.remote, str(point or mount.point), *token, *options)


def gone(pid: int) -> bool:
    """Whether the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def registrations(mount: Mount) -> list[Path]:
    return list((mount.folder / "xdg-state/fsmount/mounts").glob("*.json"))


def test_up_and_away(unmounted: Mount) -> None:
    with unmounted as mount:
        line = mounted_at(str(mount.point))
        assert line is not None
        assert (line.fstype, line.source) == ("fuse.fsmount", mount.server.remote)
        assert mount.out("cat $MOUNT/github/issues/7.json") == '{"state": "open"}\n'

        done = mount.umount()
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"unmounted {mount.point}; everything was delivered\n"
        assert mounted_at(str(mount.point)) is None
        assert gone(mount.pid)
        assert registrations(mount) == []
        assert mount.umount().returncode == 3


def test_it_says_where_everything_is(unmounted: Mount) -> None:
    with unmounted as mount:
        mount.umount()
        said = mount.start().splitlines()
        assert said == [
            f"mounted {mount.server.remote} at {mount.point}",
            f"state {mount.state}",
            f"log {mount.state}/log",
            f"pid {mount.pid}",
        ]
        assert "mounted" in (mount.state / "log").read_text()


def test_the_registration_says_which_mount(unmounted: Mount) -> None:
    unmounted.options = ("--name", "work")
    with unmounted as mount:
        (file,) = registrations(mount)
        known = json.loads(file.read_text())
        assert set(known) == {"mountpoint", "name", "remote", "stateDir", "pid", "startedAt"}
        assert (known["mountpoint"], known["name"], known["pid"]) == (str(mount.point), "work", mount.pid)
        for text in ("work", str(mount.point), f"{mount.point}/github/issues"):
            assert mount.fsmount("writeback", "status", text).returncode == 0
        shell = " ".join(FSMOUNT)
        assert "health" in mount.out(f"cd $MOUNT/github && {shell} writeback status")


def test_what_is_said_of_places_owners_and_modes_holds(unmounted: Mount) -> None:
    owner = ("--uid", str(os.getuid()), "--gid", str(os.getgid()), "--umask", "027")
    unmounted.options = ("--name", "work", "--debug", "--log", "lines", *owner)
    with unmounted as mount:
        log = mount.folder / "lines"
        assert mount.out("stat -c '%u %g %a' $MOUNT/github") == f"{os.getuid()} {os.getgid()} 750\n"
        assert mount.out("stat -c %a $MOUNT/github/issues/7.json") == "640\n"
        mount.sh("echo new > $MOUNT/github/issues/7.json")
        until(lambda: " debug op.sending " in log.read_text(), "the attempt is logged")
        assert not (mount.state / "log").exists()
        assert (mount.folder / "cache/cache.db").exists()
        assert not (mount.folder / "xdg-cache").exists()


def test_two_mounts_of_one_name_are_told_apart_by_their_place(unmounted: Mount) -> None:
    unmounted.options = ("--name", "work")
    elsewhere = unmounted.folder / "elsewhere"
    elsewhere.mkdir()
    with unmounted as mount:
        more = ("--name", "work", "--state-dir", str(mount.folder / "other"), "--cache-dir", str(mount.folder / "kept"))
        assert mounting(mount, *more, point=elsewhere).returncode == 0
        try:
            done = mount.fsmount("writeback", "status", "work")
            assert (done.returncode, str(mount.point) in done.stderr, str(elsewhere) in done.stderr) == (2, True, True)
            done = mount.fsmount("writeback", "status", str(elsewhere))
            assert (done.returncode, done.stdout.splitlines()[0]) == (0, f"{mount.remote} at {elsewhere}")
        finally:
            assert mount.fsmount("umount", str(elsewhere)).returncode == 0


def test_a_second_mount_is_told_who_has_it(unmounted: Mount) -> None:
    with unmounted as mount:
        again = mounting(mount)
        assert again.returncode == 5
        assert f"pid {mount.pid}" in again.stderr
        (mount.folder / "elsewhere").mkdir()
        same_state = mounting(mount, "--state-dir", str(mount.state), point=mount.folder / "elsewhere")
        assert same_state.returncode == 5
        assert f"pid {mount.pid}" in same_state.stderr


def test_a_first_mount_without_its_remote_leaves_nothing(unmounted: Mount) -> None:
    unmounted.server.stop()
    done = mounting(unmounted, "--timeout", "3")
    assert done.returncode == 4, done.stderr
    assert done.stderr.startswith("fsmount: error: ")
    assert mounted_at(str(unmounted.point)) is None
    assert not [path for path in (unmounted.folder / "xdg-state").rglob("*") if path.is_file()]


def test_a_refused_credential_is_4_and_is_not_shown(unmounted: Mount) -> None:
    wrong = unmounted.folder / "wrong"
    wrong.write_text("a-secret-token\n")
    wrong.chmod(0o600)
    done = mounting(unmounted, "--token-file", str(wrong))
    assert done.returncode == 4
    assert "a-secret-token" not in done.stderr


def test_in_the_foreground_it_ends_by_sigterm(unmounted: Mount) -> None:
    server = unmounted.server
    argv = [*FSMOUNT, "mount", "-f", server.remote, str(unmounted.point), "--token-file", str(server.token_file)]
    with subprocess.Popen(argv, env=unmounted.environment, stdout=subprocess.PIPE, text=True) as process:
        unmounted.pid = process.pid
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(4)]
            assert lines[3] == f"pid {process.pid}\n"
            assert unmounted.out("ls $MOUNT/github") == "issues\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            assert mounted_at(str(unmounted.point)) is None
        finally:
            unmounted.end()


def test_a_mount_in_use_is_not_taken_from_its_users(unmounted: Mount) -> None:
    with unmounted as mount:
        with subprocess.Popen(
            ["sh", "-c", "cd $MOUNT/github && echo in && exec sleep 60"],
            env=mount.environment, stdout=subprocess.PIPE, text=True,
        ) as user:  # fmt: skip
            assert user.stdout is not None
            assert user.stdout.readline() == "in\n"
            until(lambda: Path(f"/proc/{user.pid}/comm").read_text() == "sleep\n", "sleep sleeps")
            done = mount.umount()
            assert done.returncode == 1
            assert f"pid {user.pid} (sleep): stands in {mount.point}/github" in done.stderr
            assert not gone(mount.pid)
            assert mount.out("ls $MOUNT/github") == "issues\n"
            done = mount.umount("--lazy", "--drain", "1")
            assert done.returncode == 0, done.stderr
            user.kill()
        assert mounted_at(str(mount.point)) is None
        assert gone(mount.pid)


def test_a_dead_mount_is_seen_taken_over_and_cleared(unmounted: Mount) -> None:
    with unmounted as mount:
        mount.kill()
        assert "not connected" in mount.sh("ls $MOUNT", check=False).stderr
        done = mount.fsmount("writeback", "status", str(mount.point))
        assert (done.returncode, "stopped" in done.stdout) == (0, True), done.stderr
        mount.start()
        assert mount.out("ls $MOUNT/github") == "issues\n"
        mount.kill()
        done = mount.umount()
        assert done.returncode == 0, done.stderr
        assert mounted_at(str(mount.point)) is None


def test_a_silent_daemon_is_6_and_named(unmounted: Mount) -> None:
    with unmounted as mount:
        os.kill(mount.pid, signal.SIGSTOP)
        try:
            for argv in (("writeback", "status"), ("wait",)):
                done = mount.fsmount(*argv)
                assert done.returncode == 6, (argv, done.stderr)
                assert f"pid {mount.pid}" in done.stderr
            assert mounting(mount).returncode == 6
        finally:
            os.kill(mount.pid, signal.SIGCONT)
        assert mount.fsmount("writeback", "status").returncode == 0


def test_unmounting_delivers_first(tmp_path: Path, relay_server: RelayServer) -> None:
    with Mount(tmp_path, relay_server, "--settle", "2") as mount:
        done = mount.sh(f"echo late > $MOUNT/new.txt && {' '.join(FSMOUNT)} umount $MOUNT")
        assert done.stdout == f"unmounted {mount.point}; everything was delivered\n"
        assert relay_server.get("/new.txt") == b"late\n"


def test_what_cannot_be_delivered_waits_for_the_next_mount(unmounted: Mount) -> None:
    with unmounted as mount:
        mount.sh("ls $MOUNT/github")
        mount.server.rules("* /** refuse\n")
        mount.sh("echo kept > $MOUNT/github/new.txt")
        done = mount.umount("--drain", "0.5")
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"unmounted {mount.point}; 1 op waits for the next mount\n"
        assert mount.fsmount("wait", str(mount.point)).returncode == 1
        mount.server.rules("")
        mount.start()
        mount.delivered()
        assert mount.server.get("/github/new.txt") == b"kept\n"


def test_a_drain_is_as_long_as_asked(unmounted: Mount) -> None:
    """The mount's own is 10 s; the one asked for must count, and only once."""
    with unmounted as mount:
        mount.sh("ls $MOUNT/github")
        mount.server.rules("* /** refuse\n")
        mount.sh("echo kept > $MOUNT/github/new.txt")
        os.kill(mount.pid, 0)
        done = subprocess.run(
            ["timeout", "8", *FSMOUNT, "umount", "--drain", "0.5", str(mount.point)],
            env=mount.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done


def test_two_servers_two_mounts(tmp_path: Path, unmounted: Mount) -> None:
    with unmounted, serving(tmp_path / "second") as other:
        (tmp_path / "more").mkdir()
        second = Mount(tmp_path / "more", other)
        second.environment |= {name: unmounted.environment[name] for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME")}
        with second:
            done = unmounted.fsmount("writeback", "status")
            assert done.returncode == 2
            assert str(second.point) in done.stderr
            assert unmounted.fsmount("writeback", "status", str(second.point)).returncode == 0
