"""Programs read all of `.relay` over and over while the queue changes: nothing is torn, nothing fails.

FSMOUNT_WALK_ROUNDS says how many rounds; a thousand take some minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mount import Mount, until
from tests.support.ops import ops
from tests.support.server import serving

pytestmark = [pytest.mark.mount, pytest.mark.timeout(60 + int(os.environ.get("FSMOUNT_WALK_ROUNDS", "0")))]

ROUNDS = int(os.environ.get("FSMOUNT_WALK_ROUNDS", "12"))
TOOLS = max(2, ROUNDS // 20)
"""Rounds of each tool: a tool costs several processes."""
LIMIT = 60.0 + ROUNDS

WRITER = """
import itertools, os, sys, time
root = os.environ["MOUNT"]
relay = f"{root}/.relay"

def attempt(call, *arguments):
    try:
        return call(*arguments)
    except OSError:  # delivered, being sent or overtaken meanwhile
        return None

def command(line):
    with open(f"{relay}/ctl", "w") as ctl:
        ctl.write(line + chr(10))

for number in itertools.count():
    if os.path.exists(sys.argv[1]):
        break
    time.sleep(0.01)
    for directory in ("good", "refused"):
        with open(f"{root}/{directory}/{number % 7}", "w") as file:
            file.write(f"{number} " * (number % 50))
    if number % 5 == 4:
        dead, discarded = os.listdir(f"{relay}/dead-letter"), sorted(os.listdir(f"{relay}/discarded"))
        for position, name in enumerate(dead):
            verb = "retry" if position % 2 else "discarded"
            attempt(os.rename, f"{relay}/dead-letter/{name}", f"{relay}/{verb}/{name}")
        for name in discarded[:-8]:
            attempt(command, f"purge {name}")
print(number)
"""

WALKER = """
import json, os, stat, sys
relay, rounds = os.environ["MOUNT"] + "/.relay", int(sys.argv[1])
growing, lines = ("log", "events"), ("events", "problems")
files = ops = 0

def walk(directory):
    with os.scandir(directory) as listing:
        for entry in list(listing):
            if stat.S_ISDIR(os.lstat(entry.path).st_mode):
                yield from walk(entry.path)
            else:
                yield entry.path

for number in range(rounds):
    for path in walk(relay):
        name = os.path.basename(path)
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read()
            if not (size == len(content) or (name in growing and size < len(content))):
                sys.exit(f"round {number}: {path}: {size} bytes by stat, {len(content)} read")
        if name.endswith(".json"):
            found = json.loads(content)
            ops += "opId" in found
        if name in lines:
            [json.loads(line) for line in content.splitlines()]
        files += 1
print(f"{rounds} rounds, {files} files, {ops} of them ops")
"""

TAR = r"""
tar cf copy.tar -C $MOUNT .relay 2> said
tar tf copy.tar | grep -q /pending/ && ! grep -vE '/(log|events): file changed as we read it$' said >&2
"""
"""Two of the files are there to grow, and tar tells of any that does."""


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    folder = tmp_path_factory.mktemp("walk")
    with serving(folder / "relay") as server:
        server.put_many({"/good/there": "there\n", "/refused/there": "there\n", "/held/conflict": "base\n"})
        server.rules('PUT /refused/** 422 {"code":"no","message":"not this one"}\n')
        with Mount(folder, server, "--settle", "0.02", "--max-settle", "0.1", "--drain", "1") as mounted:
            _conflict(mounted)
            yield mounted


@pytest.fixture
def writer(mount: Mount, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Something that keeps the queue changing until the test is over."""
    program, end = tmp_path / "writer.py", tmp_path / "end"
    program.write_text(WRITER)
    command = ["timeout", "-s", "KILL", str(LIMIT), sys.executable, str(program), str(end)]
    with subprocess.Popen(command, env=mount.environment, stdout=subprocess.PIPE, text=True) as running:
        until(lambda: bool(ops(mount, "dead-letter")[1:]), "the first refusal is seen")
        yield running
        end.touch()
        written = running.communicate(timeout=30)[0]
        assert running.returncode == 0
        assert int(written) > 1, "it wrote all the time"


def test_a_program_reads_all_of_it_while_the_queue_changes(
    mount: Mount, writer: subprocess.Popen[str], tmp_path: Path
) -> None:
    walker = tmp_path / "walker.py"
    walker.write_text(WALKER)
    done = mount.sh(f"{sys.executable} {walker} {ROUNDS}", timeout=LIMIT, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, f"{done.stderr}{mount.log()[-2000:]}"
    assert done.stdout.startswith(f"{ROUNDS} rounds, ")
    assert int(done.stdout.split()[-4]) >= ROUNDS, "ops were there to be read"


@pytest.mark.parametrize(
    "command",
    [
        "rm -rf copy && cp -r $MOUNT/.relay copy",
        "rm -rf copy && cp -a --no-preserve=timestamps $MOUNT/.relay copy",
        TAR,
        "grep -r opId $MOUNT/.relay > found",
        "find $MOUNT/.relay -ls > found",
        "find $MOUNT/.relay -name '*.json' -print0 | xargs -0 jq -e . > found",
        "for f in $MOUNT/.relay/*.json; do python3 -c 'import json, sys; json.load(sys.stdin)' < $f || exit 1; done",
        "vim -R -es -u NONE -c 'w! seen' -c 'qa!' $MOUNT/.relay/status && grep -q health seen",
        "rsync -r $MOUNT/.relay/ copy/",
    ],
    ids=["cp-r", "cp-a", "tar", "grep", "find", "jq", "json.load", "vim-R", "rsync"],
)
def test_tools_read_it_while_the_queue_changes(
    mount: Mount, writer: subprocess.Popen[str], tmp_path: Path, command: str
) -> None:
    for number in range(TOOLS):
        done = mount.sh(f"cd {tmp_path}; {command}", check=False)
        assert (done.returncode, done.stderr) == (0, ""), f"round {number}"


def test_tail_follows_the_log_while_the_queue_changes(
    mount: Mount, writer: subprocess.Popen[str], tmp_path: Path
) -> None:
    followed = tmp_path / "followed"
    with followed.open("wb") as output:
        tail = subprocess.Popen(
            ["timeout", "-s", "KILL", str(LIMIT), "tail", "-n", "+1", "-F", mount.point / ".relay" / "events"],
            stdout=output, stderr=subprocess.PIPE,
        )  # fmt: skip
    try:
        begun = (mount.state / "events").stat().st_size
        until(lambda: followed.stat().st_size > begun + 10_000, "lines come in, new ones too", 20)
    finally:
        tail.terminate()
        complaints = tail.communicate(timeout=10)[1]
    assert complaints == b""
    kept = (mount.state / "events").read_bytes()
    assert kept.startswith(followed.read_bytes().rpartition(b"\n")[0])


def _conflict(mount: Mount) -> None:
    """A conflict that stays, so that there is one to be read."""
    mount.sh("cat $MOUNT/held/conflict > /dev/null; echo mine > $MOUNT/held/conflict")
    mount.server.put("/held/conflict", "theirs\n")
    until(lambda: bool(ops(mount, "dead-letter")), "the conflict is a dead letter")
