"""Every way to end is one line and an exit code; commands run as subprocesses, as people run them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fsmount import __version__


def fsmount(*argv: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FSMOUNT_")}
    kept |= {"XDG_STATE_HOME": str(home / "state"), "XDG_CACHE_HOME": str(home / "cache")}
    kept |= {"XDG_CONFIG_HOME": str(home / "config"), **environment}
    return subprocess.run(
        [sys.executable, "-m", "fsmount", *argv],
        env=kept,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


COMMANDS = [
    (), ("mount",), ("umount",), ("list",), ("wait",), ("doctor",), ("serve",), ("try",), ("writeback",),
    ("writeback", "status"), ("writeback", "list"), ("writeback", "show"), ("writeback", "diff"),
    ("writeback", "retry"), ("writeback", "discard"),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(tmp_path: Path, command: tuple[str, ...]) -> None:
    done = fsmount(*command, "--help", home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: {' '.join(('fsmount', *command))}")
    assert max(len(line) for line in done.stdout.splitlines()) <= 100


def test_the_version(tmp_path: Path) -> None:
    assert fsmount("--version", home=tmp_path).stdout == f"fsmount {__version__}\n"


def test_without_a_command_it_helps_and_says_that_this_is_no_use(tmp_path: Path) -> None:
    done = fsmount(home=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: fsmount")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("nope",), "No such command 'nope'"),
        (("list", "/somewhere"), "unexpected extra argument"),
        (("writeback", "diff"), "Missing argument 'OP'"),
        (("writeback", "status", "/a", "/b"), "unexpected extra argument"),
        (("writeback", "list", "--state", "lost"), "is not one of 'pending', 'sending', 'held'"),
        (("writeback", "retry", "--all", "/a", "/b"), "one mount at a time, not /a and /b"),
        (("writeback", "discard", "--all", "--force"), "No such option '--force'"),
        (("writeback", "status", "/a", "--state-dir", "/b"), "both say which mount"),
        (("mount", "relayfile+http://h/w"), "Missing argument 'MOUNTPOINT'"),
        (("mount", "--write-threw", "relayfile+http://h/w", "/x"), "No such option"),
        (("umount",), "say which mount"),
        (("wait", "--timeout", "0"), "more than 0"),
        (("wait", "--timeout", "nan"), "no number of seconds"),
        (("serve", "--listen", "here"), "no HOST:PORT"),
        (("serve", "--listen", "h:99999"), "no HOST:PORT"),
        (("serve", "--jwks", "file:///etc/passwd"), "no HTTP URL"),
        (("serve", "--jwks", "https:///keys"), "no HTTP URL"),
        (("serve", "--body-cap", "0"), "x>=1"),
        (("writeback", "retry"), "exactly one of --opId, --all, --provider"),
        (("writeback", "retry", "--all", "--opId", "op_1"), "exactly one of"),
        (("writeback", "discard"), "exactly one of --opId, --all"),
    ],
)
def test_misuse_is_2_and_one_clear_line(tmp_path: Path, argv: tuple[str, ...], says: str) -> None:
    done = fsmount(*argv, home=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("fsmount: error: ")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_without_mounts_status_says_so_and_is_0(tmp_path: Path) -> None:
    done = fsmount("writeback", "status", home=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "no mounts\n", "")


def test_without_mounts_there_are_no_ops_to_list(tmp_path: Path) -> None:
    done = fsmount("writeback", "list", home=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "no mounts\n", "")
    assert fsmount("writeback", "list", "--json", home=tmp_path).stdout == "[]\n"


def test_without_mounts_status_json_has_the_members_of_a_mount(tmp_path: Path) -> None:
    import json

    done = fsmount("writeback", "status", "--json", home=tmp_path)
    told = json.loads(done.stdout)
    assert done.returncode == 0
    assert told["schema"] == "fsmount.status/1"
    assert told["queue"]["deadLetter"] == 0
    assert told["deadLetters"] == []


@pytest.mark.parametrize(
    "argv",
    [
        ("umount", "/nowhere"), ("wait", "/nowhere"), ("wait",), ("writeback", "status", "/nowhere"),
        ("writeback", "show", "op_1"), ("writeback", "retry", "--all"), ("writeback", "diff", "op_1"),
        ("writeback", "list", "/nowhere"), ("list", "--state-dir", "/nowhere"),
        ("writeback", "status", "--state-dir", "/nowhere"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_an_unknown_mount_is_3(tmp_path: Path, argv: tuple[str, ...]) -> None:
    done = fsmount(*argv, home=tmp_path)
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("fsmount: error: ")


def test_a_reader_that_stops_is_no_error(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "fsmount", "--help"],
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=30,
        check=False,
        cwd=tmp_path,
    )
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 141


def test_without_stdout_it_does_not_break(tmp_path: Path) -> None:
    command = f"exec {sys.executable} -m fsmount writeback status >&- 2>&-"
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    assert subprocess.run(["sh", "-c", command], env=environment, timeout=30, check=False).returncode == 0


UNEXPECTED = """
import sys
import fsmount.cli.writeback as writeback
def broken(*_): raise ZeroDivisionError("oh")
writeback.find = broken
from fsmount.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.parametrize("debug", [False, True])
def test_the_unexpected_is_one_line_without_debug(tmp_path: Path, debug: bool) -> None:
    argv = [*(["--debug"] if debug else []), "writeback", "status"]
    done = subprocess.run(
        [sys.executable, "-c", UNEXPECTED, *argv], capture_output=True, text=True, timeout=30, check=False, cwd=tmp_path
    )
    assert done.returncode == 1
    assert "fsmount: error: unexpected: ZeroDivisionError: oh" in done.stderr
    assert ("Traceback" in done.stderr) is debug


def test_small_commands_do_not_load_what_they_do_not_need(tmp_path: Path) -> None:
    script = (
        "import sys; from fsmount.cli.main import run; run(['writeback', 'status']); "
        "print([name for name in ('httpx', 'trio', 'pyfuse3', 'rich', 'fsmount.journal') if name in sys.modules])"
    )
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout == "no mounts\n[]\n"


def test_interrupted_is_130(tmp_path: Path) -> None:
    import signal

    with subprocess.Popen(
        [sys.executable, "-m", "fsmount", "try", "--keep"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PATH": "/nowhere", "TMPDIR": str(tmp_path)}, cwd=tmp_path,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 20
        while not list(tmp_path.glob("fsmount-try-*/mount")):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "fsmount: error: interrupted\n")
    assert not list(tmp_path.glob("fsmount-try-*")), "what was set up is taken down"
