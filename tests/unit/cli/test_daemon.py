"""Going into the background, with real processes; what is served is a stand-in given to ``launch``."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAM = """
import json, os, sys, time
from fsmount.cli.daemon import launch, StartFailed
from fsmount.errors import FsmountError, RemoteError

facts = sys.argv[1]

def good(ready):
    names = [name for name in os.listdir("/proc/self/fd") if int(name) > 2]
    links = [os.readlink(f"/proc/self/fd/{name}") for name in names if os.path.lexists(f"/proc/self/fd/{name}")]
    said = {
        "pid": os.getpid(), "cwd": os.getcwd(), "session": os.getsid(0), "umask": os.umask(0o077),
        "standard": [os.readlink(f"/proc/self/fd/{n}") for n in (0, 1, 2)],
        "open": links,
    }
    with open(facts, "w") as file:
        json.dump(said, file)
    ready()
    ready()
    time.sleep(30)
    return 0

def refused(ready):
    raise RemoteError("the remote says no", hint="ask it")

def broken(ready):
    raise ZeroDivisionError("oh")

def dies(ready):
    os._exit(9)

def early(ready):
    return 0

def silent(ready):
    open(facts, "w").write(json.dumps({"pid": os.getpid()}))
    time.sleep(30)

try:
    print("pid", launch(globals()[sys.argv[2]], patience=float(sys.argv[3]), log="/the/log"), flush=True)
except FsmountError as error:
    traced = "ZeroDivisionError" in getattr(error, "trace", "")
    print("failed", error.exit_code, error.message, error.hint, traced, flush=True)
"""


@pytest.fixture
def facts(tmp_path: Path) -> Iterator[Path]:
    """Where the daemon tells about itself; it is ended by its pid."""
    path = tmp_path / "facts"
    yield path
    if path.exists():
        try:
            os.kill(json.loads(path.read_text())["pid"], signal.SIGKILL)
        except ProcessLookupError:
            pass


def launched(facts: Path, kind: str, patience: float = 20.0) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(facts), kind, str(patience)],
        capture_output=True, text=True, timeout=40, check=True, cwd=facts.parent,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.strip()


def test_it_returns_the_pid_when_ready(facts: Path) -> None:
    said = launched(facts, "good")
    assert said == f"pid {json.loads(facts.read_text())['pid']}"


def test_it_keeps_nothing_of_its_caller(facts: Path) -> None:
    """``capture_output`` alone shows it: the call would not end while the daemon held the pipes."""
    launched(facts, "good")
    said = json.loads(facts.read_text())
    assert said["cwd"] == "/"
    assert said["session"] != os.getsid(0)
    assert said["session"] != said["pid"], "a session leader could get a terminal again"
    assert said["standard"] == ["/dev/null"] * 3
    assert said["umask"] == 0o077
    assert len(said["open"]) == 1, "only the one to report through"
    assert said["open"][0].startswith("pipe:")


def test_a_failure_comes_with_its_code_and_hint(facts: Path) -> None:
    assert launched(facts, "refused") == "failed 4 the remote says no ask it False"


def test_an_unexpected_error_is_one_line_and_a_trace_for_debug(facts: Path) -> None:
    assert launched(facts, "broken") == "failed 1 unexpected: ZeroDivisionError: oh None True"


def test_a_daemon_that_dies_is_noticed_at_once(facts: Path) -> None:
    started = time.monotonic()
    assert launched(facts, "dies") == "failed 1 the mount died before it was ready see /the/log False"
    assert time.monotonic() - started < 15


def test_ending_before_ready_is_a_failure(facts: Path) -> None:
    assert launched(facts, "early").startswith("failed 1 the mount ended before it was ready")


def test_a_silent_daemon_is_ended(facts: Path) -> None:
    assert launched(facts, "silent", patience=1.0).startswith("failed 6 the mount was not ready within 1 s")
    pid = json.loads(facts.read_text())["pid"]
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
